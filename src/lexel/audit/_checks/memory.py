"""Whether a training step makes anything of N × K numbers."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from lexel.audit._checks._outcome import Outcome, not_applicable, verdict
from lexel.audit._subject import Subject

__all__ = ["memory"]


def memory(subject: Subject) -> Outcome:
    """The largest block of memory does not grow by a number for each input and code."""
    codes = subject.codes(subject.copy(training=False))
    K, D = codes.shape
    if K <= 4 * D:
        return not_applicable(f"K = {K} is too few beside D = {D} to tell N·K from N·D")
    # Large enough that a search in tiles has several of them.
    each = len(subject.rows(subject.inputs)) / len(subject.inputs)
    sizes = [max(1, round(elements / K / each)) for elements in (1 << 22, 1 << 23)]
    if sizes[0] == sizes[1]:
        sizes[1] = 2 * sizes[0]
    if sizes[1] * each * K > 1 << 26:
        return not_applicable(f"one input has {each:.0f} vectors: too many for two small sizes")
    repeated = subject.inputs.repeat(-(-sizes[1] // len(subject.inputs)), *[1] * (subject.inputs.ndim - 1))
    (peak, largest), (more_peak, larger) = (_allocated(subject, repeated[:size]) for size in sizes)
    vectors = (sizes[1] - sizes[0]) * each
    growth, block = (more_peak - peak) / vectors, (larger - largest) / vectors
    evidence = f"peak grows by {growth:,.0f} bytes for each input, the largest block by {block:,.0f}; K = {K}, D = {D}"
    # Two bytes for each code at least: less than that no distance or one-hot of a code takes.
    return verdict(block >= 2 * K, evidence)


def _allocated(subject: Subject, inputs: Tensor) -> tuple[int, int]:
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
