"""Imported before all else: Ctrl-C ends the command `lexel` without a traceback also while it is still starting."""

import signal
import sys
import threading
from pathlib import Path

# Only where this process is the command. From `main` on, Ctrl-C is handled there.
_module = sys.orig_argv[2] if sys.orig_argv[1:2] == ["-m"] and len(sys.orig_argv) > 2 else Path(*sys.argv[:1]).stem
if _module.partition(".")[0] == "lexel" and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.SIG_DFL)
