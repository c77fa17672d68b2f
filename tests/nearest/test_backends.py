"""Which backend serves what, how one is chosen, and how one is added."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from lexel.nearest import _dispatch, _portable, available_backends, backend, nearest_code, use_backend
from lexel.nearest._interface import Backend

x, codebook = torch.randn(6, 3), torch.randn(5, 3)


def python(program: str, wanted: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LEXEL_NEAREST": wanted}
    return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("wanted", sorted({"portable", available_backends()[-2:][0]}))
def test_the_environment_chooses(wanted):
    program = """
import os, torch, lexel
os.environ["LEXEL_NEAREST"] = "abacus"  # too late: it was read
lexel.nearest_code(torch.randn(6, 3), torch.randn(5, 3))
print(lexel.nearest.backend(), lexel.nearest.backend("cuda"))
"""
    assert wanted in python(program, wanted).stdout


def test_a_backend_that_this_machine_does_not_have():
    program = "import torch, lexel; print('imported'); lexel.nearest_code(torch.randn(6, 3), torch.randn(5, 3))"
    found = python(program, "abacus")
    assert found.stdout == "imported\n"  # only a search needs a backend
    assert "ValueError: LEXEL_NEAREST=abacus: expected one of portable" in found.stderr
    before = backend()
    with pytest.raises(ValueError, match=r"name must be one of portable.*, not 'abacus'"), use_backend("abacus"):
        pass
    assert backend() == before


def test_backend_names_the_path(level):
    assert any(level in backend(device) for device in ("cpu", "cuda"))
    assert backend("meta") == "portable"


def test_without_the_library_the_portable_path_runs(monkeypatch):
    monkeypatch.setitem(
        _dispatch.BACKENDS, "cpu", replace(_dispatch.BACKENDS["cpu"], variants=(), missing=lambda: "no compiled kernel")
    )
    assert backend() == "portable (no compiled kernel)"
    assert available_backends() == ("portable",)
    assert torch.equal(nearest_code(x, x), torch.arange(6))


class Abacus:
    """A backend of few talents, which counts how often it is asked."""

    def __init__(self):
        self.calls = 0

    def search(self, x, codebook, metric, k, scores, variant):
        assert variant == "large"
        assert not x.requires_grad
        self.calls += 1
        return _portable.search(x, codebook, metric, k, scores)


@pytest.fixture
def abacus(monkeypatch):
    abacus = Abacus()
    entry = Backend(
        name="abacus",
        search=abacus.search,
        variants=("small", "large"),
        missing=str,
        dtypes=(torch.float64,),
        most_rows=6,
        most_neighbours=2,
    )
    monkeypatch.setitem(_dispatch.BACKENDS, "cpu", entry)
    return abacus


def test_a_line_in_the_table_adds_a_backend(abacus):
    assert backend() == "abacus: large"
    wide, codes = x.double().requires_grad_(), codebook.double()
    for options in ({}, {"k": 2, "return_scores": True}):
        abacus.calls = 0
        found = nearest_code(wide, codes, **options)
        torch.compiler.reset()
        compiled = torch.compile(nearest_code, fullgraph=True, backend="aot_eager")(wide, codes, **options)
        assert abacus.calls == 2
        torch.testing.assert_close(found, compiled, rtol=0, atol=0)
    with use_backend("portable"):
        nearest_code(wide, codes)
    assert abacus.calls == 2


@pytest.mark.parametrize(
    ("dtype", "rows", "codes", "k"),
    [
        (torch.float32, 6, 5, 1),
        (torch.float64, 7, 5, 1),
        (torch.float64, 6, 7, 1),
        (torch.float64, 6, 5, 3),
    ],
)
def test_what_a_backend_does_not_serve_is_searched_all_the_same(abacus, dtype, rows, codes, k):
    x, codebook = torch.randn(rows, 3, dtype=dtype), torch.randn(codes, 3, dtype=dtype)
    found = nearest_code(x, codebook, k=k)
    torch.compiler.reset()
    compiled = torch.compile(nearest_code, fullgraph=True, backend="aot_eager")(x, codebook, k=k)
    assert abacus.calls == 0
    assert torch.equal(found, compiled)


def test_a_compiled_graph_follows_the_choice(abacus):
    torch.compiler.reset()
    wide, codes = x.double(), codebook.double()
    compiled = torch.compile(nearest_code, fullgraph=True, backend="aot_eager")
    expected = compiled(wide, codes)
    with use_backend("portable"):
        assert torch.equal(compiled(wide, codes), expected)
    assert abacus.calls == 1


@pytest.mark.skipif(len(available_backends()) == 1, reason="no compiled kernel")
def test_the_operator_is_well_formed():
    for sample in [(x, codebook, "euclidean", 1, True), (x, x, "dot", 2, False)]:
        torch.library.opcheck(torch.ops.lexel.nearest_code.default, sample)
