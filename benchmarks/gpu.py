"""Nearest-code search, k-means and the layer on a GPU, beside rivals and beside what the card can do.

    python -m benchmarks.gpu [--runs 5] [--rows 65536] [--only search kmeans layer]

writes `benchmarks/results/gpu.md`. A call is recorded as a CUDA graph, so that what counts is the card's time; each run
replays all of them in turn. Two floors are measured on the same card: the bytes that must be read and written over the
bandwidth of a copy, and the multiplications over the rate of a large float16 product. On a CPU tiny sizes run, which
show only that it works, and nothing is written.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import lexel
from benchmarks import gpu_layer
from benchmarks.search import SHAPES, seed, tiled
from lexel.nearest import nearest_code

RESULTS = Path(__file__).parent / "results" / "gpu.md"
LARGEST = (1 << 20, 65536, 128)
MOST = 1 << 30  # numbers of an (N, K) matrix that a rival may make


def replayed(call: Callable[[], object], device: torch.device) -> Callable[[], float]:
    """Return a function that makes the call and returns its milliseconds: recorded, if the call can be."""
    if device.type != "cuda":
        return lambda: gpu_layer.milliseconds(call, device, 1)
    try:
        recorded: Callable[[], object] = gpu_layer.graphed(call)
    except RuntimeError:  # it waits for the device, or allocates behind torch's back
        torch.cuda.synchronize()
        recorded = call
    return lambda: gpu_layer.milliseconds(recorded, device, 3)


def rivals(x: Tensor, codebook: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Each returns the indices that it finds."""
    found: dict[str, Callable[[], Tensor]] = {"Lexel": lambda: nearest_code(x, codebook)}
    if len(x) * len(codebook) <= MOST:
        found["classic expression"] = lambda: seed(x, codebook)
        found["torch.cdist"] = lambda: torch.cdist(x, codebook).argmin(1)
    if len(x) * len(codebook) <= 1 << 32:
        found["tiled torch"] = lambda: tiled(x, codebook)
    if x.is_cuda and importlib.util.find_spec("flash_kmeans"):
        from flash_kmeans.assign_euclid_triton import euclid_assign_triton

        for name, dtype in (("flash-kmeans, float32", torch.float32), ("flash-kmeans, float16", torch.float16)):
            inputs, codes = x.to(dtype)[None], codebook.to(dtype)[None]
            squares = inputs.float().square().sum(-1)
            found[name] = lambda a=inputs, b=codes, c=squares: euclid_assign_triton(a, b, c)[0].long()
    return found


def truth(x: Tensor, codebook: Tensor) -> Tensor:
    """Nearest codes by float64, of some of the inputs."""
    codes, best = codebook.double(), []
    for part in x[:16384].split(max(1, (1 << 25) // len(codebook))):
        best.append((part.double() @ codes.T - codes.square().sum(1) / 2).argmax(1))
    return torch.cat(best)


def multiplications(device: torch.device) -> float:
    """Multiplications and additions of a large float16 product in a millisecond."""
    size = 8192 if device.type == "cuda" else 64
    a = torch.randn(size, size, device=device, dtype=torch.float16)
    return 2 * size**3 / statistics.median(replayed(lambda: a @ a, device)() for _ in range(5))


def search(shape: tuple[int, int, int], device: torch.device, runs: int, rates: tuple[float, float]) -> list[str]:
    rows, num_embeddings, dim = shape
    generator = torch.Generator().manual_seed(0)
    # A mean away from the origin, as features have.
    x = torch.randn(rows, dim, generator=generator).to(device) + 1
    codebook = torch.randn(num_embeddings, dim, generator=generator).to(device) + 1
    true, calls = truth(x, codebook), rivals(x, codebook)
    floors = 4 * (rows + num_embeddings) * dim / rates[0], 2 * rows * num_embeddings * dim / rates[1]
    text = [
        "",
        f"### N = {rows:,}, K = {num_embeddings:,}, D = {dim}",
        "",
        f"Floors: {floors[0]:.3f} ms for the bytes, {floors[1]:.3f} ms for the multiplications.",
        "",
        "| search | milliseconds | range | ÷ the larger floor | wrong codes |",
        "|---|---|---|---|---|",
    ]
    wrong = {name: float((call()[: len(true)] != true).float().mean()) for name, call in calls.items()}
    timers = {name: replayed(call, device) for name, call in calls.items()}
    times = {name: [timer() for _ in range(runs)] for name, timer in timers.items()}
    for name, taken in times.items():
        middle = statistics.median(taken)
        text.append(
            f"| {name} | {middle:.3f} | {min(taken):.3f} – {max(taken):.3f} | {middle / max(floors):.1f} "
            f"| {wrong[name]:.2%} |"
        )
    return text


def kmeans(device: torch.device, runs: int) -> list[str]:
    rows, num_embeddings, dim = (1 << 17, 1024, 128) if device.type == "cuda" else (300, 8, 4)
    x = torch.randn(rows, dim, generator=torch.Generator().manual_seed(0)).to(device)
    iterations, start = (
        10,
        x[torch.randperm(rows, generator=torch.Generator().manual_seed(1))[:num_embeddings].to(device)],
    )
    calls: dict[str, Callable[[], object]] = {
        "Lexel": lambda: lexel.kmeans(x, num_embeddings, init=start, iterations=iterations, tolerance=0.0)
    }
    if device.type == "cuda" and importlib.util.find_spec("flash_kmeans"):
        from flash_kmeans import batch_kmeans_Euclid

        calls["flash-kmeans"] = lambda: batch_kmeans_Euclid(
            x[None], num_embeddings, max_iters=iterations, tol=-1.0, init_centroids=start[None]
        )
    text = ["", f"### N = {rows:,}, K = {num_embeddings:,}, D = {dim}, {iterations} iterations from the same rows", ""]
    text += ["| k-means | milliseconds | range |", "|---|---|---|"]
    for name, call in calls.items():
        taken = [gpu_layer.milliseconds(call, device, 1) for _ in range(runs)]
        text.append(f"| {name} | {statistics.median(taken):.1f} | {min(taken):.1f} – {max(taken):.1f} |")
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--rows", type=int, default=65536, help="inputs of a search")
    parser.add_argument(
        "--only", nargs="*", choices=("search", "kmeans", "layer"), default=("search", "kmeans", "layer")
    )
    arguments = parser.parse_args()
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", 0) if cuda else torch.device("cpu")
    card = torch.cuda.get_device_name(device) if cuda else "no GPU, tiny sizes"
    rates = gpu_layer.bandwidth(device), multiplications(device)
    text = [
        "# On a GPU",
        "",
        f"`python -m benchmarks.gpu` on {card}; torch {torch.__version__}, search {lexel.nearest.backend(device)}. A "
        f"copy moves {rates[0] / 1e6:,.0f} GB/s, a float16 product makes {rates[1] / 1e9:,.0f} TFLOP/s.",
    ]
    if "search" in arguments.only:
        text += ["", "## Search"]
        shapes = [(arguments.rows, *shape) for shape in SHAPES] + [LARGEST] if cuda else [(40, 20, 4)]
        for shape in shapes:
            text += search(shape, device, arguments.runs, rates)
    if "kmeans" in arguments.only:
        text += ["", "## K-means", *kmeans(device, arguments.runs)]
    if "layer" in arguments.only:
        text += ["", "## The layer", "", *gpu_layer.rows(device)]
    print("\n".join(text))
    if cuda:
        RESULTS.write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
