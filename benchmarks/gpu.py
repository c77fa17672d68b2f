"""Nearest-code search, k-means and the layer on a GPU, beside rivals and beside what the card can do.

    python -m benchmarks.gpu [--runs 5] [--rows 65536] [--seconds 100] [--only …]

writes `benchmarks/results/gpu.md`. A call is recorded as a CUDA graph, so that what counts is the card's time; each run
replays all of them in turn. Two floors are measured on the same card: the bytes that must be read and written over the
bandwidth of a copy, and the multiplications over the rate of a large float16 product. A row is printed when it is
measured; a rival that fails says so in its row. Kernels are compiled beforehand, by several processes at once. On a CPU
tiny sizes run, which show only that it works, and nothing is written.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

import lexel
from benchmarks import gpu_layer
from benchmarks.search import SHAPES, seed, tiled
from lexel.nearest import nearest_code

RESULTS = Path(__file__).parent / "results" / "gpu.md"
WIDE = (16384, 1024, 1024)
LARGEST = (1 << 20, 65536, 128)
SEVERAL = [(8192, 64, 8), (8192, 256, 8), (16384, 8, 8), (8192, 64, 64)]  # K, D, k
MOST = 1 << 30  # numbers of an (N, K) matrix that a rival may make
BUDGET = 200.0  # milliseconds that each run may spend on a rival
HALF = "Lexel, float16 inputs"
PARTS = ("search", "several", "kmeans", "layer")
# They are not on PyPI as packages that pip can install beside torch's CUDA build alone.
ABSENT = "faiss-gpu and cuVS are not among the rivals: neither could be installed on the machine of these figures."


def replayed(call: Callable[[], object], device: torch.device) -> Callable[[], float]:
    """Return a function that makes the call and returns its milliseconds: recorded, if the call can be."""
    if device.type != "cuda":
        return lambda: gpu_layer.milliseconds(call, device, 1)
    single = gpu_layer.milliseconds(call, device, 1)
    try:
        recorded: Callable[[], object] = gpu_layer.graphed(call)
    except Exception:  # it waits for the device, or allocates behind torch's back
        recorded = call
    repeats = max(1, min(15, int(BUDGET / max(single, 1e-3)) // 2))
    return lambda: gpu_layer.milliseconds(recorded, device, repeats)


def measure(
    calls: dict[str, Callable[[], Tensor]], trues: dict[str, Tensor], floor: float, device: torch.device, runs: int
) -> Iterator[str]:
    """Yield a table of what returns indices; `trues` has those of float64, for all under "" or for one by its name."""
    if device.type == "cuda":
        torch.cuda.empty_cache()  # what the graphs of another shape have held
    yield "| search | milliseconds | range | ÷ the larger floor | extra memory, MB | wrong |"
    yield "|---|---|---|---|---|---|"
    found: dict[str, tuple[float, float, Callable[[], float]] | str] = {}
    for name, call in calls.items():
        try:
            indices, true = call(), trues.get(name, trues[""])
            some = indices[: len(true)] != true
            wrong = float((some if some.ndim == 1 else some.any(1)).float().mean())
            extra = gpu_layer.extra_memory(call, device) - indices.nbytes / 1e6
            found[name] = wrong, extra, replayed(call, device)
        except Exception as error:  # whatever it is, the other rivals are of interest too
            found[name] = gpu_layer.short(error)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(runs):
        for name, result in found.items():
            if isinstance(result, tuple):
                times[name].append(result[2]())
    for name, result in found.items():
        if isinstance(result, str):
            yield f"| {name} | failed: {result} | | | | |"
            continue
        taken, (wrong, extra, _) = times[name], result
        middle = statistics.median(taken)
        yield (
            f"| {name} | {middle:.3f} | {min(taken):.3f} – {max(taken):.3f} | {middle / floor:.1f} | {extra:.0f} "
            f"| {wrong:.2%} |"
        )


def rivals(x: Tensor, codebook: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Each returns the indices that it finds."""
    found: dict[str, Callable[[], Tensor]] = {"Lexel": lambda: nearest_code(x, codebook)}
    half, codes = x.half(), codebook.half()
    if len(x) == 65536:
        found[HALF] = lambda: nearest_code(half, codebook)
    if len(x) * len(codebook) <= MOST:
        found["classic expression"] = lambda: seed(x, codebook)
        found["torch.cdist"] = lambda: torch.cdist(x, codebook).argmin(1)
        found["tiled torch"] = lambda: tiled(x, codebook)
    if x.is_cuda and importlib.util.find_spec("flash_kmeans"):
        from flash_kmeans.assign_euclid_triton import euclid_assign_triton

        for name, a, b in (("float32", x, codebook), ("float16", half, codes)):
            squares = a.float().square().sum(-1)[None]
            found[f"flash-kmeans, {name}"] = lambda a=a[None], b=b[None], c=squares: euclid_assign_triton(a, b, c)[0]
    return found


def truth(x: Tensor, codebook: Tensor, k: int = 1) -> Tensor:
    """Nearest codes by float64, of some of the inputs."""
    codes, best = codebook.double(), []
    for part in x[:16384].split(max(1, (1 << 25) // len(codebook))):
        best.append((part.double() @ codes.T - codes.square().sum(1) / 2).topk(k, 1)[1])
    return torch.cat(best) if k > 1 else torch.cat(best)[:, 0]


def multiplications(device: torch.device) -> float:
    """Multiplications and additions of a large float16 product in a millisecond."""
    size = 8192 if device.type == "cuda" else 64
    a = torch.randn(size, size, device=device, dtype=torch.float16)
    return 2 * size**3 / statistics.median(replayed(lambda: a @ a, device)() for _ in range(5))


def problem(rows: int, num_embeddings: int, dim: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Normally distributed inputs and codes, with a mean away from the origin, as features have."""
    generator = torch.Generator(device).manual_seed(0)
    return tuple(
        torch.randn(count, dim, generator=generator, device=device).add_(1) for count in (rows, num_embeddings)
    )


def search(shape: tuple[int, int, int], device: torch.device, runs: int, rates: tuple[float, float]) -> Iterator[str]:
    rows, num_embeddings, dim = shape
    x, codebook = problem(*shape, device)
    floors = 4 * (rows + num_embeddings) * dim / rates[0], 2 * rows * num_embeddings * dim / rates[1]
    yield from ("", f"### N = {rows:,}, K = {num_embeddings:,}, D = {dim}", "")
    yield f"Floors: {floors[0]:.3f} ms for the bytes, {floors[1]:.3f} ms for the multiplications."
    yield ""
    trues = {"": truth(x, codebook), HALF: truth(x.half(), codebook)}
    yield from measure(rivals(x, codebook), trues, max(floors), device, runs)


def several(
    shape: tuple[int, int, int], k: int, device: torch.device, runs: int, rates: tuple[float, float]
) -> Iterator[str]:
    rows, num_embeddings, dim = shape
    x, codebook = problem(*shape, device)
    floor = 2 * rows * num_embeddings * dim / rates[1]
    yield from ("", f"### N = {rows:,}, K = {num_embeddings:,}, D = {dim}, k = {k}", "")
    calls: dict[str, Callable[[], Tensor]] = {
        "Lexel": lambda: nearest_code(x, codebook, k=k),
        "torch.cdist and topk": lambda: torch.cdist(x, codebook).topk(k, 1, largest=False)[1],
    }
    yield from measure(calls, {"": truth(x, codebook, k)}, floor, device, min(runs, 3))


def kmeans(device: torch.device, runs: int) -> Iterator[str]:
    rows, num_embeddings, dim = (1 << 20, 4096, 128) if device.type == "cuda" else (300, 8, 4)
    x, iterations = problem(rows, 1, dim, device)[0], 10
    start = x[torch.randperm(rows, generator=torch.Generator().manual_seed(1))[:num_embeddings].to(device)]
    calls: dict[str, Callable[[], Tensor]] = {
        "Lexel": lambda: lexel.kmeans(x, num_embeddings, init=start, iterations=iterations, tolerance=0.0).codebook
    }
    if device.type == "cuda" and importlib.util.find_spec("flash_kmeans"):
        from flash_kmeans import batch_kmeans_Euclid

        for name, a in (("float32", x), ("float16", x.half())):
            calls[f"flash-kmeans, {name}"] = lambda a=a: batch_kmeans_Euclid(
                a[None], num_embeddings, max_iters=iterations, tol=-1.0, init_centroids=start.to(a.dtype)[None].clone()
            )[1][0].float()
    yield from ("", f"### N = {rows:,}, K = {num_embeddings:,}, D = {dim}, {iterations} iterations from the same rows")
    yield from (
        "",
        "| k-means | milliseconds | range | mean squared distance | extra memory, MB |",
        "|---|---|---|---|---|",
    )
    for name, call in calls.items():
        try:
            codes = call()
            error = float(nearest_code(x, codes, return_scores=True)[1].double().mean())
            extra = gpu_layer.extra_memory(call, device)
            taken = [gpu_layer.milliseconds(call, device, 1) for _ in range(min(runs, 2))]
        except Exception as failure:  # whatever it is, the other rival is of interest too
            yield f"| {name} | failed: {gpu_layer.short(failure)} | | | |"
            continue
        middle = statistics.median(taken)
        yield f"| {name} | {middle:.1f} | {min(taken):.1f} – {max(taken):.1f} | {error:.4f} | {extra:.0f} |"


def shapes_of(rows: int) -> list[tuple[int, int, int]]:
    return [*((rows, *shape) for shape in (*SHAPES, (8192, 128))), WIDE, LARGEST]


def warm(number: int, rows: int) -> None:
    """Compile what one section needs; the search's kernels do not depend on the number of inputs."""
    device = torch.device("cuda", 0)
    shapes, layers = shapes_of(rows), gpu_layer.SHAPES
    if number < len(shapes):
        x, codebook = problem(*shapes[number], device)
        nearest_code(x[: 1 << 14], codebook)
        nearest_code(x[: 1 << 14].half(), codebook)
        for name, call in rivals(x, codebook).items():
            if name.startswith("flash"):
                call()
    elif (number := number - len(shapes)) < len(SEVERAL):
        *sizes, k = SEVERAL[number]
        x, codebook = problem(1 << 14, *sizes, device)
        nearest_code(x, codebook, k=k)
    elif (number := number - len(SEVERAL)) < len(layers):
        for _ in gpu_layer.table(*layers[number], device, 1.0, repeats=1):
            pass
    else:
        for _ in kmeans(device, 1):
            pass


def warm_all(arguments: argparse.Namespace) -> None:
    """Compile in several processes at once what the sections need."""
    start = time.perf_counter()
    counts = {
        "search": len(shapes_of(arguments.rows)), "several": len(SEVERAL), "layer": len(gpu_layer.SHAPES), "kmeans": 1,
    }  # fmt: skip
    named = [part for part, count in counts.items() for _ in range(count)]
    command = [sys.executable, "-m", "benchmarks.gpu", "--rows", str(arguments.rows), "--warm"]
    started = [
        subprocess.Popen([*command, str(number)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for number, part in enumerate(named)
        if part in arguments.only
    ]
    for process in started:
        try:
            process.wait(timeout=max(0.1, 0.4 * arguments.seconds - (time.perf_counter() - start)))
        except subprocess.TimeoutExpired:  # it is compiled later, then
            process.kill()
    print(f"compiled beforehand in {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)


def lines(arguments: argparse.Namespace, device: torch.device, until: float) -> Iterator[str]:
    """Yield the page, line by line; no section begins after `until`."""
    cuda, runs = device.type == "cuda", arguments.runs
    card = torch.cuda.get_device_name(device) if cuda else "no GPU, tiny sizes"
    rates = gpu_layer.bandwidth(device), multiplications(device)
    yield from ("# On a GPU", "")
    yield (
        f"`python -m benchmarks.gpu` on {card}; torch {torch.__version__}, search {lexel.nearest.backend(device)}. A "
        f"copy moves {rates[0] / 1e6:,.0f} GB/s, a float16 product makes {rates[1] / 1e9:,.0f} TFLOP/s. {ABSENT}"
    )
    parts: dict[str, list[Iterator[str]]] = {
        "search": [search(s, device, runs, rates) for s in (shapes_of(arguments.rows) if cuda else [(40, 20, 4)])],
        "several": [several((arguments.rows, K, D), k, device, runs, rates) for K, D, k in (SEVERAL if cuda else [])],
        "kmeans": [kmeans(device, runs)],
        "layer": [gpu_layer.rows(device, until)],
    }
    headings = {"search": "Search", "several": "Several nearest codes", "kmeans": "K-means", "layer": "The layer"}
    for part in arguments.only:
        yield from ("", f"## {headings[part]}")
        for section in parts[part]:
            try:
                if time.perf_counter() < until:
                    yield from section
                else:
                    yield "\nA section was not measured: the time was up."
            except Exception as error:  # the other sections are of interest too
                yield f"Failed: {gpu_layer.short(error)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--rows", type=int, default=65536, help="inputs of a search")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--seconds", type=float, default=100, help="no section begins later")
    parser.add_argument("--warm", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.warm is not None:
        warm(arguments.warm, arguments.rows)
        return
    cuda, until = torch.cuda.is_available(), time.perf_counter() + arguments.seconds
    if cuda:
        warm_all(arguments)
    text = []
    for line in lines(arguments, torch.device("cuda", 0) if cuda else torch.device("cpu"), until):
        text.append(line)
        print(line, flush=True)
        if cuda:  # what was measured is kept, whatever happens next
            RESULTS.write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
