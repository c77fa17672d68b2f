"""The search says what a float64 brute force says, whatever the numbers, the layout and the path."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from torch import Tensor

from lexel.nearest import available_backends, nearest_code, use_backend
from tests.nearest import truth

METRICS = ("euclidean", "cosine", "dot")
LEVELS = available_backends()[1:]
quick = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def laid_out(tensor: Tensor, layout: str) -> Tensor:
    """The same numbers with other strides."""
    if layout == "columns":
        return tensor.T.contiguous().T
    if layout == "sparse":
        return torch.stack([tensor, -tensor], -1).flatten(1)[:, ::2]
    if layout == "offset":
        return torch.cat([tensor, tensor], 1)[:, : tensor.shape[1]]
    return tensor


@st.composite
def problems(draw: st.DrawFn) -> tuple[Tensor, Tensor, str, int]:
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    n, k = draw(st.integers(0, 70)), draw(st.sampled_from([1, 2, 15, 16, 17, 31, 33, 100, 300, 777]))
    d = draw(st.sampled_from([1, 2, 3, 4, 7, 8, 9, 10, 11, 16, 20, 21, 31, 32, 33, 64, 65, 100]))
    dtype = draw(st.sampled_from([torch.float32] * 3 + [torch.float16, torch.bfloat16, torch.float64]))
    kind = draw(st.sampled_from(["normal", "clusters", "grid", "duplicates", "outliers", "tiny codes", "among codes"]))
    codebook = torch.randn(k, d, generator=generator)
    if kind == "clusters":  # many codes a hair apart
        codebook = codebook[torch.randint(0, max(1, k // 20), (k,), generator=generator)] + 1e-5 * codebook
    elif kind == "grid":  # exact ties between different codes
        codebook = codebook.round()
    elif kind == "duplicates":
        codebook = codebook[torch.randint(0, max(1, k // 3), (k,), generator=generator)]
    elif kind == "outliers":
        codebook[:: max(1, k // 3)] *= 1e4
    elif kind == "tiny codes":
        codebook = codebook / 1e4
    x = torch.randn(n, d, generator=generator)
    if kind == "grid":
        x = x.round()
    elif kind == "among codes" and n:
        x = codebook[torch.randint(0, k, (n,), generator=generator)] + 1e-4 * x * draw(st.booleans())
    if dtype not in (torch.float16, torch.bfloat16):
        scale = draw(st.sampled_from([1.0, 1e-30, 1e-41, 1e12, 1e30]))
        shift = draw(st.sampled_from([0.0, 1.0, 1e4]))
        x, codebook = (x + shift) * scale, (codebook + shift) * scale
    layouts = st.sampled_from(["rows", "columns", "sparse", "offset"])
    x, codebook = laid_out(x.to(dtype), draw(layouts)), laid_out(codebook.to(dtype), draw(layouts))
    return x, codebook, draw(st.sampled_from(METRICS)), draw(st.sampled_from([1, 1, 1, min(3, k), min(40, k)]))


@quick
@given(problem=problems())
def test_agrees_with_brute_force(level: str, problem: tuple[Tensor, Tensor, str, int]) -> None:
    x, codebook, metric, k = problem
    found, scores = nearest_code(x, codebook, metric=metric, k=k, return_scores=True)
    assert found.dtype == torch.int64
    assert found.shape == scores.shape == ((len(x),) if k == 1 else (len(x), k))
    assert torch.equal(found, nearest_code(x, codebook, metric=metric, k=k))
    truth.assert_nearest(found, x, codebook, metric)
    true = truth.scores(x, codebook, metric).gather(1, found.reshape(len(x), k)).reshape(scores.shape)
    if metric == "euclidean":
        true = -true
    elif metric == "cosine":
        norms = x.double().norm(dim=1).reshape(-1, *[1] * (scores.ndim - 1))
        true = torch.where(norms > 0, true / norms, 0)
    torch.testing.assert_close(scores, true.to(scores.dtype), rtol=2e-6, atol=1e-6 if metric == "cosine" else 1e-44)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("n", "k", "d"), [(9, 1, 4096), (40, 300, 4096), (7, 65536, 3), (1000, 513, 64), (1500, 40, 6)]
)
def test_sizes(level: str, metric: str, n: int, k: int, d: int) -> None:
    generator = torch.Generator().manual_seed(n)
    x, codebook = torch.randn(n, d, generator=generator) + 1, torch.randn(k, d, generator=generator) + 1
    found = nearest_code(x, codebook, metric=metric)
    for rows in torch.arange(n).split(max(1, 2**21 // (k * d))):
        truth.assert_nearest(found[rows], x[rows], codebook, metric)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("k", [2, 3, 16, 17])
def test_few_codes_that_float32_cannot_tell_apart(level: str, metric: str, k: int) -> None:
    generator = torch.Generator().manual_seed(k)
    x, codebook = torch.randn(500, 3, generator=generator) + 1e4, torch.randn(k, 3, generator=generator) + 1e4
    for best in (1, k - 1, k):
        truth.assert_nearest(nearest_code(x, codebook, metric=metric, k=best), x, codebook, metric)


def test_a_million_codes(level: str) -> None:
    codebook = torch.randn(2**20, 4, generator=torch.Generator().manual_seed(0))
    picks = torch.tensor([0, 2**20 - 1, 12345])
    assert torch.equal(nearest_code(codebook[picks] * 1.0000001, codebook), picks)


@pytest.mark.parametrize("level", LEVELS, indirect=True)  # the portable path would take minutes
@pytest.mark.parametrize("k", [150_000, 400_000])  # packed codes that are held as a whole, and those that are not
@pytest.mark.parametrize("clusters", [0, 3000])
def test_many_codes_and_inputs(level: str, k: int, clusters: int) -> None:
    generator = torch.Generator().manual_seed(k)
    codebook = torch.randn(k, 64, generator=generator)
    if clusters:  # some hundred codes that the first pass cannot tell apart: the lists of groups overflow
        codebook = codebook[torch.randint(0, clusters, (k,), generator=generator)] + 1e-3 * codebook
    picks = torch.randint(0, k, (1500,), generator=generator)
    assert torch.equal(nearest_code(codebook[picks], codebook), picks)


@pytest.mark.parametrize("shift", [10.0, 1e3, 1e4, 1e6])
def test_a_shift_costs_nothing(level: str, shift: float) -> None:
    generator = torch.Generator().manual_seed(1)
    x, codebook = torch.randn(256, 64, generator=generator) + shift, torch.randn(512, 64, generator=generator) + shift
    truth.assert_nearest(nearest_code(x, codebook), x, codebook, "euclidean")


@pytest.mark.parametrize("metric", METRICS)
def test_the_company_does_not_matter(level: str, metric: str) -> None:
    """The same answer for 1 and 2 threads, alone and in a batch, in any order, whichever mode the batch leads to."""
    generator = torch.Generator().manual_seed(2)
    codebook = torch.randn(300, 24, generator=generator).round(decimals=1)
    x = torch.randn(1700, 24, generator=generator).round(decimals=1)
    x[::7] = (codebook[:243] + codebook[50:293]) / 2  # rows midway between codes
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        together = nearest_code(x, codebook, metric=metric)
        order = torch.randperm(len(x), generator=generator)
        assert torch.equal(nearest_code(x[order], codebook, metric=metric), together[order])
        torch.set_num_threads(1)
        assert torch.equal(nearest_code(x, codebook, metric=metric), together)
    finally:
        torch.set_num_threads(threads)
    for i in range(0, len(x), 29):
        assert nearest_code(x[i : i + 1], codebook, metric=metric).item() == together[i]


def test_paths_agree() -> None:
    generator = torch.Generator().manual_seed(3)
    x, codebook = torch.randn(900, 40, generator=generator), torch.randn(700, 40, generator=generator)
    answers = []
    for path in available_backends():
        with use_backend(path):
            answers.append(nearest_code(x, codebook, k=4))
    assert all(torch.equal(answers[0], other) for other in answers)


def test_all_codes_equal(level: str) -> None:
    codebook = torch.randn(1, 16).expand(4096, 16)
    assert (nearest_code(torch.randn(1200, 16), codebook) == 0).all()
    assert nearest_code(torch.randn(3, 16), codebook, k=3).tolist() == [[0, 1, 2]] * 3


def test_zero_rows_and_zero_vectors(level: str) -> None:
    codebook = torch.randn(5, 3)
    assert nearest_code(torch.empty(0, 3), codebook).shape == (0,)
    assert nearest_code(torch.empty(0, 3), codebook, k=2).shape == (0, 2)
    for metric in ("cosine", "dot"):
        index, score = nearest_code(torch.zeros(1, 3), codebook, metric=metric, return_scores=True)
        assert (index.item(), score.item()) == (0, 0)


@pytest.mark.parametrize("d", [4, 8, 16, 24, 64, 200])
def test_worst_cases_of_the_bound(level: str, d: int) -> None:
    """Two codes that the first pass must confuse: its roundings all point one way, for one code up, for one down."""
    generator = torch.Generator().manual_seed(d)
    n, k = 64, 256
    sign = torch.randint(0, 2, (1, d), generator=generator) * 2.0 - 1
    half = 2.0**-8 * torch.tensor([1.0, -1.0])  # bf16 rounds 1 + 2^-8 - tiny down and 1 + 2^-8 + tiny up
    x = sign * (1 + half[0] - 2.0**-20) * (1 + torch.rand(n, 1, generator=generator) * 2.0**-22)
    codebook = torch.randn(k, d, generator=generator) * 0.05
    codebook[37] = sign[0] * (1 + half[0] - 2.0**-20)
    codebook[200] = sign[0] * (1 + half[0] + 2.0**-20)
    codebook[40] = -codebook.sum(0) + codebook[40]  # the mean stays at 0: centring must not move the others off
    for rows in (x, x * (1 + 2.0**-12), x + 2.0**-20):
        truth.assert_nearest(nearest_code(rows, codebook), rows, codebook, "euclidean")
        truth.assert_nearest(nearest_code(rows, codebook, metric="dot"), rows, codebook, "dot")
    # and codes around a sphere that differ by less than float32 can show in an expanded distance
    codebook = torch.nn.functional.normalize(torch.randn(k, d, generator=generator), dim=1)
    codebook[k // 2 :] = codebook[: k // 2] * (1 + 2.0**-23 * torch.randint(-2, 3, (k // 2, d), generator=generator))
    rows = torch.nn.functional.normalize(torch.randn(n, d, generator=generator), dim=1)
    for metric in METRICS:
        truth.assert_nearest(nearest_code(rows, codebook, metric=metric), rows, codebook, metric)


def hard_codebooks() -> dict[str, Tensor]:
    """Codes that a float32 pass leaves in doubt for most inputs, enough of them that they are put in another order."""
    k, d = 1000, 24
    generator = torch.Generator().manual_seed(5)
    normal, which = torch.randn(k, d, generator=generator), torch.arange(k)
    ulps = 2.0**-23 * torch.randint(-2, 3, (k, d), generator=generator)
    return {
        "100 clusters": normal[which % 100] + 1e-6 * normal,
        "2 clusters": normal[which % 2] + 1e-6 * normal,
        "clusters of codes an ulp apart": normal[which % 30] * (1 + ulps) + 1000,
        "clusters on a sphere": torch.nn.functional.normalize(normal[which % 30], dim=1) * (1 + ulps),
        "clusters with equal codes": normal[which % 20] + 1e-6 * normal[which % 701],
        "outliers": normal * torch.where(which % 50 == 7, 1000, 1)[:, None],
        "outliers among equal codes": normal[which % 300] * torch.where(which % 20 == 7, 1e6, 1)[:, None],
        "lengths over many magnitudes": normal * (4 * torch.randn(k, 1, generator=generator)).exp(),
    }


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("name", hard_codebooks())
def test_codes_that_float32_cannot_tell_apart(level: str, metric: str, name: str) -> None:
    codebook = hard_codebooks()[name]
    x = torch.randn(800, 24, generator=torch.Generator().manual_seed(6)) + 1000 * name.endswith("an ulp apart")
    x[::9] = codebook[::11][:89]
    rows = torch.arange(0, 800, 13)
    for k in (1, 3):
        truth.assert_nearest(nearest_code(x, codebook, metric=metric, k=k)[rows], x[rows], codebook, metric)


def test_differences_below_float32_within_a_cluster(level: str) -> None:
    """Every code of a cluster is the same distance from an input but for 1e-12 of it, less than float32 sums round."""
    generator = torch.Generator().manual_seed(8)
    k, d = 1000, 24
    offsets = torch.randint(-3, 4, (d,), generator=generator).float()
    offsets = torch.stack([offsets[torch.randperm(d, generator=generator)] for _ in range(k)]) * 2.0**-20
    centres = torch.randint(-2, 3, (2, d), generator=generator).float()
    codebook = centres[torch.arange(k) % 2] + offsets
    x = centres[torch.arange(800) % 2] + 3 + torch.randint(-2, 3, (800, d), generator=generator) * 2.0**-21
    found, rows = nearest_code(x, codebook), torch.arange(0, 800, 7)
    true = truth.scores(x[rows], codebook, "euclidean")
    assert (true.gather(1, found[rows, None])[:, 0] >= true.amax(1) - 2e-13).all()


@pytest.mark.parametrize("level", LEVELS, indirect=True)
def test_float_modes_of_the_caller_do_not_matter(level: str) -> None:
    """torch.set_flush_denormal changes what the processor does with tiny numbers; the answer stays."""
    x, codebook = torch.randn(50, 5) * 1e-40, torch.randn(60, 5) * 1e-40
    expected = nearest_code(x, codebook)
    truth.assert_nearest(expected, x, codebook, "euclidean")
    torch.set_flush_denormal(True)
    try:
        assert torch.equal(nearest_code(x, codebook), expected)
    finally:
        torch.set_flush_denormal(False)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak is read from /proc")
@pytest.mark.parametrize(("path", "clusters"), [("", 0), ("", 100), ("portable", 0)])
def test_extra_memory_is_bounded(path: str, clusters: int) -> None:
    """Less than 64 MB beyond the input, where the matrix of distances takes 1 GB and a copy of the codebook 64."""
    script = f"""
import re, torch
from pathlib import Path
from lexel.nearest import nearest_code
def kilobytes(name):
    return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text()).group(1))
codebook = torch.randn(2**18, 64)
if {clusters}:  # the lists of groups overflow, and the codes are sorted
    codebook.mul_(1e-3).add_(torch.randn({clusters}, 64).repeat(2**18 // {clusters} + 1, 1)[: 2**18])
x = codebook[:1024].clone()
nearest_code(x[:8], codebook[:100])
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
before = kilobytes("VmRSS")
nearest_code(x, codebook)
print((kilobytes("VmHWM") - before) / 1024)
"""
    environment = {**os.environ, "LEXEL_NEAREST": path}
    out = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert float(out.stdout) < 64
