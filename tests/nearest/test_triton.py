"""The kernels of the search on a GPU, in Triton's interpreter. With a GPU, test_exact.py runs them there."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from torch import Tensor

from lexel.nearest import _dispatch, backend, nearest_code, use_backend
from tests.nearest import truth

pytest.importorskip("triton", reason="triton is not installed")
if torch.cuda.is_available():
    pytest.skip("with a GPU, the other tests run these kernels there", allow_module_level=True)

from lexel.nearest import _triton

few = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture(autouse=True, params=["triton"])
def interpreted(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The kernels serve the tensors of the CPU."""
    entry = replace(_triton.BACKEND, variants=("triton_float32", "triton"), missing=str)
    monkeypatch.setitem(_dispatch.BACKENDS, "cpu", entry)
    with use_backend(request.param):
        yield


def normal(n: int, k: int, d: int, shift: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator) + shift, torch.randn(k, d, generator=generator) + shift


def check(x: Tensor, codebook: Tensor, metric: str = "euclidean", k: int = 1) -> None:
    truth.assert_nearest(nearest_code(x, codebook, metric=metric, k=k), x, codebook, metric)


@st.composite
def problems(draw: st.DrawFn) -> tuple[Tensor, Tensor, str, int]:
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    n, k = draw(st.sampled_from([0, 1, 13, 40])), draw(st.sampled_from([1, 3, 64, 130, 150]))
    d = draw(st.sampled_from([1, 2, 7, 20, 21, 48]))
    kind = draw(st.sampled_from(["normal", "clusters", "grid", "duplicates", "outliers"]))
    codebook, x = torch.randn(k, d, generator=generator), torch.randn(n, d, generator=generator)
    if kind == "clusters":
        codebook = codebook[torch.randint(0, max(1, k // 20), (k,), generator=generator)] + 1e-5 * codebook
    elif kind == "grid":
        codebook, x = codebook.round(), x.round()
    elif kind == "duplicates":
        codebook = codebook[torch.randint(0, max(1, k // 3), (k,), generator=generator)]
    elif kind == "outliers":
        codebook[:: max(1, k // 3)] *= 1e4
    halves = [draw(st.sampled_from([torch.float32, torch.float16, torch.bfloat16])) for _ in range(2)]
    if draw(st.booleans()):
        scale, shift = draw(st.sampled_from([1.0, 1e-30, 1e-41, 1e12, 1e30])), draw(st.sampled_from([0.0, 1e4]))
        x, codebook = (x + shift) * scale, (codebook + shift) * scale
    else:
        x, codebook = x.to(halves[0]), codebook.clamp(-6e4, 6e4).to(halves[1])
    if draw(st.booleans()):
        x, codebook = x.T.contiguous().T, torch.stack([codebook, -codebook], -1).flatten(1)[:, ::2]
    return x, codebook, draw(st.sampled_from(["euclidean", "cosine", "dot"])), draw(st.sampled_from([1, min(5, k)]))


@few
@given(problem=problems())
@pytest.mark.parametrize("interpreted", ["triton", "triton_float32"], indirect=True)
def test_agrees_with_brute_force(problem: tuple[Tensor, Tensor, str, int]) -> None:
    check(*problem)


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "dot"])
@pytest.mark.parametrize(("n", "k", "d"), [(20, 100, 150), (5, 40, 600), (40, 260, 64), (70, 150, 6)])
def test_sizes(metric: str, n: int, k: int, d: int) -> None:
    check(*normal(n, k, d), metric)


@pytest.mark.parametrize(("n", "codes", "d", "k"), [(5, 64, 20, 64), (8, 700, 6, 40), (10, 140, 150, 3)])
def test_several_nearest_codes(n: int, codes: int, d: int, k: int) -> None:
    for metric in ("euclidean", "cosine", "dot"):
        check(*normal(n, codes, d), metric, k)


def test_several_nearest_of_codes_that_no_list_holds() -> None:
    x, codebook = close_codes(32)
    check(x[:8], codebook.repeat(2, 1), k=8)  # 48 codes in a cluster, and a copy of each
    zeros = torch.zeros(100, 5)
    assert nearest_code(zeros[:3], zeros, k=4).tolist() == [[0, 1, 2, 3]] * 3


@pytest.mark.parametrize("unit", [1, 2, 4, 8])
@pytest.mark.parametrize("mode", ["single", "joint"])
def test_every_division_of_a_tile(unit: int, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    depth = 64 if mode == "single" else 32
    plan = _triton.Plan(mode, depth, depth, inputs=64, codes=128, warps=4, stages=2, unit=unit)
    monkeypatch.setattr(_triton, "plan", lambda *_: plan)
    check(*normal(40, 300, 40 if mode == "single" else 8))


@pytest.mark.parametrize(("step", "codes"), [(64, 256), (128, 64)])
def test_inputs_that_are_packed_beforehand(step: int, codes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = _triton.Plan("single", 128, step, inputs=64, codes=codes, warps=8, stages=2, unit=2, packed=True)
    monkeypatch.setattr(_triton, "plan", lambda *_: plan)
    for metric in ("euclidean", "dot"):
        check(*normal(40, 300, 100), metric)


def close_codes(d: int) -> tuple[Tensor, Tensor]:
    """Codes in clusters too close together for float16, so that no list holds them."""
    generator = torch.Generator().manual_seed(5)
    codebook = torch.randn(8, d, generator=generator).repeat(24, 1)
    codebook += 1e-4 * torch.randn(192, d, generator=generator)
    x = codebook[torch.randint(0, 192, (24,), generator=generator)] + 1e-5 * torch.randn(24, d, generator=generator)
    return x, codebook


@pytest.mark.parametrize("few_inputs", [0, 256])
@pytest.mark.parametrize("most", [1024, 4])
def test_inputs_that_no_list_holds(few_inputs: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("FEW", few_inputs), ("SMALL", 0), ("MOST", most)):
        monkeypatch.setattr(_triton, name, value)
    for metric in ("euclidean", "dot"):
        check(*close_codes(32), metric)


def test_parts_of_a_large_codebook_and_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_triton, "PACKED_CODES", 128 * 64 * 4)
    monkeypatch.setattr(_triton, "ROWS", 16)
    x, codebook = normal(40, 300, 40)
    codebook[200:260] = codebook[20:80]  # ties across the parts go to the first
    x[:9] = codebook[200:209]
    check(x, codebook)
    monkeypatch.setattr(_triton, "LISTS", 256)
    check(x[:9], codebook, k=5)
    check(x[:9], codebook[:258], "dot", k=5)  # the last part has fewer codes than that


@pytest.mark.parametrize(("d", "k", "most"), [(6, 1, 3), (30, 1, 1000), (140, 1, 5), (6, 3, 10)])
def test_positions_find_what_their_rows_find(d: int, k: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_triton, "ROWS", most)
    monkeypatch.setattr(_triton, "LISTS", most * _triton.capacity(k))
    x, codebook = normal(2 * 5, 40, d)
    rows = nearest_code(x, codebook, k=k, return_scores=True)
    first = x.reshape(2, 5, d).mT.contiguous()  # channels first
    for each in (first, torch.cat([first, first, first], 1)[:, d : 2 * d].unsqueeze(-1)):
        found = nearest_code(each.movedim(1, -1), codebook, k=k, return_scores=True)
        for one, expected in zip(found, rows, strict=True):
            assert torch.equal(one, expected.reshape(each.movedim(1, -1).shape[:-1] + (k,) * (k > 1)))


def test_a_device_that_adds_otherwise_multiplies_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _triton.products_are_sound(torch.device("cpu"))
    gamma = _triton._gamma
    with monkeypatch.context() as patch:
        patch.setattr(_triton, "_gamma", lambda depth, mode: gamma(depth, mode) / 1e4)
        assert not _triton._try_products(torch.device("cpu"))  # the trial can fail
    modes = []
    plan = _triton.plan
    monkeypatch.setitem(_triton._sound, torch.device("cpu"), False)
    monkeypatch.setattr(_triton, "plan", lambda *sizes: modes.append(plan(*sizes).mode) or plan(*sizes))
    check(*normal(20, 100, 30))
    assert modes == ["float"]


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_bad_numbers_are_named_and_forgotten(value: float) -> None:
    x, codebook = normal(20, 40, 30)
    for name, bad in (("x", (x.clone(), codebook)), ("codebook", (x, codebook.clone()))):
        bad[name == "codebook"][17, 29] = value
        for k in (1, 3):
            with pytest.raises(ValueError, match=f"^{name} contains NaN or infinity$"):
                nearest_code(*bad, k=k)
            check(x, codebook)


def test_what_it_says_of_itself() -> None:
    assert backend() == "cuda: triton"
    assert backend("cuda").startswith("portable (no ")
