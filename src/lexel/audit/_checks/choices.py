"""Whether the chosen codes are the nearest ones."""

from __future__ import annotations

import torch
from torch import Tensor

from lexel.audit._checks._outcome import Outcome, not_applicable, ok, wrong
from lexel.audit._compare import METRICS, is_wrong_choice, rows_are_codes, squared_distances
from lexel.audit._subject import Subject, unquantized

__all__ = ["nearest", "nearest_shifted", "nearest_under_autocast"]

COMPARED = 1 << 22  # about how many pairs of inputs and codes are compared in float64
SHIFT = 1000  # in standard deviations of the inputs


def nearest(subject: Subject) -> Outcome:
    """Each choice is the best of all codes, by distance, product or cosine."""
    return _choices(subject, finds_metric=True)


def nearest_under_autocast(subject: Subject) -> Outcome:
    """The same within bfloat16 autocast."""
    return _choices(subject, autocast=True)


def nearest_shifted(subject: Subject) -> Outcome:
    """The same with inputs and codes far from the origin, where distances by expansion lose their digits."""
    lengths = subject.codes(subject.copy(training=False)).norm(dim=1)
    if float(lengths.std() / lengths.mean()) < 1e-3:
        return not_applicable("the codes lie on a sphere")
    if subject.metric != METRICS[0]:
        return not_applicable(f"codes are chosen by {subject.metric}, to which a shift matters")
    return _choices(subject, shift=SHIFT * float(subject.inputs.std(correction=0)))


@torch.no_grad()
def _choices(subject: Subject, *, shift: float = 0.0, autocast: bool = False, finds_metric: bool = False) -> Outcome:
    model, inputs = subject.copy(training=False), subject.inputs + shift
    offset: Tensor | float = 0.0  # what the shift of the inputs is where the codes are
    if shift:
        nothing = torch.zeros_like(inputs[:1])
        offset = subject.rows(unquantized(model, nothing + shift) - unquantized(model, nothing))[0]
    subject.codes(model).add_(offset)
    codes = subject.codes(model).double()
    try:
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=autocast):
            output = subject.run(model, inputs)
    except RuntimeError as error:
        return wrong(f"fails: {str(error).splitlines()[0]}")
    if shift and not rows_are_codes(subject.rows(output.quantized), codes, inputs):
        return not_applicable("codes that are shifted are not what comes out")
    rows, chosen = subject.rows(unquantized(model, inputs)), subject.chosen(output)
    some = torch.randperm(len(rows), device=rows.device)[: min(2048, max(64, COMPARED // len(codes)))]
    rows, chosen = rows[some].double(), chosen[some]
    if finds_metric:
        fitting = (metric for metric in METRICS if not is_wrong_choice(rows, codes, chosen, metric).any())
        subject.metric = next(fitting, METRICS[0])
    wrongly = is_wrong_choice(rows, codes, chosen, subject.metric, offset)
    if not wrongly.any():
        return ok(f"{len(some)} of {len(some)} as float64 says, by {subject.metric}")
    squares = squared_distances(rows, codes)
    excess = float(squares.gather(1, chosen[:, None]).mean() / squares.amin(1).mean().clamp_min(1e-300)) - 1
    share = float(wrongly.double().mean())
    return wrong(f"{share:.1%} of {len(some)} get another code, at {excess:.2g} more squared distance")
