"""`python -m lexel` is the command `lexel`."""

import sys

from lexel.cli import main

if __name__ == "__main__":
    sys.exit(main())
