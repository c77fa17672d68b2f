"""Bad input, and what torch does around the search."""

import threading
import time

import pytest
import torch

from lexel.nearest import available_backends, nearest_code

good = torch.randn(6, 3)


@pytest.mark.parametrize(
    ("error", "words", "x", "codebook", "options"),
    [
        (ValueError, "3 dimensions and codebook has 4", good, torch.randn(5, 4), {}),
        (ValueError, "codebook is empty", good, torch.empty(0, 3), {}),
        (ValueError, "codebook is empty", torch.empty(6, 0), torch.empty(5, 0), {}),
        (ValueError, "x must be", good[0], good, {}),
        (ValueError, "codebook must be", good, good[None], {}),
        (TypeError, "x must be a floating tensor", good.long(), good, {}),
        (TypeError, "codebook must be a floating tensor", good, good.to(torch.complex64), {}),
        (TypeError, "x must be a floating tensor, not list", [[1.0]], good, {}),
        (TypeError, "metric must be one of", good, good, {"metric": "manhattan"}),
        (ValueError, "k must be between 1 and the 6 codes", good, good, {"k": 7}),
        (ValueError, "k must be between 1 and the 6 codes", good, good, {"k": 0}),
        (ValueError, "x is on meta", good.to("meta"), good, {}),
        (ValueError, "x contains NaN", good.where(good < good.max(), torch.nan), good, {}),
        (ValueError, "x contains NaN", good.where(good < good.max(), torch.inf), good, {"metric": "cosine"}),
        (ValueError, "codebook contains NaN", good, good.where(good < good.max(), -torch.inf), {"metric": "dot"}),
        (ValueError, "codebook contains NaN", good, good.where(good < good.max(), torch.nan), {"metric": "cosine"}),
        (ValueError, "codebook contains NaN", good, good.where(good < good.max(), torch.nan), {}),
    ],
)
def test_bad_input_is_named(path, error, words, x, codebook, options):
    with pytest.raises(error, match=words):
        nearest_code(x, codebook, **options)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("shape", [(2, 3, 4), (1, 5), (3, 0, 2), (2, 1, 1, 2), (0, 4)])
def test_inputs_at_positions_of_any_shape(level, shape, k):
    x, codebook = torch.randn(shape[0], 8, *shape[1:]).movedim(1, -1), torch.randn(20, 8)
    indices, scores = nearest_code(x, codebook, k=k, return_scores=True)
    rows = nearest_code(x.reshape(-1, 8), codebook, k=k, return_scores=True)
    assert indices.shape == scores.shape == (*shape, *[k] * (k > 1))
    assert torch.equal(indices, rows[0].reshape(indices.shape))
    assert torch.equal(scores, rows[1].reshape(scores.shape))
    assert torch.equal(nearest_code(x, codebook, k=k), indices)
    assert nearest_code(x.to("meta"), codebook.to("meta"), k=k).shape == indices.shape


@pytest.mark.parametrize("strict", [False, True])
def test_positions_compile_and_export(path, strict):
    torch.compiler.reset()
    finder, x = Finder(2), torch.randn(3, 8, 4).movedim(1, -1)
    expected = finder(x)
    compiled = torch.compile(finder, fullgraph=True, backend="aot_eager")
    program = torch.export.export(finder, (x,), dynamic_shapes=({0: torch.export.Dim("n")},), strict=strict)
    assert "lexel" not in str(program.graph)
    for found in (compiled, program.module()):
        assert all(map(torch.equal, found(x), expected))
        assert all(map(torch.equal, found(x[:2]), finder(x[:2])))


def search_and_hear_of_it(x, codebook, metric):
    """On a GPU nobody waits for the device: the error comes with a later search."""
    nearest_code(x, codebook, metric=metric)
    if x.is_cuda:
        torch.cuda.synchronize()
        nearest_code(torch.ones(2, 2, device=x.device), torch.ones(2, 2, device=x.device))


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "dot"])
@pytest.mark.parametrize("where", [(0, 0), (1999, 39), (1000, 20)])
def test_one_bad_number_anywhere(path, metric, where):
    x, codebook = torch.randn(2000, 40), torch.randn(2000, 40)
    spoiled = x.clone()
    spoiled[where] = torch.nan
    for words, some, codes in (("x", spoiled, codebook), ("codebook", x, spoiled)):
        with pytest.raises(ValueError, match=f"{words} contains"):
            search_and_hear_of_it(some, codes, metric)
    nearest_code(x, codebook)


def test_no_gradient_flows(path):
    x, codebook = torch.randn(4, 3, requires_grad=True), torch.randn(5, 3, requires_grad=True)
    indices, scores = nearest_code(x, codebook, return_scores=True)
    assert not indices.requires_grad
    assert not scores.requires_grad


def test_autocast_changes_nothing(path):
    x, codebook = torch.randn(500, 32), torch.randn(256, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = nearest_code(x, codebook)
    assert torch.equal(found, nearest_code(x, codebook))


class Finder(torch.nn.Module):
    def __init__(self, k):
        super().__init__()
        self.k = k
        self.codebook = torch.nn.Parameter(torch.randn(50, 8))

    def forward(self, x):
        indices, scores = nearest_code(x, self.codebook, k=self.k, return_scores=True)
        return self.codebook[indices], indices, scores


@pytest.mark.parametrize("k", [1, 3])
def test_compiles_in_one_graph(path, k):
    torch.compiler.reset()
    finder, x = Finder(k), torch.randn(40, 8)
    compiled = torch.compile(finder, fullgraph=True, backend="aot_eager")
    for rows in (x, x[:17]):
        for a, b in zip(compiled(rows), finder(rows), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("strict", [False, True])
def test_exports_without_the_native_operator(path, k, strict):
    finder, x = Finder(k), torch.randn(40, 8)
    program = torch.export.export(finder, (x,), dynamic_shapes=({0: torch.export.Dim("n")},), strict=strict)
    assert "lexel" not in str(program.graph)
    for rows in (x, x[:17]):
        assert torch.equal(program.module()(rows)[1], finder(rows)[1])


@pytest.mark.skipif(len(available_backends()) == 1, reason="no compiled kernel")
def test_other_python_threads_run_meanwhile():
    x, codebook = torch.randn(4096, 64), torch.randn(16384, 64)
    ticks, done = [], threading.Event()

    def tick():
        while not done.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.001)

    other = threading.Thread(target=tick)
    other.start()
    start = time.perf_counter()
    for _ in range(10):
        nearest_code(x, codebook)
    end = time.perf_counter()
    done.set()
    other.join()
    assert sum(start < t < end for t in ticks) > 10  # not one tick per call: those would be the gaps between calls
