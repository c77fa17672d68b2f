"""Whether gradients go where they should: to the codes, and back to the encoder."""

from __future__ import annotations

import torch
from torch import Tensor

from lexel.audit._checks._outcome import NO_CODES, Outcome, not_applicable, ok, wrong
from lexel.audit._compare import changed_names, copied_state, is_close, state_of
from lexel.audit._subject import Subject, as_table

__all__ = ["codebook_learns", "encoder_gradient"]


def codebook_learns(subject: Subject) -> Outcome:
    """A training step moves the codes, or gives them a gradient."""
    model = subject.copy(training=True)
    state, before = copied_state(model), subject.codes(model).clone() if subject.has_codes else None
    output = subject.run(model, subject.inputs.clone().requires_grad_())
    if before is not None:
        moved = (subject.codes(model) != before).any(1)
        if moved.any():
            return ok(f"a step in training moves {int(moved.sum())} of {len(moved)} codes")
    total = (output.quantized * torch.randn_like(output.quantized)).sum()
    total = total if output.loss is None else total + output.loss
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradients: list[Tensor | None] = [None] * len(parameters)
    if total.requires_grad and parameters:
        gradients = list(torch.autograd.grad(total, parameters, allow_unused=True))
    if before is None:
        learned = sum(gradient is not None and bool(gradient.any()) for gradient in gradients)
        if learned:
            return ok(f"{learned} of {len(parameters)} parameters get a gradient")
        tables = [key for key in changed_names(state, state_of(model)) if as_table(state[key]) is not None]
        if tables:
            return ok(f"a step in training moves {len(tables)} tables, {tables[0]} for one")
        return not_applicable("no parameter gets a gradient, no table moves; " + NO_CODES)
    address = subject.codes(model).data_ptr()
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if parameter.data_ptr() == address and gradient is not None and bool(gradient.any()):
            touched = int(gradient.reshape(len(before), -1).any(1).sum())
            return ok(f"{touched} of {len(before)} codes get a gradient, of norm {gradient.norm():.2g}")
    return wrong(f"none of {len(before)} codes gets a gradient, and a step in training moves none")


def encoder_gradient(subject: Subject) -> Outcome:
    """Name what the gradient at the output becomes at the input."""
    inputs = subject.inputs.clone().requires_grad_()
    quantized = subject.run(subject.copy(training=True), inputs).quantized
    upstream = torch.randn_like(quantized)
    found = None
    if quantized.requires_grad:
        (found,) = torch.autograd.grad(quantized, inputs, upstream, allow_unused=True)
    if found is None or not found.any():
        return wrong("missing: nothing of the task's gradient reaches the inputs")
    if not found.isfinite().all():
        return wrong(f"{int((~found.isfinite()).sum())} of {found.numel()} numbers are not finite")
    if is_close(found, upstream, upstream):
        return ok("the identity (straight-through)")
    cosine = float(torch.cosine_similarity(found.flatten(), upstream.flatten(), dim=0))
    z, e, g, up = (subject.rows(tensor.detach()).norm(dim=1) for tensor in (inputs, quantized, found, upstream))
    if torch.allclose(g * z, e * up, rtol=1e-3, atol=1e-5):
        return ok(f"a rotation, scaled by ‖e‖/‖z‖; cosine with the task's gradient {cosine:.2f}")
    return ok(f"neither identity nor rotation; cosine with the task's gradient {cosine:.2f}")
