"""Nearest-code search against its rivals: time, share of the float32 peak, extra memory, and wrong answers.

    python -m benchmarks.search [--quick] [--runs 5]

writes `benchmarks/results/search.md`. Every run times all rivals once, one after the other, so that what else the
machine does hits them alike; the ratios are taken within a run and reported as their median and range.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.quality import fashion
from lexel.nearest import available_backends, backend, nearest_code, use_backend

SHAPES = [(512, 64), (1024, 256), (8192, 256), (8192, 64), (16384, 8), (1024, 4), (65536, 64), (262144, 16)]
N = 16384
RESULTS = Path(__file__).parent / "results" / "search.md"
# From profiles, and from leaving parts of the kernel out, on the machine of results/search.md.
WHY = {
    (8192, 256): (
        "Not the tile unit, whose products alone would take a quarter of the time. Each block reads two input "
        "tiles again for every two products, and 192 inputs of 512 bytes do not fit the L1 cache: the L2 "
        "cache's bandwidth is the likely limit, not yet verified."
    ),
    (8192, 64): (
        "Not the tile unit: its products take a fifth of the time. Leaving out the look at the scores (16 "
        "loads, additions and maxima for every 16 x 16 of them) saves some two fifths at D = 8; the tile "
        "stores do not overlap fully with the products."
    ),
    (16384, 8): (
        "One product for every 16 x 16 scores (17 cycles measured), a tile store (16 cycles) and the look at "
        "the scores: some 90 cycles in all, two fifths of them the look, as leaving it out shows."
    ),
    (1024, 256): ("As above, and packing 16,384 x 256 inputs and reading them again to decide; shares not measured."),
    (1024, 4): (
        "Work per input that does not depend on K: packing, the lists of the first groups, the decision, "
        "threads. A profile shows the tile pass at two fifths of the process's time, the decision at a sixth."
    ),
    (512, 64): (
        "A few milliseconds in all. A profile shows the tile pass at a quarter of the process's time, the "
        "decision at a fifth, reading the inputs at an eighth; the rest is starting threads and the call."
    ),
    (65536, 64): ("As at 8192, 64; the packed codes no longer fit the L2 cache, and are fetched ahead."),
    (262144, 16): (
        "36 MB of packed codes stream from the outer caches or memory once for every 192 inputs: fetching "
        "them ahead made it a quarter faster."
    ),
}


def seed(x: Tensor, codebook: Tensor) -> Tensor:
    """The expression most implementations use: the whole (N, K) matrix of expanded distances."""
    distances = x.square().sum(1, keepdim=True) + codebook.square().sum(1) - 2 * torch.matmul(x, codebook.t())
    return distances.argmin(1)


def tiled(x: Tensor, codebook: Tensor) -> Tensor:
    """The same, in tiles of a million numbers."""
    half, rows = codebook.square().sum(1) / 2, max(1, 2**20 // len(codebook))
    return torch.cat([torch.addmm(half, part, codebook.t(), alpha=-1).argmin(1) for part in x.split(rows)])


def rivals(x: Tensor, codebook: Tensor, threads: int) -> dict[str, Callable[[], object]]:
    found: dict[str, Callable[[], object]] = {"lexel": lambda: nearest_code(x, codebook)}
    for level in available_backends()[1:-1]:
        if level != "plain":

            def lower(level: str = level) -> Tensor:
                with use_backend(level):
                    return nearest_code(x, codebook)

            found[f"lexel {level}"] = lower
    with contextlib.suppress(ImportError):
        import faiss

        faiss.omp_set_num_threads(threads)
        inputs, codes = x.numpy(), codebook.numpy()
        found["faiss"] = lambda: faiss.knn(inputs, codes, 1)
    if len(x) * len(codebook) <= 2**28:  # beyond, they need gigabytes or minutes
        found["tiled torch"] = lambda: tiled(x, codebook)
        with contextlib.suppress(ImportError):
            from sklearn.metrics import pairwise_distances_argmin

            found["sklearn"] = lambda: pairwise_distances_argmin(x.numpy(), codebook.numpy())
    if len(x) * len(codebook) <= 2**27:
        found["seed"] = lambda: seed(x, codebook)
    return found


def milliseconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def float32_peak(threads: int) -> float:
    """GFLOP/s of multiply-adds in registers, compiled for this machine; 0 without a compiler."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "peak.so"
        source = Path(__file__).with_name("peak.cpp")
        command = [
            "c++",
            "-O2",
            "-march=native",
            "-ffp-contract=fast",
            "-shared",
            "-fPIC",
            "-o",
            library,
            source,
            "-lpthread",
        ]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            return 0.0
        call = ctypes.CDLL(str(library)).peak_gflops
        call.restype, call.argtypes = ctypes.c_double, [ctypes.c_int, ctypes.c_double]
        return float(max(call(threads, 0.2) for _ in range(3)))


MEMORY = """
import ctypes, re, torch
from pathlib import Path
from lexel.nearest import nearest_code
def kilobytes(name):
    return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text()).group(1))
{problem}
nearest_code(x[:4], codebook[:100])
ctypes.CDLL(None).malloc_trim(0)  # the heap may hold what making them left
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
before = kilobytes("VmRSS")
nearest_code(x, codebook)
print(kilobytes("VmHWM") - before)
"""


def extra_memory(problem: str) -> float:
    """Megabytes that the peak of a fresh process grows by when it searches `codebook` for `x`, made by `problem`."""
    out = subprocess.run(
        [sys.executable, "-c", MEMORY.format(problem=problem)], capture_output=True, text=True, check=True
    )
    return int(out.stdout) / 1024


def spread(values: list[float], digits: int = 1) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def machine() -> str:
    model, flags = platform.processor(), ""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":")[1].strip()
            if line.startswith("flags"):
                flags = " ".join(
                    f for f in line.split() if f in ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile")
                )
    return f"{model}, {os.cpu_count()} processors, {flags or platform.machine()}"


def speed(runs: int, peak: float) -> str:
    threads = torch.get_num_threads()
    lines = [
        f"Milliseconds for N = {N:,} standard normal inputs and codes, median (range) of {runs} interleaved runs. "
        "*times FAISS*: FAISS's time divided by Lexel's, within each run. *of peak*: 2NKD over the time, as a share of "
        "the float32 multiply-add peak measured in the same run.",
        "",
    ]
    names = ["lexel", *(f"lexel {level}" for level in available_backends()[1:-1] if level != "plain")]
    names += ["faiss", "tiled torch", "sklearn", "seed"]
    lines += [
        "| K, D | times FAISS | of peak | extra MB | " + " | ".join(names) + " |",
        "|---" * (len(names) + 4) + "|",
    ]
    for k, d in SHAPES:
        generator = torch.Generator().manual_seed(0)
        x, codebook = torch.randn(N, d, generator=generator), torch.randn(k, d, generator=generator)
        calls = rivals(x, codebook, threads)
        for name, call in calls.items():
            if name.startswith(("lexel", "faiss")) and k * d <= 2**21:
                call()  # warm
        times: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(runs):
            for name, call in calls.items():
                repeats = 5 if k * d < 2**19 and name not in ("seed", "sklearn") else 1
                times[name].append(min(milliseconds(call) for _ in range(repeats)))
        ratio = [a / b for a, b in zip(times.get("faiss", []), times["lexel"], strict=False)]
        share = 2 * N * k * d / statistics.median(times["lexel"]) / 1e6 / peak if peak else float("nan")
        extra = extra_memory(f"x, codebook = torch.randn({N}, {d}), torch.randn({k}, {d})")
        row = [f"{k}, {d}", spread(ratio) if ratio else "", f"{share:.0%}", f"{extra:.0f}"]
        row += [spread(times[name]) if name in times else "" for name in names]
        lines.append("| " + " | ".join(row) + " |")
        print(lines[-1], flush=True)
    return "\n".join(
        [
            *lines,
            "",
            "What stops Lexel's figure from being higher:",
            "",
            *(f"- {k}, {d}: {WHY[k, d]}" for k, d in SHAPES),
        ]
    )


def patches(part: str, count: int) -> Tensor:
    """Random 8×8 patches of a part of Fashion-MNIST, `(count, 64)`."""
    images, generator = fashion(part).float() / 255, torch.Generator().manual_seed(0)
    windows = images.squeeze(1).unfold(1, 8, 1).unfold(2, 8, 1)
    which = [torch.randint(size, (count,), generator=generator) for size in windows.shape[:3]]
    return windows[tuple(which)].flatten(1)


def real(runs: int) -> str:
    """Codes that lie as those of trained networks do: near each other, in far fewer than D directions."""
    lines = [
        f"Milliseconds for N = {N:,} patches of 8×8 pixels of Fashion-MNIST's test set and K of its training set, and "
        f"for as many standard normal ones, median (range) of {runs} interleaved runs; ratios are taken within a run.",
        "",
        "| K, D | lexel | faiss | times FAISS | lexel, normal | patches ÷ normal | extra MB |",
        "|---" * 7 + "|",
    ]
    x, normal = patches("t10k", N), torch.randn(N, 64, generator=torch.Generator().manual_seed(0))
    for k in (8192, 65536, 262144):
        codebook = patches("train", k)
        rivals_of = rivals(x, codebook, torch.get_num_threads())
        wide = torch.randn(k, 64, generator=torch.Generator().manual_seed(1))
        calls = {name: rivals_of[name] for name in ("lexel", "faiss")} | {
            "normal": lambda w=wide: nearest_code(normal, w)
        }
        times: dict[str, list[float]] = {name: [] for name in calls}
        for run in range(runs + 1):
            for name, call in calls.items():
                elapsed = milliseconds(call)
                if run:  # the first warms
                    times[name].append(elapsed)
        ours, faiss, plain = times.values()
        problem = f"from benchmarks.search import N, patches; x, codebook = patches('t10k', N), patches('train', {k})"
        cells = [
            spread(ours),
            spread(faiss),
            spread([a / b for a, b in zip(faiss, ours, strict=True)]),
            spread(plain),
            spread([a / b for a, b in zip(ours, plain, strict=True)], 2),
            f"{extra_memory(problem):.0f}",
        ]
        lines.append(f"| {k}, 64 | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    return "\n".join(lines)


def mistakes() -> str:
    """How often a code that is not the nearest is returned when inputs and codes are moved together."""
    lines = [
        "Share of wrong codes (K = 512, D = 64, 4,096 inputs; inputs and codes shifted together; the truth is float64 "
        "on the same float32 numbers).",
        "",
        "| shift | expanded distance | torch.cdist | FAISS | Lexel | Lexel, portable |",
        "|---|---|---|---|---|---|",
    ]
    for shift in (0, 10, 100, 1000, 10000):
        generator = torch.Generator().manual_seed(0)
        x, codebook = (
            torch.randn(4096, 64, generator=generator) + shift,
            torch.randn(512, 64, generator=generator) + shift,
        )
        wide = codebook.double()
        true = torch.cat([(part[:, None].double() - wide).square().sum(-1).argmin(1) for part in x.split(64)])
        row = [seed(x, codebook), torch.cdist(x, codebook).argmin(1)]
        with contextlib.suppress(ImportError):
            import faiss

            row.append(torch.from_numpy(faiss.knn(x.numpy(), codebook.numpy(), 1)[1][:, 0]))
        row.append(nearest_code(x, codebook))
        with use_backend("portable"):
            row.append(nearest_code(x, codebook))
        lines.append(f"| {shift:,} | " + " | ".join(f"{(found != true).double().mean():.2%}" for found in row) + " |")
    return "\n".join(lines)


def doubt(runs: int) -> str:
    """Data that leaves the first pass in doubt: time relative to the float32 level on well separated data."""
    k, d = 8192, 64
    generator = torch.Generator().manual_seed(0)
    x, plain = torch.randn(N, d, generator=generator), torch.randn(k, d, generator=generator)
    which = torch.arange(k)[:, None]

    def clusters(count: int, apart: float) -> Tensor:
        return plain[which[:, 0] % count] + apart * plain

    kinds = {
        "normal": plain,
        "all codes equal": plain[:1].expand(k, d).contiguous(),
        "half of the codes equal": torch.where(which % 2 == 0, plain, plain[0]),
        "100 clusters, codes 1e-3 apart": clusters(100, 1e-3),
        "4096 pairs, codes 1e-6 apart": clusters(4096, 1e-6),
        "100 clusters, codes 1e-6 apart": clusters(100, 1e-6),
        "100 clusters on a sphere, codes 1e-6 apart": torch.nn.functional.normalize(clusters(100, 0), dim=1) * 8
        + 1e-6 * plain,
        "10 clusters, codes 1e-6 apart": clusters(10, 1e-6),
        "2 clusters, codes 1e-6 apart": clusters(2, 1e-6),
        "codes in [-1/K, 1/K]": torch.rand(k, d, generator=generator) * 2 / k - 1 / k,
        "1 code in 50 a thousand times longer": torch.where(which % 50 == 0, plain * 1000, plain),
        "10 codes 10,000 times longer": torch.where(which % 820 == 0, plain * 10000, plain),
        "lengths spread by exp(3 normal)": plain * (3 * torch.randn(k, 1, generator=generator)).exp(),
    }
    lower = [level for level in available_backends() if level in ("avx512", "avx2", "neon")][-1:] or ["plain"]
    lines = [
        f"Milliseconds at K = {k}, D = {d}, N = {N:,} for data that the first pass cannot decide, and their ratio "
        f"(within each of {runs} runs) to the float32 level ({lower[0]}) on normal data, *plain*; for the best level, "
        "and for the float32 level itself.",
        "",
        f"| codes | plain | lexel | lexel / plain | {lower[0]} | {lower[0]} / plain |",
        "|---|---|---|---|---|---|",
    ]
    for name, codebook in kinds.items():
        times: list[list[float]] = [[], [], []]
        for _ in range(runs):
            times[1].append(milliseconds(lambda codebook=codebook: nearest_code(x, codebook)))
            with use_backend(lower[0]):
                times[0].append(milliseconds(lambda: nearest_code(x, plain)))
                times[2].append(milliseconds(lambda codebook=codebook: nearest_code(x, codebook)))
        reference, *hard = times
        cells = [spread(reference)]
        for own in hard:
            cells += [spread(own), spread([a / b for a, b in zip(own, reference, strict=True)], 2)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    peak = float32_peak(torch.get_num_threads())
    body = ["## Speed", speed(options.runs, peak), "## Real data", real(options.runs)]
    body += ["## Data that leaves the first pass in doubt", doubt(options.runs)]
    head = (
        f"# Nearest-code search\n\n`python -m benchmarks.search --runs {options.runs}` on {machine()}; "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, {backend()}. "
        f"Measured float32 multiply-add peak: {peak:.0f} GFLOP/s. Load average at the end: {os.getloadavg()[0]:.1f}; "
        "what exceeds the number of threads is other people's work, which slows everything and widens the ranges."
    )
    parts = [head, *body, "## Wrong codes", mistakes()]
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text("\n\n".join(parts) + "\n")
    print(RESULTS.read_text())


if __name__ == "__main__":
    main()
