"""What `lexel.audit` says of the classic module, another package and Lexel: `python -m benchmarks.audit`.

Writes its table into `docs/audit.md` and `docs/audit.zh-CN.md`. Each module makes ten forward passes in training first.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from vector_quantize_pytorch import VectorQuantize

import lexel
from benchmarks.layer import Seed

PAGES = [Path(__file__).parent.parent / "docs" / name for name in ("audit.md", "audit.zh-CN.md")]
BEGIN, END = "<!-- audits -->\n", "<!-- end of audits -->\n"
K, D = 512, 64


def modules() -> dict[str, nn.Module]:
    """The modules, each where its codes have seen the data if it lets them."""
    torch.manual_seed(0)
    return {
        "the classic module": Seed(K, D),
        "vector-quantize-pytorch": VectorQuantize(D, K, accept_image_fmap=True, threshold_ema_dead_code=2),
        "Lexel": lexel.VectorQuantizer(K, D, learning=lexel.EMA(), upkeep=(lexel.KMeansStart(), lexel.Revival())),
    }


def table() -> str:
    """All findings as Markdown; the evidence only of faults."""
    inputs = torch.randn(16, D, 16, 16, generator=torch.Generator().manual_seed(0))
    audits = {}
    for name, module in modules().items():
        for _ in range(10):
            module.train()(inputs)
        audits[name] = lexel.audit(module, inputs)
        print(f"{name}\n{audits[name]}\n", flush=True)
    lines = [f"| | {' | '.join(audits)} |", "|---|" + "---|" * len(audits)]
    for findings in zip(*audits.values(), strict=True):
        cells = [f"**wrong**: {one.evidence}" if one.verdict == "wrong" else one.verdict for one in findings]
        lines.append(f"| {findings[0].check} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    text = f"{table()}\n"
    for page in PAGES:
        before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
        page.write_text(before + BEGIN + text + END + rest.partition(END)[2], encoding="utf-8")
