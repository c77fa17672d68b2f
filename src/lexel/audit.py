"""A check-up for any module that quantizes, Lexel's or not: what is sound, what is wrong, and how one can see it."""

from __future__ import annotations

import copy
import dataclasses
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lexel._core.collectives import all_min, gather_rows, world_size
from lexel.metrics import Usage

__all__ = ["Audit", "Finding", "audit"]

Verdict = Literal["ok", "wrong", "not applicable"]

METRICS = ("distance", "product", "cosine")
# A choice is wrong when its squared distance exceeds the least one by more than this share of ‖z‖² + ‖e‖²: float32 may
# break near ties either way, and a wrong choice among them costs nothing.
ROUNDING = 4 * torch.finfo(torch.float32).eps
SAMPLE = 256  # how many vectors tell what is what
COMPARED = 1 << 22  # about how many pairs of inputs and codes are compared in float64
SHIFT = 1000  # in standard deviations of the inputs
PATIENCE = 400  # steps that a dead code is given to be revived


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        check: what was looked at.
        verdict: `"ok"`, `"wrong"` or `"not applicable"`.
        evidence: what was measured, in one line.
    """

    check: str
    verdict: Verdict
    evidence: str


@dataclass(frozen=True)
class Audit:
    """All findings about a module; iterates over them, and prints as a table.

    Attributes:
        findings: in the order of the checks.
    """

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return all(finding.verdict != "wrong" for finding in self.findings)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __getitem__(self, check: str) -> Finding:
        """Return the finding of a check by its name."""
        found = {finding.check: finding for finding in self.findings}
        return found[check]

    def __str__(self) -> str:
        marks = {"ok": "ok", "wrong": "WRONG", "not applicable": "–"}
        widest = max(len(finding.check) for finding in self.findings)
        return "\n".join(f"{one.check:{widest}}  {marks[one.verdict]:5}  {one.evidence}" for one in self.findings)


def audit(
    module: nn.Module,
    inputs: Tensor,
    *,
    codebook: Callable[[Any], Tensor] | None = None,
    quantized: Callable[[Any], Tensor] | None = None,
    indices: Callable[[Any], Tensor] | None = None,
    loss: Callable[[Any], Tensor] | None = None,
) -> Audit:
    """Examine a module that quantizes: is it what it should be, in training and evaluation, on this data?

    Everything happens on copies: neither the module nor the global random numbers change. What is what in the module's
    output is found by looking: the quantized vectors have the inputs' shape, indices are integers or one-hot rows, the
    loss is the first scalar with a gradient. The codebook is the parameter or buffer `(K, D)` whose rows the quantized
    vectors are, also after it is changed. Where looking is not enough, say it: each argument is a function.

    The checks:

    - *codebook learns*: a training step moves the codes, or gives them a gradient (it does not when the codebook loss
      is computed from the straight-through values).
    - *encoder's gradient*: what the gradient at the output becomes at the input.
    - *nearest codes*, *… under bfloat16 autocast*, *… under a shift* of inputs and codes by 1,000 standard deviations:
      compared with a float64 brute force on 64 to 2,048 inputs. Nearest may also mean the largest product or cosine,
      when all of them are.
    - *revived codes stay*: a dead code that training puts among the inputs is still there a step later.
    - *eval changes nothing*: two passes in eval mode leave parameters and buffers as they were.
    - *NaN does not spread*: one NaN in a training batch leaves no NaN in parameters and buffers.
    - *memory*: whether anything of N × K numbers is made in a training step.
    - *usage*: perplexity over `inputs` in eval mode, collapsed when below a tenth of min(K, N).
    - *ranks agree*: with `torch.distributed`, whether all ranks have the same codes, now and after a training step.

    Args:
        module: takes a tensor. Not changed.
        inputs: floating, finite, as the module takes them; at least one vector, better a thousand. Other ranks may have
            others; every rank must call this.
        codebook: from the module to its codes `(K, D)`: the tensor that it works with, not a copy.
        quantized: from the module's output to the quantized vectors.
        indices: from the module's output to the indices.
        loss: from the module's output to the loss.

    Raises:
        TypeError: `inputs` is not a floating tensor.
        ValueError: `inputs` is empty or not finite, or nothing in the output has its shape.

    Example:
        >>> import lexel
        >>> found = audit(lexel.VectorQuantizer(64, 16), torch.randn(8, 16, 8, 8))
        >>> found.ok, found["codebook learns"].verdict
        (True, 'ok')
    """
    if not isinstance(inputs, Tensor) or not inputs.dtype.is_floating_point:
        kind = inputs.dtype if isinstance(inputs, Tensor) else type(inputs).__name__
        raise TypeError(f"audit: inputs must be a floating tensor, got {kind}")
    if inputs.ndim < 2 or not inputs.numel() or not bool(inputs.isfinite().all()):
        raise ValueError(f"audit: inputs must be finite, with a batch and channels, got shape {tuple(inputs.shape)}")
    devices = [inputs.device] if inputs.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.enable_grad():
        torch.manual_seed(0)
        subject = _Subject(module, inputs.detach(), codebook, quantized, indices, loss)
        return Audit(tuple(check(subject) for check in CHECKS))


class _Subject:
    """The module under examination: makes copies of it, reads its outputs, and finds its codes."""

    def __init__(
        self,
        module: nn.Module,
        inputs: Tensor,
        codebook: Callable[[Any], Tensor] | None,
        quantized: Callable[[Any], Tensor] | None,
        indices: Callable[[Any], Tensor] | None,
        loss: Callable[[Any], Tensor] | None,
    ) -> None:
        self._module = module
        self.inputs = inputs
        self._quantized, self._indices, self._loss = quantized, indices, loss
        self._codes = codebook
        self.axis = 1
        self.by = METRICS[0]
        self.trusts_indices = False
        if codebook is None:
            self._find_codebook()
            if not self.has_codes:  # it may make its codes from the first batch
                self._module = self.copy(training=True)
                self.run(self._module, inputs)
                self._find_codebook()
            if not self.has_codes:
                self._module = module
        else:
            self.axis = self._axis_of(codebook(module).shape[-1])
        if self.has_codes:
            output = self.run(self.copy(training=False), inputs)
            codes, rows, indices_ = output.codes, self.rows(output.quantized), output.indices
            if codes is not None and indices_ is not None and indices_.numel() == len(rows):
                chosen = indices_.reshape(-1)
                within = bool((chosen >= 0).all() and (chosen < len(codes)).all())
                self.trusts_indices = within and _close(rows, codes[chosen], inputs)

    @property
    def has_codes(self) -> bool:
        return self._codes is not None

    def copy(self, *, training: bool) -> nn.Module:
        return copy.deepcopy(self._module).train(training)

    def codes(self, model: nn.Module) -> Tensor:
        """The live codes of a copy, `(K, D)`."""
        assert self._codes is not None
        codes = self._codes(model).detach()
        return codes.reshape(-1, codes.shape[-1])

    def run(self, model: nn.Module, inputs: Tensor) -> _Output:
        codes = self.codes(model).clone() if self._codes is not None else None
        output = model(inputs)
        tensors = list(_tensors(output))
        if self._quantized is not None:
            quantized = self._quantized(output)
        else:
            alike = [t for t in tensors if t.shape == inputs.shape and t.dtype.is_floating_point]
            if not alike:
                shapes = ", ".join(str(tuple(t.shape)) for t in tensors) or "no tensors"
                raise ValueError(
                    f"audit: nothing in the output has the inputs' shape {tuple(inputs.shape)}, only {shapes}; "
                    "say which it is with quantized="
                )
            quantized = next((t for t in alike if t.data_ptr() != inputs.data_ptr()), alike[0])
        rest = [t for t in tensors if t is not quantized]
        if self._loss is not None:
            loss: Tensor | None = self._loss(output).sum()
        else:
            loss = next((t.sum() for t in rest if t.numel() == 1 and t.requires_grad), None)
        found = self._indices(output) if self._indices is not None else _indices(rest)
        size = getattr(output, "num_embeddings", None)
        return _Output(quantized, found, loss, codes, size if isinstance(size, int) else None)

    def rows(self, tensor: Tensor) -> Tensor:
        """Vectors of a tensor in the inputs' layout, `(N, D)`."""
        return tensor.movedim(self.axis, -1).reshape(-1, tensor.shape[self.axis])

    def chosen(self, output: _Output) -> Tensor:
        """Which codes the output is made of: as it says itself or, if it does not, by looking."""
        if self.trusts_indices and output.indices is not None:
            return output.indices.reshape(-1)
        assert output.codes is not None
        codes, rows = output.codes.double(), self.rows(output.quantized).double()
        return torch.cat([_squares(part, codes).argmin(1) for part in torch.split(rows, SAMPLE)])

    def _axis_of(self, dim: int) -> int:
        shape = self.inputs.shape
        axes: list[int] = [axis for axis in (1, *range(len(shape) - 1, -1, -1)) if shape[axis] == dim]
        if not axes:
            raise ValueError(f"audit: the codes have {dim} dimensions, inputs of shape {tuple(shape)} no such axis")
        return axes[0]

    def _find_codebook(self) -> None:
        """Find the table that the quantized vectors are rows of, also after each of its rows has been moved."""
        model = self.copy(training=False)
        state = _cloned(model)
        quantized = self.run(model, self.inputs).quantized
        axes = (1, *range(quantized.ndim - 1, 1, -1), 0)
        for name, tensor in state.items():
            table = _as_table(tensor)
            for axis in axes if table is not None else ():
                if table is None or quantized.shape[axis] != table.shape[1]:
                    continue
                self.axis = axis
                if _made_of(self.rows(quantized), table, self.inputs) and self._follows(name):
                    self._codes = partial(_named, name=name)
                    return
        self.axis = 1

    @torch.no_grad()
    def _follows(self, name: str) -> bool:
        model = self.copy(training=False)
        table = _named(model, name)
        moved = table + torch.randn_like(table) * (0.1 * table.std())
        table.copy_(moved)
        rows = self.rows(self.run(model, self.inputs).quantized)
        return _made_of(rows, moved.reshape(-1, moved.shape[-1]), self.inputs)


@dataclass(frozen=True)
class _Output:
    quantized: Tensor
    indices: Tensor | None
    loss: Tensor | None
    codes: Tensor | None  # as they were before: what the output was made of
    num_embeddings: int | None


def _tensors(output: object) -> Iterator[Tensor]:
    """All tensors of an output, however they are wrapped."""
    if isinstance(output, Tensor):
        yield output
    elif dataclasses.is_dataclass(output) and not isinstance(output, type):
        for field in dataclasses.fields(output):
            yield from _tensors(getattr(output, field.name))
    elif isinstance(output, (Mapping, list, tuple)):
        for value in output.values() if isinstance(output, Mapping) else output:
            yield from _tensors(value)
    elif hasattr(output, "__dict__"):
        yield from _tensors(vars(output))


def _indices(tensors: list[Tensor]) -> Tensor | None:
    for tensor in tensors:
        if tensor.ndim > 1 and tensor.shape[-1] > 1 and _is_one_hot(tensor):
            return tensor.argmax(-1)
    whole = [t for t in tensors if not t.dtype.is_floating_point and t.dtype != torch.bool and t.numel() > 1]
    return whole[0] if whole else None


def _is_one_hot(tensor: Tensor) -> bool:
    return bool(((tensor == 0) | (tensor == 1)).all() and (tensor.sum(-1) == 1).all())


def _state(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, also those that are not saved."""
    return {name: tensor.detach() for name, tensor in (*model.named_parameters(), *model.named_buffers())}


def _named(model: nn.Module, name: str) -> Tensor:
    return _state(model)[name]


def _as_table(tensor: Tensor) -> Tensor | None:
    """`(K, D)`, also with leading axes of size 1."""
    one_table = tensor.ndim >= 2 and tensor.shape[-2] > 1 and tensor.numel() == tensor.shape[-2] * tensor.shape[-1]
    return tensor.reshape(tensor.shape[-2:]) if one_table and tensor.dtype.is_floating_point else None


def _squares(rows: Tensor, codes: Tensor) -> Tensor:
    """Squared distances from the differences themselves, `(N, K)`."""
    return torch.cdist(rows, codes, compute_mode="donot_use_mm_for_euclid_dist").square()


def _wrong(rows: Tensor, codes: Tensor, chosen: Tensor, by: str, shift: Tensor | float = 0.0) -> Tensor:
    """Which of the choices `(N,)` are not the best in float64, by more than the rounding of what was not shifted."""
    if by == "cosine":
        rows, codes = F.normalize(rows, dim=1), F.normalize(codes, dim=1)
    costs = _squares(rows, codes) if by == "distance" else -rows @ codes.T
    size = (rows - shift).square().sum(1) + (codes - shift).square().sum(1).amax()
    return costs.gather(1, chosen[:, None])[:, 0] > costs.amin(1) + ROUNDING * size


def _comparable(model: nn.Module, inputs: Tensor) -> Tensor:
    """The inputs as the output approximates them: a codebook may scale them."""
    scaled: Tensor = getattr(model, "unquantized", lambda same: same)(inputs)
    return scaled


def _close(rows: Tensor, others: Tensor, inputs: Tensor) -> bool:
    """Equal but for the rounding of z + (e − z)."""
    tolerance = 1e-5 * others.abs().max() + 1e-6 * inputs.abs().max()
    return bool((rows - others).abs().max() <= tolerance)


def _made_of(rows: Tensor, table: Tensor, inputs: Tensor) -> bool:
    rows, table = rows[:SAMPLE].detach().double(), table.double()
    return _close(rows, table[_squares(rows, table).argmin(1)], inputs)


def _changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> list[str]:
    return [
        name
        for name, old in before.items()
        if name not in after or not torch.equal(torch.nan_to_num(old), torch.nan_to_num(after[name]))
    ]


def _cloned(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in _state(model).items()}


NO_CODES = "no parameter or buffer holds the quantized vectors"


def _learns(subject: _Subject) -> Finding:
    name = "codebook learns"
    model = subject.copy(training=True)
    state, before = _cloned(model), subject.codes(model).clone() if subject.has_codes else None
    inputs = subject.inputs.clone().requires_grad_()
    output = subject.run(model, inputs)
    if before is not None:
        moved = (subject.codes(model) != before).any(1)
        if moved.any():
            return Finding(name, "ok", f"a step in training moves {int(moved.sum())} of {len(moved)} codes")
    total = (output.quantized * torch.randn_like(output.quantized)).sum()
    total = total if output.loss is None else total + output.loss
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradients: list[Tensor | None] = [None] * len(parameters)
    if total.requires_grad and parameters:
        gradients = list(torch.autograd.grad(total, parameters, allow_unused=True))
    if before is None:
        learned = sum(gradient is not None and bool(gradient.any()) for gradient in gradients)
        if learned:
            return Finding(name, "ok", f"{learned} of {len(parameters)} parameters get a gradient")
        tables = [key for key in _changed(state, _state(model)) if _as_table(state[key]) is not None]
        if tables:
            return Finding(name, "ok", f"a step in training moves {len(tables)} tables, {tables[0]} for one")
        return Finding(name, "not applicable", "no parameter gets a gradient, no table moves; " + NO_CODES)
    assert subject._codes is not None
    address = subject.codes(model).data_ptr()
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if parameter.data_ptr() == address and gradient is not None and bool(gradient.any()):
            touched = int(gradient.reshape(len(before), -1).any(1).sum())
            return Finding(
                name, "ok", f"{touched} of {len(before)} codes get a gradient, of norm {gradient.norm():.2g}"
            )
    return Finding(name, "wrong", f"none of {len(before)} codes gets a gradient, and a step in training moves none")


def _encoder_gradient(subject: _Subject) -> Finding:
    name = "encoder's gradient"
    inputs = subject.inputs.clone().requires_grad_()
    quantized = subject.run(subject.copy(training=True), inputs).quantized
    upstream = torch.randn_like(quantized)
    found = None
    if quantized.requires_grad:
        (found,) = torch.autograd.grad(quantized, inputs, upstream, allow_unused=True)
    if found is None or not found.any():
        return Finding(name, "wrong", "missing: nothing of the task's gradient reaches the inputs")
    if not found.isfinite().all():
        return Finding(name, "wrong", f"{int((~found.isfinite()).sum())} of {found.numel()} numbers are not finite")
    if _close(found, upstream, upstream):
        return Finding(name, "ok", "the identity (straight-through)")
    cosine = float(torch.cosine_similarity(found.flatten(), upstream.flatten(), dim=0))
    z, e, g, up = (subject.rows(tensor.detach()).norm(dim=1) for tensor in (inputs, quantized, found, upstream))
    if torch.allclose(g * z, e * up, rtol=1e-3, atol=1e-5):
        return Finding(name, "ok", f"a rotation, scaled by ‖e‖/‖z‖; cosine with the task's gradient {cosine:.2f}")
    return Finding(name, "ok", f"neither identity nor rotation; cosine with the task's gradient {cosine:.2f}")


def _choices(subject: _Subject, name: str, shift: float = 0.0, *, autocast: bool = False) -> Finding:
    if not subject.has_codes:
        return Finding(name, "not applicable", NO_CODES)
    model, inputs = subject.copy(training=False), subject.inputs + shift
    with torch.no_grad():
        nothing = torch.zeros_like(inputs[:1])
        offset = subject.rows(_comparable(model, nothing + shift) - _comparable(model, nothing))[0] if shift else 0.0
        subject.codes(model).add_(offset)
        codes = subject.codes(model).double()
        try:
            with torch.autocast(inputs.device.type, torch.bfloat16, enabled=autocast):
                output = subject.run(model, inputs)
        except RuntimeError as error:
            return Finding(name, "wrong", f"fails: {str(error).splitlines()[0]}")
        if shift and not _made_of(subject.rows(output.quantized), codes, inputs):
            return Finding(name, "not applicable", "codes that are shifted are not what comes out")
        rows, chosen = subject.rows(_comparable(model, inputs)), subject.chosen(output)
        some = torch.randperm(len(rows), device=rows.device)[: min(2048, max(64, COMPARED // len(codes)))]
        rows, chosen = rows[some].double(), chosen[some]
        if not (shift or autocast):
            subject.by = next((by for by in METRICS if not _wrong(rows, codes, chosen, by).any()), METRICS[0])
        elif shift and subject.by != METRICS[0]:
            return Finding(name, "not applicable", f"codes are chosen by {subject.by}, to which a shift matters")
        wrong = _wrong(rows, codes, chosen, subject.by, offset)
    if not wrong.any():
        return Finding(name, "ok", f"{len(some)} of {len(some)} as float64 says, by {subject.by}")
    squares = _squares(rows, codes)
    excess = float(squares.gather(1, chosen[:, None]).mean() / squares.amin(1).mean().clamp_min(1e-300)) - 1
    share = float(wrong.double().mean())
    return Finding(name, "wrong", f"{share:.1%} of {len(some)} get another code, at {excess:.2g} more squared distance")


def _nearest(subject: _Subject) -> Finding:
    return _choices(subject, "nearest codes")


def _nearest_autocast(subject: _Subject) -> Finding:
    return _choices(subject, "… under bfloat16 autocast", autocast=True)


def _nearest_shifted(subject: _Subject) -> Finding:
    name = "… under a shift"
    if subject.has_codes:
        lengths = subject.codes(subject.copy(training=False)).norm(dim=1)
        if float(lengths.std() / lengths.mean()) < 1e-3:
            return Finding(name, "not applicable", "the codes lie on a sphere")
    return _choices(subject, name, SHIFT * float(subject.inputs.std(correction=0)))


def _revived(subject: _Subject) -> Finding:
    name = "revived codes stay"
    if not subject.has_codes:
        return Finding(name, "not applicable", NO_CODES)
    model = subject.copy(training=True)
    # A few inputs far from where the codes are: all codes but those few that they choose are dead.
    inputs = subject.inputs[: max(1, SAMPLE * len(subject.inputs) // len(subject.rows(subject.inputs)))]
    inputs = inputs + 10 * inputs.std(correction=0)
    subject.run(model, inputs)  # a scale may be found by the first inputs
    rows = gather_rows(subject.rows(_comparable(model, inputs)), absent=torch.inf)
    before, in_use, revived, jump = None, None, None, rows.new_empty(0)
    with torch.no_grad():
        for step in range(PATIENCE):
            output = subject.run(model, inputs)
            codes = subject.codes(model).clone()
            if before is not None and revived is not None:
                gone = (codes[revived] - before[revived]).norm(dim=1) > 0.5 * jump
                evidence = f"{int(gone.sum())} of {len(revived)} codes that step {step} revived are gone a step later"
                return Finding(name, "wrong" if gone.any() else "ok", evidence)
            if before is not None and in_use is not None and step > 1:
                moved = ((codes != before).any(1) & ~in_use).nonzero()[:, 0]
                was, now = (_squares(table[moved], rows).amin(1) for table in (before, codes))
                near = moved[now < 0.01 * was]
                # Every rank must go on, or none.
                if all_min(torch.tensor(float(len(near)), device=rows.device)) > 0:
                    revived, jump = near, (codes - before)[near].norm(dim=1)
            in_use = torch.zeros(len(codes), dtype=torch.bool, device=codes.device)
            in_use[subject.chosen(output)] = True
            before = codes
    return Finding(name, "not applicable", f"no dead code was revived in {PATIENCE} steps of training")


def _eval_is_free(subject: _Subject) -> Finding:
    name = "eval changes nothing"
    model = subject.copy(training=False)
    before = _cloned(model)
    for _ in range(2):
        subject.run(model, subject.inputs)
    changed = _changed(before, _state(model))
    if changed:
        return Finding(name, "wrong", f"two passes change {', '.join(changed)}")
    return Finding(name, "ok", f"two passes leave {len(before)} parameters and buffers as they were")


def _nan(subject: _Subject) -> Finding:
    name = "NaN does not spread"
    model = subject.copy(training=True)
    subject.run(model, subject.inputs)
    before = _cloned(model)
    poisoned = subject.inputs.clone(memory_format=torch.contiguous_format)
    poisoned.view(-1)[poisoned.numel() // 2] = torch.nan
    said = "is taken"
    try:
        subject.run(model, poisoned)
    except (ValueError, RuntimeError, ArithmeticError, AssertionError, IndexError) as error:
        said = f"is refused ({type(error).__name__})"
    after = _state(model)
    lost = [
        f"{int((~tensor.isfinite()).sum())} of {tensor.numel()} numbers of {key}"
        for key, tensor in after.items()
        if (tensor.isfinite() < before[key].isfinite()).any()
    ]
    if lost:
        return Finding(name, "wrong", f"one NaN {said} and poisons {', '.join(lost)}")
    changed = _changed(before, after)
    return Finding(name, "ok", f"one NaN {said}; {'finite' if changed else 'unchanged'} state after it")


def _memory(subject: _Subject) -> Finding:
    name = "memory"
    if not subject.has_codes:
        return Finding(name, "not applicable", NO_CODES)
    codes = subject.codes(subject.copy(training=False))
    K, D = codes.shape
    if K <= 4 * D:
        return Finding(name, "not applicable", f"K = {K} is too few beside D = {D} to tell N·K from N·D")
    # Large enough that a search in tiles has several of them.
    each = len(subject.rows(subject.inputs)) / len(subject.inputs)
    sizes = [max(1, round(elements / K / each)) for elements in (1 << 22, 1 << 23)]
    if sizes[0] == sizes[1]:
        sizes[1] = 2 * sizes[0]
    if sizes[1] * each * K > 1 << 26:
        return Finding(name, "not applicable", f"one input has {each:.0f} vectors: too many for two small sizes")
    repeated = subject.inputs.repeat(-(-sizes[1] // len(subject.inputs)), *[1] * (subject.inputs.ndim - 1))
    (peak, largest), (more_peak, larger) = (_allocated(subject, repeated[:size]) for size in sizes)
    vectors = (sizes[1] - sizes[0]) * each
    growth, block = (more_peak - peak) / vectors, (larger - largest) / vectors
    evidence = f"peak grows by {growth:,.0f} bytes for each input, the largest block by {block:,.0f}; K = {K}, D = {D}"
    # Two bytes for each code at least: less than that no distance or one-hot of a code takes.
    return Finding(name, "wrong" if block >= 2 * K else "ok", evidence)


def _allocated(subject: _Subject, inputs: Tensor) -> tuple[int, int]:
    """Bytes at the peak of a training step, and in the largest block of it."""
    model = subject.copy(training=True)
    activities = [torch.profiler.ProfilerActivity.CPU]
    if inputs.device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        model(inputs)
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    blocks = [event["args"] for event in events if event.get("name") == "[memory]"]
    now = peak = 0
    for block in blocks:
        now += block["Bytes"]
        peak = max(peak, now)
    return peak, max((block["Bytes"] for block in blocks), default=0)


def _usage(subject: _Subject) -> Finding:
    name = "usage"
    model = subject.copy(training=False)
    with torch.no_grad():
        output = subject.run(model, subject.inputs)
    if subject.has_codes:
        K, chosen = len(subject.codes(model)), subject.chosen(output)
    elif output.indices is not None and output.num_embeddings is not None:
        K, chosen = output.num_embeddings, output.indices
    else:
        return Finding(name, "not applicable", "neither indices and their number nor a codebook were found")
    usage = Usage(K)
    usage.update(chosen)
    found = usage.compute()
    evidence = f"{found.used:,} of {K:,} codes in {found.total:,} choices, perplexity {found.perplexity:,.1f}"
    possible = min(K, found.total)
    return Finding(name, "wrong" if possible > 1 and found.perplexity < 0.1 * possible else "ok", evidence)


def _ranks(subject: _Subject) -> Finding:
    name = "ranks agree"
    if world_size() == 1:
        return Finding(name, "not applicable", "one process")
    if not subject.has_codes:
        return Finding(name, "not applicable", NO_CODES)
    model = subject.copy(training=True)
    spreads = []
    for step in range(2):
        if step:
            subject.run(model, subject.inputs)
        codes = subject.codes(model)
        spreads.append(float((-all_min(-codes) - all_min(codes)).max()))
    evidence = f"largest difference of a number of the codes {spreads[0]:.2g}, after a step {spreads[1]:.2g}"
    return Finding(name, "ok" if max(spreads) == 0 else "wrong", evidence)


CHECKS: tuple[Callable[[_Subject], Finding], ...] = (
    _learns,
    _encoder_gradient,
    _nearest,
    _nearest_autocast,
    _nearest_shifted,
    _revived,
    _eval_is_free,
    _nan,
    _memory,
    _usage,
    _ranks,
)
