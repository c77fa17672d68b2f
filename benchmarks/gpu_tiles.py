"""Try tiles for the search's kernels on a GPU: how `plan` in `lexel.nearest._triton` was chosen.

    python -m benchmarks.gpu_tiles [--seconds 60] [--only 256]

prints, for each shape, a line for each tiling: the milliseconds of a whole search, recorded as a CUDA graph, its share
of wrong codes (there must be none), and the microseconds of each kernel. Several processes compile beforehand. The
present choice is the line that begins with an asterisk.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks import gpu_layer
from benchmarks.gpu import problem, replayed, truth
from lexel.nearest import _triton, nearest_code
from lexel.nearest._triton import Plan

PROCESSES = 14


def single(depth: int, step: int, inputs: int, codes: int, warps: int, stages: int, unit: int, top: int = 0) -> Plan:
    """Tiles of inputs that are packed beforehand; `top` registers at most."""
    return Plan("single", depth, step, inputs, codes, warps, stages, unit, top or None, packed=True)


def unpacked(depth: int, inputs: int, codes: int, warps: int, stages: int, unit: int, top: int = 0) -> Plan:
    return Plan("single", depth, depth, inputs, codes, warps, stages, unit, top or None)


WHOLE_256 = [
    single(256, 256, *tile)
    for tile in (
        (128, 64, 8, 1, 1, 128), (128, 64, 8, 1, 2, 128), (128, 64, 8, 2, 1), (128, 64, 8, 2, 2), (128, 64, 8, 3, 2),
        (128, 64, 4, 1, 2), (128, 128, 8, 1, 2), (128, 128, 8, 2, 1), (128, 128, 8, 2, 2), (128, 128, 8, 2, 4),
        (64, 64, 4, 2, 2), (64, 64, 4, 1, 2), (256, 64, 8, 2, 2),
    )
]  # fmt: skip
UNPACKED_256 = [unpacked(256, *tile) for tile in ((128, 64, 8, 2, 1), (128, 64, 8, 1, 2))]
SPLIT_256 = [
    single(256, *tile)
    for tile in (
        (64, 128, 128, 8, 3, 1, 128), (64, 128, 128, 8, 3, 2, 128), (64, 128, 256, 8, 3, 2), (64, 128, 256, 8, 4, 4),
        (128, 128, 128, 8, 2, 2),
    )
]  # fmt: skip
CANDIDATES: dict[tuple[int, int, int], list[Plan]] = {
    (65536, 8192, 256): [*WHOLE_256, *UNPACKED_256, *SPLIT_256],
    (65536, 1024, 256): [*WHOLE_256, *UNPACKED_256, *SPLIT_256],
    (16384, 1024, 1024): [
        single(1024, *tile)
        for tile in (
            (64, 128, 128, 8, 3, 1, 128), (64, 128, 128, 8, 4, 1), (64, 128, 128, 8, 4, 2), (64, 128, 256, 8, 3, 1),
            (64, 128, 256, 8, 4, 1), (64, 128, 256, 8, 4, 2), (128, 128, 128, 8, 3, 1), (128, 64, 128, 4, 3, 1),
            (64, 64, 128, 4, 4, 1),
        )
    ],
    (65536, 512, 64): [
        *(unpacked(64, *tile) for tile in ((64, 128, 4, 2, 2, 128), (64, 128, 4, 2, 1, 128), (128, 128, 4, 2, 2))),
        *(
            single(64, 64, *tile)
            for tile in (
                (64, 128, 4, 2, 1, 128), (64, 128, 4, 2, 2, 128), (128, 128, 4, 2, 1), (128, 128, 8, 2, 1, 128),
                (128, 64, 4, 3, 1, 128), (64, 64, 4, 3, 1, 128), (128, 64, 8, 2, 1),
            )
        ),
    ],
    (65536, 8192, 128): [
        unpacked(128, 128, 128, 4, 2, 4),
        *(
            single(128, 128, *tile)
            for tile in (
                (128, 128, 4, 2, 4), (128, 128, 8, 2, 4, 128), (128, 128, 8, 2, 2, 128), (128, 128, 8, 1, 4, 128),
                (128, 64, 8, 2, 2), (128, 64, 8, 3, 4), (128, 64, 4, 2, 4), (64, 128, 4, 2, 4), (128, 128, 4, 1, 4),
            )
        ),
    ],
    (65536, 8192, 64): [
        unpacked(64, 128, 128, 4, 2, 4),
        *(
            single(64, 64, *tile)
            for tile in (
                (128, 128, 4, 2, 4), (128, 128, 4, 3, 4), (128, 128, 8, 2, 4, 128), (128, 64, 8, 3, 4),
                (128, 64, 4, 3, 4), (64, 128, 4, 2, 4, 128),
            )
        ),
    ],
}  # fmt: skip


def use(plan: Plan) -> None:
    _triton.plan = lambda *_: plan  # type: ignore[assignment]


def kernels(x: Tensor, codebook: Tensor) -> str:
    """The microseconds of each kernel of a search, if they can be had."""
    try:
        return _kernels(x, codebook)
    except Exception as error:
        return gpu_layer.short(error)


def _kernels(x: Tensor, codebook: Tensor) -> str:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(5):
            nearest_code(x, codebook)
        torch.cuda.synchronize()
    names = dict.fromkeys(("centre", "pack", "pack_inputs", "scan", "decide"), 0.0)
    for event in profile.key_averages():
        if event.key in names:
            names[event.key] += event.self_device_time_total / 5
    return " ".join(f"{name} {taken:.0f}" for name, taken in names.items())


def lines(shape: tuple[int, int, int], plans: list[Plan], device: torch.device, present: Plan) -> Iterator[str]:
    x, codebook = problem(*shape, device)
    true = truth(x, codebook)
    timers, wrong, costs = {}, {}, {}
    for plan in plans:
        use(plan)
        try:
            found = nearest_code(x, codebook)[: len(true)]
            wrong[plan] = float((found != true).float().mean())
            costs[plan] = kernels(x, codebook)
            timers[plan] = replayed(lambda: nearest_code(x, codebook), device)
        except Exception as error:  # whatever it is, the other tiles are of interest too
            yield f"  failed: {plan}: {gpu_layer.short(error)}"
    times = {plan: [timer() for _ in range(1)] for plan, timer in timers.items()}
    for _ in range(3):
        for plan, timer in timers.items():
            times[plan].append(timer())
    for plan in sorted(timers, key=lambda plan: statistics.median(times[plan])):
        numbers = (getattr(plan, name) for name in ("step", "inputs", "codes", "warps", "stages", "unit", "registers"))
        yield (
            f"{'*' if plan == present else ' '} {statistics.median(times[plan]):.4f} ms ({min(times[plan]):.4f} – "
            f"{max(times[plan]):.4f}), wrong {wrong[plan]:.1e}, {tuple(numbers)}{', packed' if plan.packed else ''}: "
            f"{costs[plan]}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="no shape begins later")
    parser.add_argument("--only", type=int, nargs="*", help="numbers of dimensions")
    parser.add_argument("--warm", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    until = time.perf_counter() + arguments.seconds
    chosen = {shape: plans for shape, plans in CANDIDATES.items() if not arguments.only or shape[2] in arguments.only}
    device = torch.device("cuda", 0)
    if arguments.warm is not None:
        every = [(shape, plan) for shape, plans in chosen.items() for plan in plans]
        for shape, plan in every[arguments.warm :: PROCESSES]:
            use(plan)
            try:
                nearest_code(*problem(4096, *shape[1:], device))
            except Exception as error:
                print(f"{plan}: {gpu_layer.short(error)}", file=sys.stderr)
        return
    command = [sys.executable, "-m", "benchmarks.gpu_tiles", *sys.argv[1:], "--warm"]
    started = [
        subprocess.Popen([*command, str(number)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for number in range(PROCESSES)
    ]
    for process in started:
        try:
            process.wait(timeout=max(0.1, until - 20 - time.perf_counter()))
        except subprocess.TimeoutExpired:  # it is compiled later, then
            process.kill()
    print(f"{torch.cuda.get_device_name(device)}, {until - time.perf_counter():.0f} s left", flush=True)
    plan = _triton.plan
    for shape, plans in chosen.items():
        present = plan(shape[2], shape[1], True)
        if present not in plans:
            plans = [present, *plans]
        print(f"N, K, D = {shape}", flush=True)
        if time.perf_counter() > until:
            print("  not measured: the time was up", flush=True)
            continue
        for line in lines(shape, plans, device, present):
            print(line, flush=True)


if __name__ == "__main__":
    main()
