"""How Lexel and other packages of the field behave where training goes wrong: `python -m benchmarks.field`.

Prints a Markdown table. Each cell is measured by running the package; the classic module is written from its formulas.
"""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn
from vector_quantize_pytorch import VectorQuantize

import lexel
from tests.quantizers import reference

K, D, N = 512, 64, 4096
Search = Callable[[Tensor, Tensor], Tensor]


def seed_search(x: Tensor, codes: Tensor) -> Tensor:
    """The classic module's choice for rows x."""
    inputs = x.T[None, :, :, None]
    return reference.classic(inputs, codes, 0.25)[3].argmax(1)


def lexel_search(x: Tensor, codes: Tensor) -> Tensor:
    vq = lexel.VectorQuantizer(len(codes), codes.shape[1], channel_dim=-1).eval()
    vq.codebook.weight.data.copy_(codes)
    return vq(x).indices


def other_search(x: Tensor, codes: Tensor) -> Tensor:
    vq = VectorQuantize(dim=codes.shape[1], codebook_size=len(codes)).eval()
    vq._codebook.embed.copy_(codes[None])
    return vq(x[None])[1][0]


def wrong_codes(search: Search, shift: float, autocast: bool = False) -> str:
    """Share of inputs that do not get their nearest code, as float64 knows it."""
    torch.manual_seed(0)
    x, codes = torch.randn(N, D) + shift, torch.randn(K, D) + shift
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        chosen = search(x, codes)
    truth = torch.cdist(x.double(), codes.double(), compute_mode="donot_use_mm_for_euclid_dist").argmin(1)
    return f"{(chosen != truth).float().mean():.2%}"


def codes_after_poison(vq: nn.Module, codes: Callable[[], Tensor]) -> str:
    """Say how much of the codebook is left after one NaN in one input of a training batch."""
    torch.manual_seed(0)
    x = torch.randn(4, 256, D)
    vq.train()(x)
    x[1, 2, 3] = torch.nan
    try:
        vq(x)
    except ValueError:
        return "refused, codes unchanged" if codes().isfinite().all() else "refused, codes lost"
    return f"{codes().isfinite().all(1).float().mean():.0%} of the codes left"


def peak_memory(program: str) -> str:
    """Peak memory of a program in a process of its own, limited to 8 GB."""
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30)); {program}; "
    limited += "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)"
    ran = subprocess.run([sys.executable, "-c", limited], capture_output=True, text=True, check=False)
    return f"{ran.stdout.strip()} MB" if ran.returncode == 0 else "fails with 8 GB"


def table() -> str:
    """The comparison as Markdown."""
    ours = lexel.VectorQuantizer(K, D, channel_dim=-1, learning=lexel.EMA())
    theirs = VectorQuantize(dim=D, codebook_size=K)
    searches: list[Search] = [seed_search, other_search, lexel_search]
    arguments = [len(inspect.signature(cls.__init__).parameters) - 1 for cls in (VectorQuantize, lexel.VectorQuantizer)]
    rows = [
        *(
            [f"wrong codes, everything shifted by {shift:,}", *(wrong_codes(search, shift) for search in searches)]
            for shift in (0, 100, 10_000)
        ),
        ["wrong codes under bfloat16 autocast", *(wrong_codes(search, 0, autocast=True) for search in searches)],
        [
            "one NaN in one input of a training batch",
            "–",
            codes_after_poison(theirs, lambda: theirs._codebook.embed[0]),
            codes_after_poison(ours, lambda: ours.codebook.weight),
        ],
        [
            "memory to construct FSQ with levels [4] × 16",
            "–",
            peak_memory("import vector_quantize_pytorch as v; v.FSQ(levels=[4] * 16)"),
            peak_memory("import lexel; lexel.FiniteScalarQuantizer([4] * 16)"),
        ],
        ["constructor arguments of the vector quantizer", "3", *map(str, arguments)],
    ]
    head = f"| N = {N:,}, K = {K}, D = {D} | the classic module | vector-quantize-pytorch | Lexel |"
    return "\n".join([head, "|---|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)])


if __name__ == "__main__":
    print(table())
