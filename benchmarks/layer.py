"""One training step of the whole layer, forward and backward, against its rivals: time and peak memory.

    python -m benchmarks.layer [--runs 5]

writes `benchmarks/results/layer.md`. Every measurement has a process of its own. Each run measures all rivals one after
the other, so that what else the machine does hits them alike; ratios are taken within a run and reported as their
median and range.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RESULTS = Path(__file__).parent / "results" / "layer.md"
SHAPES = [((256, 64, 8, 8), 512), ((16, 64, 32, 32), 8192), ((16, 8, 32, 32), 16384)]
HUGE = ((16, 16, 32, 32), 1 << 20)
WHY = [
    "The search takes a few milliseconds; the rest is a dozen passes over 4 MB (to rows and back, gather, difference, "
    "norms, gradient, sums by index), bound by memory and by the page faults of fresh buffers; the small operations "
    "between them take 0.4 ms. The three transpositions of BCHW are more than half of the passes' time.",
    "The search takes most of the time (see the table of the search); the passes are those of the shape above.",
    "The search takes nearly all of the time; D = 8 leaves it little arithmetic for each score that it looks at.",
]


class Seed(nn.Module):
    """The classic module, from its formulas: a distance matrix, a one-hot matrix, two mean squared errors."""

    def __init__(self, num_embeddings: int, embedding_dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_embeddings, embedding_dim)
        nn.init.uniform_(self.embedding.weight, -1 / num_embeddings, 1 / num_embeddings)

    def quantize(self, z: Tensor) -> tuple[Tensor, Tensor]:
        codes = self.embedding.weight
        distances = z.pow(2).sum(1, keepdim=True) + codes.pow(2).sum(1) - 2 * z @ codes.t()
        encodings = torch.zeros_like(distances).scatter_(1, distances.argmin(1, keepdim=True), 1)
        return encodings @ codes, encodings

    def losses(self, e: Tensor, z: Tensor) -> Tensor:
        return F.mse_loss(e, z.detach()) + 0.25 * F.mse_loss(e.detach(), z)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        z = inputs.permute(0, 2, 3, 1).contiguous()
        e, encodings = self.quantize(z.view(-1, z.shape[-1]))
        e = e.view(z.shape)
        loss = self.losses(e, z)
        quantized = z + (e - z).detach()
        p = encodings.mean(0)
        perplexity = torch.exp(-torch.sum(p * torch.log(p + 1e-10)))
        return loss, quantized.permute(0, 3, 1, 2).contiguous(), perplexity, encodings


class SeedEMA(Seed):
    """Its sibling, whose codes are moving averages."""

    def __init__(self, num_embeddings: int, embedding_dim: int) -> None:
        super().__init__(num_embeddings, embedding_dim)
        self.embedding.weight.requires_grad_(False)
        self.register_buffer("count", torch.ones(num_embeddings))
        self.register_buffer("total", self.embedding.weight.clone())

    def quantize(self, z: Tensor) -> tuple[Tensor, Tensor]:
        e, encodings = super().quantize(z)
        if not self.training:
            return e, encodings
        with torch.no_grad():
            self.count = 0.99 * self.count + 0.01 * encodings.sum(0)
            n = self.count.sum()
            self.total = 0.99 * self.total + 0.01 * (encodings.t() @ z)
            self.embedding.weight.copy_(self.total / ((self.count + 1e-5) / (n + len(self.count) * 1e-5) * n)[:, None])
        return e, encodings

    def losses(self, e: Tensor, z: Tensor) -> Tensor:
        return 0.25 * F.mse_loss(e.detach(), z)


def lexel_layer(num_embeddings: int, embedding_dim: int, learning: str) -> nn.Module:
    import lexel

    return lexel.VectorQuantizer(num_embeddings, embedding_dim, learning=getattr(lexel, learning)())


def field_layer(num_embeddings: int, embedding_dim: int) -> nn.Module:
    from vector_quantize_pytorch import VectorQuantize

    return VectorQuantize(embedding_dim, num_embeddings, accept_image_fmap=True)


RIVALS: dict[str, Callable[[int, int], nn.Module]] = {
    "lexel": lambda k, d: lexel_layer(k, d, "Gradient"),
    "lexel, EMA": lambda k, d: lexel_layer(k, d, "EMA"),
    "seed": Seed,
    "seed, EMA": SeedEMA,
    "vector-quantize-pytorch": field_layer,
}


def seconds(call: Callable[[], object], budget: float) -> float:
    """Median over as many calls as the budget allows, after one to warm up; at least one."""
    call()
    times: list[float] = []
    while not times or sum(times) < budget:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure(rival: str, shape: tuple[int, ...], num_embeddings: int) -> dict[str, float]:
    """Milliseconds of a step, and of the search in it, and the process's peak memory in MB. To be called once."""
    torch.manual_seed(0)
    layer = RIVALS[rival](num_embeddings, shape[1]).train()
    with torch.no_grad():
        for tensor in (*layer.parameters(), *layer.buffers()):
            if tensor.ndim >= 2:
                tensor.normal_()
    inputs, upstream = torch.randn(shape, requires_grad=True), torch.randn(shape)

    def step() -> None:
        layer.zero_grad()
        inputs.grad = None
        output = layer(inputs)
        if rival == "vector-quantize-pytorch":
            quantized, _, loss = output
            loss = loss.sum()
        else:
            loss, quantized = (output.loss, output.quantized) if rival.startswith("lexel") else output[:2]
        torch.autograd.backward([loss, quantized], [torch.ones(()), upstream])

    found = {"step": 1e3 * seconds(step, 1.0), "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    if rival == "lexel":
        from lexel import nearest_code

        rows, codes = inputs.detach().movedim(1, -1).reshape(-1, shape[1]), layer.codebook().detach()
        found["search"] = 1e3 * seconds(lambda: nearest_code(rows, codes), 0.5)
    return found


def in_a_process(*arguments: object) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.layer", "--one", *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def spread(values: list[float], digits: int) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def table(shape: tuple[int, ...], num_embeddings: int, runs: int) -> list[str]:
    found: dict[str, list[dict[str, float]]] = {rival: [] for rival in RIVALS}
    for _ in range(runs):
        for rival, results in found.items():
            results.append(in_a_process(rival, *shape, num_embeddings))
    lines = ["| | step, ms | times lexel's | peak memory, MB |", "|---|---|---|---|"]
    for rival, results in found.items():
        ratios = [theirs["step"] / ours["step"] for theirs, ours in zip(results, found["lexel"], strict=True)]
        step, memory = spread([each["step"] for each in results], 1), max(each["memory"] for each in results)
        lines.append(f"| {rival} | {step} | {spread(ratios, 1)} | {memory:.0f} |")
    search = spread([each["search"] for each in found["lexel"]], 1)
    rest = spread([each["step"] - each["search"] for each in found["lexel"]], 1)
    return [*lines, "", f"Of Lexel's step, the search takes {search} ms and everything else {rest} ms."]


def machine() -> str:
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}, Python {platform.python_version()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="how often everything is measured")
    parser.add_argument("--one", nargs=6, metavar=("RIVAL", "B", "D", "H", "W", "K"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        rival, *numbers = arguments.one
        *shape, num_embeddings = map(int, numbers)
        print(json.dumps(measure(rival, tuple(shape), num_embeddings)))
        return
    from lexel import nearest

    backend = getattr(nearest, "backend", lambda: "portable")()
    text = [
        "# One training step of the layer",
        "",
        "Forward and backward in training mode; median (least–most) of the runs. Written by",
        f"`python -m benchmarks.layer --runs {arguments.runs}` on {machine()};",
        f"load {os.getloadavg()[0]:.1f} at the start; search: {backend}.",
    ]
    for (shape, num_embeddings), why in zip(SHAPES, WHY, strict=True):
        b, d, h, w = shape
        text += ["", f"## {b}×{h}×{w} inputs, K = {num_embeddings}, D = {d}", ""]
        text += [*table(shape, num_embeddings, arguments.runs), "", f"What stops it: {why}"]
        print("\n".join(text[-14:]), flush=True)
    shape, num_embeddings = HUGE
    huge = in_a_process("lexel", *shape, num_embeddings)
    text += [
        "",
        f"## One step at K = {num_embeddings:,}, D = {shape[1]}, N = {shape[0] * shape[2] * shape[3]:,}",
        "",
        f"{huge['step'] / 1e3:.2f} s, of which the search {huge['search'] / 1e3:.2f} s; the whole process peaks at "
        f"{huge['memory']:.0f} MB, codebook and its gradient (64 MB each) included.",
        "",
        "What stops it: the search's arithmetic; the memory is mostly that of torch itself.",
    ]
    print("\n".join(text[-6:]))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    main()
