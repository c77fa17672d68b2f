"""One training step of the layer on a GPU, beside its rivals and beside the traffic that it cannot do without.

    python -m benchmarks.gpu_layer [--device cuda] [--check]

prints a table for each shape of `benchmarks.layer`, a row as soon as it is measured; on a CPU the shapes are tiny, and
only show that it runs. What fails says so in its row. With `--check` it says first whether the device's numbers are
those of the CPU and the same in each run, what a sum by code takes, and where a training step waits for the device.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
import traceback
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

import lexel
from benchmarks.layer import RIVALS, SHAPES
from lexel._core import by_code

TINY = [((2, 8, 4, 4), 32), ((2, 4, 4, 4), 64)]
REPEATS = 30
COMPILED = ", torch.compile"  # with CUDA graphs: mode="reduce-overhead"


def milliseconds(call: Callable[[], object], device: torch.device, repeats: int = REPEATS) -> float:
    """Median of the calls, after some to warm up; the GPU's own clock where there is one."""
    for _ in range(min(5, repeats + 1)):
        call()
    if device.type != "cuda":
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            call()
            times.append(1e3 * (time.perf_counter() - start))
        return statistics.median(times)
    events = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
    torch.cuda.synchronize()
    for start, end in events:
        start.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return statistics.median(start.elapsed_time(end) for start, end in events)


def bandwidth(device: torch.device) -> float:
    """Bytes that a copy reads and writes in a millisecond."""
    source = torch.zeros(1 << (28 if device.type == "cuda" else 22), device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    return 2 * source.numel() / milliseconds(lambda: target.copy_(source), device)


def traffic(rows: int, dim: int, num_embeddings: int, learning: str) -> int:
    """Bytes of a step that need to cross the memory's bus: each tensor once where it is made and where it is used.

    Inputs, their codes and indices; in the backward pass what the task's gradient, inputs and codes make of the inputs'
    gradient. The table is read once; its gradient is written, or its averages and itself are read and written.
    """
    return 4 * (rows * (5 * dim + 2) + num_embeddings * dim * (5 if learning == "EMA" else 2))


def layer(rival: str, num_embeddings: int, dim: int, device: torch.device) -> nn.Module:
    """Make a rival whose codes lie where its inputs do."""
    torch.manual_seed(0)
    made = RIVALS[rival.removesuffix(COMPILED)](num_embeddings, dim).to(device).train()
    with torch.no_grad():
        for tensor in (*made.parameters(), *made.buffers()):
            if tensor.ndim >= 2:
                tensor.copy_(torch.randn(tensor.shape))
    if rival.endswith(COMPILED):
        return torch.compile(made, mode="reduce-overhead", dynamic=False)
    return made


def step_of(made: nn.Module, inputs: Tensor, upstream: Tensor) -> Callable[[], None]:
    """Return a function that makes one forward and backward pass."""
    one = torch.ones((), device=inputs.device)

    def step() -> None:
        made.zero_grad(set_to_none=True)
        inputs.grad = None
        torch.compiler.cudagraph_mark_step_begin()
        output = made(inputs)
        if isinstance(output, lexel.Quantized):
            loss, quantized = output.loss, output.quantized
        elif len(output) == 3:  # vector-quantize-pytorch
            quantized, _, loss = output
            loss = loss.sum()
        else:
            loss, quantized = output[:2]
        torch.autograd.backward([loss, quantized], [one, upstream])

    return step


def graphed(step: Callable[[], object]) -> Callable[[], None]:
    """Record a call as a CUDA graph, which has no cost of launching single kernels."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            step()
    except Exception:
        torch.cuda.synchronize()
        # A recording that failed leaves the generator as if it went on.
        generator = torch.cuda.default_generators[torch.cuda.current_device()]
        generator.graphsafe_set_state(generator.clone_state())
        raise
    return graph.replay


def short(error: BaseException) -> str:
    """One line of an error, and the line of Lexel that it came from."""
    places = [frame for frame in traceback.extract_tb(error.__traceback__) if "lexel" in frame.filename]
    where = (
        f" in {places[-1].filename.rpartition('lexel/')[2]}:{places[-1].lineno}: {places[-1].line}" if places else ""
    )
    first = (str(error).strip().splitlines() or [""])[0][:120]
    return f"{type(error).__name__}: {first}{where}".replace("|", "/")


def table(
    shape: tuple[int, ...],
    num_embeddings: int,
    device: torch.device,
    speed: float,
    repeats: int = REPEATS,
    until: float = math.inf,
) -> Iterator[str]:
    """Yield the lines of one shape's table, each when it is measured; `speed` is the `bandwidth`.

    Nothing is compiled after `until`.
    """
    generator = torch.Generator().manual_seed(1)
    inputs, upstream = (torch.randn(shape, generator=generator).to(device) for _ in range(2))
    inputs.requires_grad_()
    count, dim = inputs.numel() // shape[1], shape[1]
    yield "| | step, ms | as a CUDA graph, ms | times lexel's | extra memory, MB |"
    yield "|---|---|---|---|---|"
    own = 0.0
    for rival in (*RIVALS, *(name + COMPILED for name in ("lexel", "lexel, EMA"))):
        if rival.endswith(COMPILED) and time.perf_counter() > until:
            yield f"| {rival} | not measured: the time was up | | | |"
            continue
        try:
            step = step_of(layer(rival, num_embeddings, dim, device), inputs, upstream)
            taken, extra = milliseconds(step, device, repeats), extra_memory(step, device)
        except Exception as error:  # whatever it is, the other rivals are of interest too
            yield f"| {rival} | not measured: {short(error)} | | | |"
            continue
        recorded = "–"
        if device.type == "cuda" and not rival.endswith(COMPILED):
            try:
                recorded = f"{milliseconds(graphed(step), device, repeats):.3f}"
            except Exception as error:  # whatever cannot be recorded, for whatever reason
                recorded = f"none ({short(error)})"
        own = own or taken
        yield f"| {rival} | {taken:.3f} | {recorded} | {taken / own:.1f} | {extra:.0f} |"
    vq = layer("lexel", num_embeddings, dim, device)
    rows, codes = inputs.detach().movedim(1, -1).reshape(-1, dim), vq.codebook().detach()
    search = milliseconds(lambda: lexel.nearest_code(rows, codes), device, repeats)
    floors = [traffic(count, dim, num_embeddings, rule) / speed for rule in ("Gradient", "EMA")]
    yield ""
    yield (
        f"The search alone takes {search:.3f} ms. What a step cannot but read and write takes {floors[0]:.4f} ms at "
        f"{speed / 1e9:.2f} TB/s, which a copy of 256 MB reaches; with EMA {floors[1]:.4f} ms."
    )


def extra_memory(call: Callable[[], object], device: torch.device) -> float:
    """Megabytes that a call holds at its peak beside what was there before."""
    if device.type != "cuda":
        return float("nan")
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = call()
    torch.cuda.synchronize()
    del result
    return (torch.cuda.max_memory_allocated() - before) / 1e6


def rows(device: torch.device, until: float = math.inf) -> Iterator[str]:
    """Yield the lines of the layer's part of the benchmark: a heading and a table for each shape."""
    speed = bandwidth(device)
    for shape, num_embeddings in SHAPES if device.type == "cuda" else TINY:
        b, d, h, w = shape
        yield from ("", f"### {b}×{h}×{w} inputs, K = {num_embeddings}, D = {d}", "")
        try:
            yield from table(shape, num_embeddings, device, speed, until=until)
        except Exception as error:  # the other shapes are of interest too
            yield f"Not measured: {short(error)}"


class Training:
    """An encoder, a quantizer and a decoder that learn noise on a device; what is drawn is drawn on the CPU."""

    def __init__(self, make: Callable[[], nn.Module], device: torch.device) -> None:
        torch.manual_seed(0)
        self.layers = nn.ModuleList([nn.Conv2d(3, 16, 1), make(), nn.Conv2d(16, 3, 1)]).to(device)
        self.batches = torch.randn(4, 8, 3, 8, 8).to(device)
        self.optimizer = torch.optim.SGD(self.layers.parameters(), lr=0.1)

    def step(self, number: int = 0) -> None:
        encoder, vq, decoder = self.layers
        self.optimizer.zero_grad()
        batch = self.batches[number % 4]
        output = vq(encoder(batch))
        ((decoder(output.quantized) - batch).square().mean() + output.loss).backward()
        self.optimizer.step()

    def ends(self, steps: int = 8) -> list[Tensor]:
        for number in range(steps):
            self.step(number)
        return [value.double().cpu() for value in self.layers.state_dict().values()]


TRAININGS: dict[str, Callable[[], nn.Module]] = {
    "Gradient": lambda: lexel.VectorQuantizer(64, 16),
    "EMA": lambda: lexel.VectorQuantizer(64, 16, learning=lexel.EMA()),
    "default preset": lambda: lexel.presets.default(64, 16),
}


def check(device: torch.device) -> Iterator[str]:
    """Yield a line for each thing that is or is not as it should be."""
    yield f"Triton: {by_code.why_no_triton(device) or 'its kernels run'}; search: {lexel.nearest.backend(device)}"
    yield from check_sums(device)
    for name, make in TRAININGS.items():
        there, again, here = (Training(make, where).ends() for where in (device, device, torch.device("cpu")))
        equal = all(torch.equal(a, b) for a, b in zip(there, again, strict=True))
        far = max(float((a - b).abs().max() / b.abs().max().clamp_min(1e-9)) for a, b in zip(there, here, strict=True))
        yield f"{name}: two runs end {'equal' if equal else 'DIFFERENT'}, {far:.1e} from where the CPU ends"
        if device.type != "cuda":
            continue
        training = Training(make, device)
        training.ends(3)
        for what, trial in (("a step without a wait", no_wait), ("a step as a CUDA graph", graphed)):
            try:
                trial(training.step)
                yield f"{name}: {what}: yes"
            except Exception as error:  # whatever it is, the next trial is of interest too
                yield f"{name}: {what}: NO: {short(error)}"
                torch.cuda.synchronize()


def no_wait(step: Callable[[], None]) -> None:
    """Raise if a step waits for the device."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def check_sums(device: torch.device) -> Iterator[str]:
    """Compare sums by code with those of the CPU in float64, spread over the codes and all on one."""
    sizes = [(1 << 14, 64, 8192), (1 << 14, 64, 512), (1 << 14, 8, 16384), (1 << 20, 64, 65536), (999, 1000, 7)]
    for count, dim, num_embeddings in sizes if device.type == "cuda" else [(100, 6, 7)]:
        for kind in ("spread", "on one code"):
            torch.manual_seed(0)
            indices = torch.randint(num_embeddings, (count,)) * (kind == "spread")
            numbers = torch.randn(count, dim)
            wide = torch.zeros(num_embeddings, dim, dtype=torch.float64).index_add_(0, indices, numbers.double())
            own, there = indices.to(device), numbers.to(device)

            def sums(own: Tensor = own, there: Tensor = there, k: int = num_embeddings) -> Tensor:
                return by_code.sum_by_code(own, k, there)[0]

            def counts(own: Tensor = own, k: int = num_embeddings) -> Tensor:
                return by_code.count_by_code(own, k)

            true = indices.bincount(minlength=num_embeddings).float()
            equal = torch.equal(sums(), sums()) and torch.equal(counts().cpu(), true)
            far = float((sums().cpu().double() - wide).abs().max() / wide.abs().max())

            def atomic(own: Tensor = own, there: Tensor = there, k: int = num_embeddings) -> Tensor:
                return there.new_zeros(k, there.shape[1]).index_add_(0, own, there)

            yield (
                f"sums, N = {count}, D = {dim}, K = {num_embeddings}, {kind}: {far:.1e} off, "
                f"{'repeatable' if equal else 'WRONG COUNTS OR NOT REPEATABLE'}; {milliseconds(sums, device):.3f} ms, "
                f"counts {milliseconds(counts, device):.3f} ms; index_add_ {milliseconds(atomic, device):.3f} ms"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--check", action="store_true", help="check the numbers first")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if arguments.check:
        for line in check(device):
            print(line, flush=True)
    for line in rows(device):
        print(line, flush=True)


if __name__ == "__main__":
    main()
