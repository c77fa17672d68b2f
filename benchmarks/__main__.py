"""Run every benchmark of this folder, one after the other: `python -m benchmarks`."""

import pkgutil
import subprocess
import sys

import benchmarks

for module in pkgutil.iter_modules(benchmarks.__path__, "benchmarks."):
    if module.name != __name__ and not module.name.endswith("__main__"):
        subprocess.run([sys.executable, "-m", module.name], check=True)
