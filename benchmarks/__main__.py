"""Run the benchmarks of speed and soundness, one after the other: `python -m benchmarks`."""

import subprocess
import sys

for name in ("search", "layer", "field", "loop"):
    subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)
