"""The search on CUDA: kernels in Triton, exact as all others. docs/nearest-code-search.md, "On a GPU"."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lexel._core.by_code import why_no_triton
from lexel._core.positions import collapse
from lexel._core.values import HostValue, is_recorded
from lexel.nearest import _portable
from lexel.nearest._interface import Backend

# As the kernels number them.
_METRICS = {"euclidean": 0, "cosine": 1, "dot": 2}
_MODES = {"single": 0, "split": 1, "joint": 2, "float": 3}
LANES = 8
LOOK = 128  # codes that are looked at together, at most
FEW = 256  # inputs that are compared with all codes at once rather than scanned again
MOST = 1024  # inputs that several programs may share
CHUNKS = 128  # programs for each of those, at most
SMALL = 1024  # codes that are compared with every input whose list overflowed, rather than scanned again
# What is held at a time, so that 64 MB suffice:
ROWS = 1 << 18  # inputs, for their lists
LISTS = 1 << 22  # places in the lists of several nearest codes
PACKED_INPUTS = 3 << 22  # numbers of packed inputs
PACKED_CODES = 1 << 25  # bytes of packed codes


@dataclass(frozen=True)
class Plan:
    """The tiles for a number of dimensions."""

    mode: str
    depth: int  # P: numbers in a packed code
    step: int  # of which so many are multiplied at once
    inputs: int
    codes: int
    warps: int
    stages: int
    unit: int
    registers: int | None = None  # at most, for each thread
    packed: bool = False  # whether inputs are packed once and for all, as they are where a program holds no whole ones

    @property
    def bytes(self) -> int:
        """Bytes of a packed code; that of a single scan has a low half, too."""
        return self.depth * (2 if self.mode == "joint" else 4)


def plan(dimensions: int, codes: int, exact_products: bool) -> Plan:
    """Choose the tiles by the number of dimensions and codes; measured on one kind of GPU, an H100."""
    if not exact_products:
        depth = max(16, _power(dimensions))
        depth, step = (depth, depth) if depth <= 64 else (-(-dimensions // 32) * 32, 32)
        return Plan("float", depth, step, inputs=64, codes=64, warps=4, stages=2, unit=1)
    if 3 * dimensions + 3 <= 64:
        depth = max(16, _power(3 * dimensions + 3))
        inputs, stages, registers = (64, 3, 128) if depth <= 32 else (128, 2, None)
        return Plan("joint", depth, depth, inputs, codes=128, warps=4, stages=stages, unit=4, registers=registers)
    depth = max(32, _power(dimensions))
    if depth > 128:
        unit = 2 if codes > 4096 else 1
        depth = -(-dimensions // 64) * 64
        return Plan("single", depth, 64, 128, 128, warps=8, stages=3, unit=unit, registers=128, packed=True)
    if codes > 2048:
        return Plan("single", depth, depth, 128, 128, warps=4, stages=2, unit=4)
    return Plan("single", depth, depth, 64, 128, warps=4, stages=2, unit=2, registers=128)


def _power(number: int) -> int:
    return 1 << (number - 1).bit_length()


def _search(x: Tensor, codebook: Tensor, metric: str, k: int, scores: bool, variant: str) -> tuple[Tensor, Tensor]:
    with torch.cuda.device(x.get_device()):  # -1, which changes nothing, for the CPU
        _raise_what_was_found(x.device)
        indices = torch.empty((*x.shape[:-1], k), dtype=torch.int64, device=x.device)
        tiles = plan(x.shape[-1], len(codebook), variant == "triton" and products_are_sound(x.device))
        most = min(ROWS if k == 1 else LISTS // capacity(k), max(4096, PACKED_INPUTS // x.shape[-1]))
        batches = collapse(x)
        for part, found in zip(_parts(batches, most), _parts(indices.view(*batches.shape[:-1], k), most), strict=True):
            _nearest(part, codebook, metric, found.view(-1, k), tiles)
        _send_news(x.device)
        if not scores:
            return indices, x.new_empty((0, k), dtype=torch.float32)
        rows = x.flatten(0, -2)
        values = _portable.sliced_scores(rows, codebook, indices.view(len(rows), k), metric).view(indices.shape)
        return indices, (-values if metric == "euclidean" else values).to(torch.float32)


def _parts(x: Tensor, most: int) -> Iterator[Tensor]:
    """Yield views of `(N, D)` or `(B, S, D)` that hold at most so many rows: of whole batches, or of a part of one."""
    if not x.numel():
        return
    if x.ndim == 2:
        yield from torch.split(x, most)
    elif x.shape[1] <= most:
        yield from torch.split(x, most // x.shape[1])
    else:
        for batch in x:
            yield from torch.split(batch, most)


def _nearest(x: Tensor, codebook: Tensor, metric: str, indices: Tensor, p: Plan) -> None:
    """Search one part of the codebook after the other, since the packed codes of all might not fit."""
    k = indices.shape[1]
    most = max(p.codes, PACKED_CODES // p.bytes // p.codes * p.codes)
    run = _run if k == 1 else _run_many
    if len(codebook) <= most:
        run(x, codebook, metric, indices, p)
        return
    found = indices[:, :0]
    for start in range(0, len(codebook), most):
        part = codebook[start : start + most]
        nearest = indices.new_empty((len(indices), min(k, len(part))))
        run(x, part, metric, nearest, p)
        found = torch.cat([found, nearest + start], 1)
        found = _portable.decide(x.flatten(0, -2), codebook, found, metric, min(k, found.shape[1]))
    indices.copy_(found)


class _Packed(NamedTuple):
    """Inputs and codes as the kernels that scan them take them."""

    inputs: tuple[Any, ...]
    codes: tuple[Any, ...]
    scanned: tuple[Tensor, ...]  # what these kernels take between the inputs and their own lists
    arrivals: Tensor
    sizes: tuple[Any, ...]  # likewise behind the lists


def _pack(x: Tensor, codebook: Tensor, metric: str, p: Plan, units: int) -> _Packed:
    """Pack the codes, and the inputs where a program does not hold them whole; units: those in each lane of a tile."""
    from lexel._core._triton import batch_strides
    from lexel.nearest import _triton_kernels as kernels

    rows, dimensions, count, device = x.shape[:-1].numel(), x.shape[-1], len(codebook), x.device
    padded = -(-count // p.codes) * p.codes
    numbers = torch.float32 if p.mode == "float" else torch.float16
    new = torch.zeros if p.mode == "joint" else torch.empty
    high = new((padded, p.depth), dtype=numbers, device=device)
    low = torch.empty((padded, p.depth) if p.mode == "single" else (1, 1), dtype=numbers, device=device)
    bias = torch.empty(padded, device=device)
    centres, terms = torch.empty(dimensions, device=device), torch.empty(8, device=device)
    counters, flags = torch.empty(16, dtype=torch.int32, device=device), _flags_of(device).found
    arrivals = torch.empty(MOST, dtype=torch.int32, device=device)
    tops = torch.empty(-(-dimensions // 64), device=device)
    metric_, mode = _METRICS[metric], _MODES[p.mode]
    inputs, codes = (x, *batch_strides(x)), (codebook, *codebook.stride())
    kernels.centre[(len(tops),)](
        *codes, centres, tops, terms, counters, arrivals, count, dimensions, units,
        METRIC=metric_, SAMPLE=64, MOST=MOST,
    )  # fmt: skip
    # In the interpreter each program costs the same, whatever it packs.
    block = (16 if dimensions <= 128 else 4) if device.type == "cuda" else p.codes
    kernels.pack[(padded // block,)](
        *codes, centres, tops, terms, flags, high, low, bias, count, dimensions, p.depth,
        METRIC=metric_, MODE=mode, CODES=block, TOPS=_power(len(tops)),
    )  # fmt: skip
    packed, errors = counters, terms
    if p.packed:
        packed = torch.empty((rows, p.depth), dtype=torch.float16, device=device)
        errors = torch.empty(rows, device=device)
        kernels.pack_inputs[(-(-rows // 16),)](
            *inputs, centres, terms, counters, packed, errors, rows, dimensions, p.depth,
            *_rounding(p, "single", dimensions), METRIC=metric_, INPUTS=16, STEP=min(256, _power(p.depth)),
        )  # fmt: skip
    scanned = centres, terms, counters, flags, packed, errors, high, low, bias
    return _Packed(inputs, codes, scanned, arrivals, (rows, padded, dimensions))


def _run(x: Tensor, codebook: Tensor, metric: str, indices: Tensor, p: Plan) -> None:
    """Write the nearest code of every input; `_triton_kernels.py` says what each kernel does."""
    from lexel.nearest import _triton_kernels as kernels

    (rows, _), dimensions, count, device = indices.shape, x.shape[-1], len(codebook), x.device
    packed = _pack(x, codebook, metric, p, units=min(p.codes, LOOK) // LANES // p.unit)
    pending, sizes, crowded, hard = torch.empty((4, rows), dtype=torch.int32, device=device)
    candidates = torch.empty((rows, 2 * LANES), dtype=torch.int32, device=device)
    chunk = max(64, -(-count // CHUNKS))
    chunks = -(-count // chunk)
    values = torch.empty(MOST * chunks, dtype=torch.float64, device=device)
    places = torch.empty(MOST * chunks, dtype=torch.int32, device=device)
    programs, pairs = _programs(device)

    def scan(mode: str, block: int, width: int, overflow: Tensor, **options: Any) -> None:
        kernels.scan[(-(-rows // block),)](
            *packed.inputs, *packed.scanned, crowded, indices, pending, sizes, candidates, overflow,
            rows, packed.sizes[1] // width, dimensions, *_rounding(p, mode, dimensions), FEW,
            P=p.depth, METRIC=_METRICS[metric], MODE=_MODES[mode], UNIT=p.unit, INPUTS=block, CODES=width, LANES=LANES,
            LEVELS=(min(width, LOOK) // LANES // p.unit).bit_length() - 1, PACKED=p.packed and mode == p.mode,
            STEP=p.step if mode == p.mode or p.step <= 128 else 64, **options,
        )  # fmt: skip

    again = p.mode == "single" and count > SMALL
    limits = {"maxnreg": p.registers} if p.registers else {}
    overflow = crowded if p.mode == "single" else hard
    scan(p.mode, p.inputs, p.codes, overflow, LISTED=False, num_warps=p.warps, num_stages=p.stages, **limits)
    if again:
        width, stages = max(64, 2 * LANES * p.unit), 2 if p.depth <= 128 else 1
        scan("split", 64, width, hard, LISTED=True, num_warps=4, num_stages=stages)
    kernels.decide[(programs,)](
        *packed.inputs, *packed.codes, packed.scanned[2], pending, sizes, candidates, crowded, hard, indices,
        values, places, packed.arrivals, count, dimensions, FEW if again else 1 << 30, MOST, chunk, chunks,
        METRIC=_METRICS[metric], PAIRS=pairs, DEPTH=min(128, max(16, _power(dimensions))), UNIT=p.unit, LANES=LANES,
        CHUNKS=CHUNKS,
    )  # fmt: skip


def capacity(k: int) -> int:
    """Return how many codes the list of an input holds for the `k` nearest."""
    return max(64, 4 * _power(k))


def _run_many(x: Tensor, codebook: Tensor, metric: str, indices: Tensor, p: Plan) -> None:
    """Write the k nearest codes of every input, the best first."""
    from lexel.nearest import _triton_kernels as kernels

    (rows, k), dimensions = indices.shape, x.shape[-1]
    p = replace(p, inputs=64, codes=128, warps=4, packed=p.mode == "single")
    packed = _pack(x, codebook, metric, p, units=0)
    best = _power(k)
    # Four groups for each of the k, so that few codes hide behind others of their group.
    groups = min(p.codes, max(32, 4 * best))
    sizes = torch.zeros(rows, dtype=torch.int32, device=x.device)
    candidates = torch.empty((rows, capacity(k)), dtype=torch.int32, device=x.device)
    kernels.list_best[(-(-rows // p.inputs),)](
        *packed.inputs, *packed.scanned, sizes, candidates,
        rows, packed.sizes[1] // p.codes, dimensions, *_rounding(p, p.mode, dimensions), k,
        P=p.depth, METRIC=_METRICS[metric], MODE=_MODES[p.mode], INPUTS=p.inputs, CODES=p.codes, STEP=p.step,
        PACKED=p.packed, GROUPS=groups, CAPACITY=capacity(k), num_warps=p.warps, num_stages=p.stages,
    )  # fmt: skip
    pairs = max(16, best)
    kernels.sort_best[(rows,)](
        *packed.inputs, *packed.codes, sizes, candidates, indices, len(codebook), dimensions, k,
        METRIC=_METRICS[metric], PAIRS=pairs, DEPTH=min(2048 // pairs, max(16, _power(dimensions))),
        CAPACITY=capacity(k), BEST=best,
    )  # fmt: skip


def _rounding(p: Plan, mode: str, dimensions: int) -> tuple[float, float]:
    """Return the bounds on the rounding of a score and of a true distance, relative to the sizes of their terms."""
    return _gamma(p.depth, mode), 2 * (dimensions + 8) * 2.0**-53


def _gamma(depth: int, mode: str) -> float:
    """Return the bound on the rounding of a sum of products, relative to the sum of their sizes."""
    if mode == "float":
        terms, unit = 2 * depth + 2, 2.0**-24
    else:  # products of float16 numbers are exact; every addition of a tensor core may round down, and 16 are one
        terms, unit = (3 if mode == "split" else 1) * (depth + depth // 16) + 2, 2.0**-23
    return terms * unit / (1 - terms * unit)


def products_are_sound(device: torch.device) -> bool:
    """Whether this device adds products as the bound assumes: no sum is off by more than `_gamma` of its terms' sizes.

    It is tried once for each device, with sums in which an adder that drops low bits loses the most.
    """
    if device not in _sound:
        if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            return False  # an answer would have to be waited for
        _sound[device] = _try_products(device)
    return _sound[device]


_sound: dict[torch.device, bool] = {}


def _try_products(device: torch.device) -> bool:
    from lexel.nearest import _triton_kernels as kernels

    size = 32
    draw = partial(torch.randint, generator=torch.Generator().manual_seed(0), device="cpu")
    for depth in (16, 32, 128):
        signs = draw(0, 2, (2, size, depth)) * 2 - 1
        exponents, mantissas = draw(-12, 1, (2, size, depth)), 1 + draw(0, 1024, (2, size, depth)) / 1024
        a, b = (signs * mantissas * 2.0**exponents).half()
        a[:16], b[:16] = a[:16].abs(), b[:16].abs()  # all terms of one sign
        a[:8], b[:8] = 2.0**-12 * (1 + 2.0**-10), 1 + 2.0**-10  # one large term, and many that its last bit swallows
        a[:8, 0], b[:8, 0] = 1, 1
        out = torch.empty((size, size), device=device)
        kernels.products[(1,)](a.to(device), b.to(device), out, DEPTH_=depth, SIZE=size)
        true, sizes = a.double() @ b.double().T, a.double().abs() @ b.double().abs().T
        if not ((out.cpu().double() - true).abs() <= _gamma(depth, "single") * sizes).all():
            return False
    return True


@dataclass
class _Flags:
    """Whether a search found NaN or infinity on a device. The host looks when the news has arrived, and never waits."""

    found: Tensor  # int32: 1 for the codebook, 2 for x; it stays until the host has seen it
    news: HostValue | None = None


_flags: dict[torch.device, _Flags] = {}


def _flags_of(device: torch.device) -> _Flags:
    if device not in _flags:
        _flags[device] = _Flags(torch.zeros((), dtype=torch.int32, device=device))
    return _flags[device]


def _raise_what_was_found(device: torch.device) -> None:
    """Raise the error of an earlier search, if it has arrived."""
    flags = _flags_of(device)
    if is_recorded(flags.found) or flags.news is None or not flags.news.has_arrived():
        return
    if found := flags.news.wait():
        flags.found.zero_()
        flags.news = None
        earlier = "; an earlier search found it, since on a GPU this error comes late" if device.type == "cuda" else ""
        raise ValueError(f"{'codebook' if found & 1 else 'x'} contains NaN or infinity{earlier}")


def _send_news(device: torch.device) -> None:
    flags = _flags_of(device)
    if not is_recorded(flags.found) and (flags.news is None or flags.news.has_arrived()):
        flags.news = HostValue(flags.found)
    if device.type != "cuda":
        _raise_what_was_found(device)


@cache
def _programs(device: torch.device) -> tuple[int, int]:
    """Return how many programs decide, and how many pairs of an input and a code each compares at once."""
    if device.type == "cuda":
        return 8 * torch.cuda.get_device_properties(device).multi_processor_count, 16
    return 2, 512  # the interpreter: few and large


@cache
def _missing() -> str:
    if not torch.cuda.is_available():
        return "no NVIDIA GPU"
    lowest = min(torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count()))
    if lowest < (8, 0):
        return f"a GPU of capability {lowest[0]}.{lowest[1]}, below 8.0"
    if reason := why_no_triton(torch.device("cuda")):  # without a C compiler, say
        return reason
    import triton

    recent = tuple(int(part) for part in triton.__version__.split(".")[:2]) >= (3, 2)
    return "" if recent else f"triton {triton.__version__} is older than 3.2"


BACKEND = Backend(
    name="cuda",
    search=_search,
    variants=("triton_float32", "triton") if torch.version.cuda and importlib.util.find_spec("triton") else (),
    missing=_missing,
    dtypes=(torch.float32, torch.float16, torch.bfloat16),
    most_rows=2**31 - 1,
    most_neighbours=64,
    in_place=True,
)
