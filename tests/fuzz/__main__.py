"""Damage many files of all kinds: `python -m tests.fuzz 5000 [SEED [FOLDER FOR FAULTS]]`."""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path

import datasets

from tests.fuzz.cases import Case, fuzz
from tests.fuzz.targets import all_targets

OUTCOMES = ("refused", "right", "other content", "fault")


def table(cases: list[Case]) -> str:
    """Count outcomes by what was read."""
    lines = [f"{'':30} {'files':>7} " + " ".join(f"{name:>14}" for name in OUTCOMES) + f" {'slowest, s':>11}"]
    for target in [*dict.fromkeys(case.target for case in cases), ""]:
        own = [case for case in cases if not target or case.target == target]
        counts = Counter(case.outcome.partition(":")[0].lower() for case in own)
        slowest = max(case.seconds for case in own)
        figures = " ".join(f"{counts[name]:14d}" for name in OUTCOMES)
        lines.append(f"{target or 'all':30} {len(own):7d} {figures} {slowest:11.2f}")
    return "\n".join(lines)


def main(count: int, seed: int = 0, faults: str = "") -> int:
    """Print what became of so many files, and return how many faults there are."""
    warnings.simplefilter("ignore")
    datasets.disable_progress_bars()
    cases = []
    with tempfile.TemporaryDirectory() as folder:
        for case in fuzz(all_targets(Path(folder)), count, seed):
            if not case.outcome.startswith("whole"):
                cases.append(case)
            if case.outcome.startswith("FAULT"):
                print(f"{case.target}, {case.file}: {case.outcome[:400]}", flush=True)
                if faults:
                    name = f"{len(cases)}-{case.target.replace(' ', '-')}-{case.file}"
                    Path(faults).mkdir(parents=True, exist_ok=True)
                    (Path(faults) / name).write_bytes(case.content)
    print(table(cases))
    return sum(case.outcome.startswith("FAULT") for case in cases)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0, *sys.argv[3:]) > 0)
