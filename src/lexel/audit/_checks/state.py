"""Whether parameters and buffers change when they should, and only then."""

from __future__ import annotations

import torch
from torch import Tensor

from lexel._core.collectives import all_min, gather_rows
from lexel.audit._checks._outcome import Outcome, not_applicable, ok, verdict, wrong
from lexel.audit._compare import SAMPLE, changed_names, copied_state, squared_distances, state_of
from lexel.audit._subject import Subject, unquantized

__all__ = ["eval_changes_nothing", "nan_does_not_spread", "revived_codes_stay"]

PATIENCE = 400  # steps that a dead code is given to be revived


@torch.no_grad()
def revived_codes_stay(subject: Subject) -> Outcome:
    """A dead code that training puts among the inputs is still there a step later."""
    model = subject.copy(training=True)
    # A few inputs far from where the codes are: all codes but those few that they choose are dead.
    inputs = subject.inputs[: max(1, SAMPLE * len(subject.inputs) // len(subject.rows(subject.inputs)))]
    inputs = inputs + 10 * inputs.std(correction=0)
    subject.run(model, inputs)  # a scale may be found by the first inputs
    rows = gather_rows(subject.rows(unquantized(model, inputs)), absent=torch.inf)
    before, in_use = _step(subject, model, inputs)
    for step in range(1, PATIENCE):
        codes, in_use_now = _step(subject, model, inputs)
        revived = _revived(before, codes, in_use, rows) if step > 1 else codes.new_empty(0, dtype=torch.int64)
        # Every rank must go on, or none.
        if all_min(torch.tensor(float(len(revived)), device=rows.device)) > 0:
            jump = (codes - before)[revived].norm(dim=1)
            later, _ = _step(subject, model, inputs)
            gone = (later[revived] - codes[revived]).norm(dim=1) > 0.5 * jump
            return verdict(
                bool(gone.any()),
                f"{int(gone.sum())} of {len(revived)} codes that step {step + 1} revived are gone a step later",
            )
        before, in_use = codes, in_use_now
    return not_applicable(f"no dead code was revived in {PATIENCE} steps of training")


def _step(subject: Subject, model: torch.nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Take a step in training; return the codes after it `(K, D)`, and which of them it chose, bool `(K,)`."""
    output = subject.run(model, inputs)
    codes = subject.codes(model).clone()
    in_use = torch.zeros(len(codes), dtype=torch.bool, device=codes.device)
    in_use[subject.chosen(output)] = True
    return codes, in_use


def _revived(before: Tensor, after: Tensor, in_use: Tensor, rows: Tensor) -> Tensor:
    """Numbers of the unused codes that a step has brought close to an input."""
    moved = ((after != before).any(1) & ~in_use).nonzero()[:, 0]
    was, now = (squared_distances(codes[moved], rows).amin(1) for codes in (before, after))
    return moved[now < 0.01 * was]


def eval_changes_nothing(subject: Subject) -> Outcome:
    """Two passes in eval mode leave parameters and buffers as they were."""
    model = subject.copy(training=False)
    before = copied_state(model)
    for _ in range(2):
        subject.run(model, subject.inputs)
    changed = changed_names(before, state_of(model))
    if changed:
        return wrong(f"two passes change {', '.join(changed)}")
    return ok(f"two passes leave {len(before)} parameters and buffers as they were")


def nan_does_not_spread(subject: Subject) -> Outcome:
    """One NaN in a training batch leaves no NaN in parameters and buffers."""
    model = subject.copy(training=True)
    subject.run(model, subject.inputs)
    before = copied_state(model)
    poisoned = subject.inputs.clone(memory_format=torch.contiguous_format)
    poisoned.view(-1)[poisoned.numel() // 2] = torch.nan
    answer = "is taken"
    try:
        subject.run(model, poisoned)
    except (ValueError, RuntimeError, ArithmeticError, AssertionError, IndexError) as error:
        answer = f"is refused ({type(error).__name__})"
    after = state_of(model)
    lost = [
        f"{int((~tensor.isfinite()).sum())} of {tensor.numel()} numbers of {key}"
        for key, tensor in after.items()
        if (tensor.isfinite() < before[key].isfinite()).any()
    ]
    if lost:
        return wrong(f"one NaN {answer} and poisons {', '.join(lost)}")
    return ok(f"one NaN {answer}; {'finite' if changed_names(before, after) else 'unchanged'} state after it")
