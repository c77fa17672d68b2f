"""The command line, `lexel`: a file for each group of commands, and what they share. Needs the extra `lexel[train]`."""

import sys

try:
    from lexel.cli.program import main
except ImportError as error:
    sys.exit(f"lexel: the command line needs further packages: pip install 'lexel[train]' ({error})")

__all__ = ["main"]
