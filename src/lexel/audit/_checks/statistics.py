"""How many codes are in use, and whether all ranks have the same ones."""

from __future__ import annotations

import torch

from lexel._core.collectives import all_min, world_size
from lexel.audit._checks._outcome import Outcome, not_applicable, verdict
from lexel.audit._subject import Subject
from lexel.metrics import Usage

__all__ = ["ranks_agree", "usage"]


def usage(subject: Subject) -> Outcome:
    """The perplexity over the inputs is at least a tenth of what is possible."""
    model = subject.copy(training=False)
    with torch.no_grad():
        output = subject.run(model, subject.inputs)
    if subject.has_codes:
        K, chosen = len(subject.codes(model)), subject.chosen(output)
    elif output.indices is not None and output.num_embeddings is not None:
        K, chosen = output.num_embeddings, output.indices
    else:
        return not_applicable("neither indices and their number nor a codebook were found")
    counted = Usage(K)
    counted.update(chosen)
    found = counted.compute()
    possible = min(K, found.total)
    return verdict(
        possible > 1 and found.perplexity < 0.1 * possible,
        f"{found.used:,} of {K:,} codes in {found.total:,} choices, perplexity {found.perplexity:,.1f}",
    )


def ranks_agree(subject: Subject) -> Outcome:
    """All ranks have the same codes, now and after a training step."""
    if world_size() == 1:
        return not_applicable("one process")
    model = subject.copy(training=True)
    spreads = []
    for step in range(2):
        if step:
            subject.run(model, subject.inputs)
        codes = subject.codes(model)
        spreads.append(float((-all_min(-codes) - all_min(codes)).max()))
    evidence = f"largest difference of a number of the codes {spreads[0]:.2g}, after a step {spreads[1]:.2g}"
    return verdict(max(spreads) > 0, evidence)
