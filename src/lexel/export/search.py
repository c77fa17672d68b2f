"""The nearest-code search as operators of ONNX, which chooses what the library chooses.

There are two passes, as everywhere in Lexel (docs/nearest-code-search.md), but both in float64. The first scores all
codes by a matrix product, some rows at a time, so that no `(N, K)` matrix is ever held, and compares the true scores of
the four best. Where a bound on its rounding cannot exclude that a fifth code is nearer, the second pass compares the
true scores of all codes.
"""

from collections.abc import Callable
from typing import Any

import torch
from onnxscript import INT64, graph, opset18 as op, script, values

__all__ = ["TRANSLATIONS"]

NEAREST = values.Opset("lexel", 1)
TILE = 1 << 20  # scores held at once, in float64


@script(NEAREST, default_opset=op)
def NearestCode(x, codebook, unit: int, euclidean: int, tile: int) -> INT64:  # noqa: N802
    """Return the index `(N,)` of the nearest code of each row of `x` `(N, D)`, the lowest on a tie.

    The true score of a row x and a code e is (x − t e) · (e − t x), larger is nearer: −‖x − e‖² with t = 1 for the
    distance, and x · e with t = 0 for the dot product; for the cosine it is divided by both lengths.
    """
    one = op.Constant(value_ints=[1])
    zero = op.Constant(value_ints=[0])
    t = op.Cast(op.Constant(value_int=euclidean), to=11)
    rows = op.Cast(x, to=11)
    wide = op.Cast(codebook, to=11)
    divided = op.Cast(op.Constant(value_int=unit), to=9)
    lengths = op.Sqrt(op.ReduceSumSquare(wide, one, keepdims=1))
    divisors = op.Where(op.And(lengths > 0.0, divided), lengths, 1.0)
    codes = wide / divisors
    count = op.Shape(codes, start=0, end=1)
    width = op.Cast(op.Shape(codes, start=1, end=2), to=11)

    # Centring all codes does not change the order of the scores, but lessens the rounding of their sums.
    centre = op.ReduceMean(codes, zero, keepdims=1)
    centred = codes - centre
    squares = op.ReduceSumSquare(centred, one, keepdims=0)
    columns = op.Transpose(centred, perm=[1, 0])
    bias = squares * t * -0.5
    norm = op.Sqrt(op.ReduceMax(squares, keepdims=0))
    keep = op.Min(count, op.Constant(value_ints=[4]))
    rounding = (width + 10.0) * 4.440892098500626e-16  # 2^-51

    total = op.Shape(rows, start=0, end=1)
    height = op.Max(op.Min(total, op.Constant(value_int=tile) / count), one)
    blocks = op.Max((total + height - one) / height, one)
    missing = op.Concat(zero, zero, blocks * height - total, zero, axis=0)
    padded = op.Pad(rows, missing)
    tiles = op.Reshape(padded, op.Concat(blocks, height, op.Constant(value_ints=[-1]), axis=0))

    @graph()
    def choose(own):
        shifted = own - t * centre
        best, candidates = op.TopK(op.MatMul(shifted, columns) + bias, keep)
        few = op.Gather(wide, candidates)
        each = op.Unsqueeze(own, one)
        products = op.ReduceSum((each - t * few) * (few - t * each), op.Constant(value_ints=[2]), keepdims=0)
        span = op.Sqrt(op.ReduceSumSquare(own, op.Constant(value_ints=[1]), keepdims=1))
        norms = op.Squeeze(op.Gather(divisors, candidates), [2]) * op.Where(op.And(span > 0.0, divided), span, 1.0)
        scores = products / norms
        highest = op.ReduceMax(scores, op.Constant(value_ints=[1]), keepdims=1)
        lowest = op.Where(op.Equal(scores, highest), candidates, op.Constant(value_int=9223372036854775807))
        found = op.ReduceMin(lowest, op.Constant(value_ints=[1]), keepdims=0)
        length = op.Sqrt(op.ReduceSumSquare(shifted, op.Constant(value_ints=[1]), keepdims=0))
        error = rounding * (norm * (length + norm) + t * length * length) + 1e-300
        first = op.Squeeze(op.Slice(best, [0], [1], [1]), [1])
        last = op.Squeeze(op.Slice(best, [-1], [9223372036854775807], [1]), [1])
        doubt = op.And(op.Not(last + error < first - error), count > keep)
        return found, doubt

    found, doubt = op.Scan(tiles, body=choose, num_scan_inputs=1)
    flat = op.Reshape(found, [-1])
    # Row 0 takes part in any case: then the second pass never runs over nothing.
    again = op.Concat(zero, op.Reshape(op.NonZero(op.Reshape(doubt, [-1])), [-1]), axis=0)

    @graph()
    def compare(own):
        products = op.ReduceSum((own - t * wide) * (wide - t * own), op.Constant(value_ints=[1]), keepdims=0)
        span = op.Sqrt(op.ReduceSumSquare(own, keepdims=0))
        scores = products / (op.Squeeze(divisors, [1]) * op.Where(op.And(span > 0.0, divided), span, 1.0))
        return op.ArgMax(scores, axis=0, keepdims=0, select_last_index=0)

    certain = op.Scan(op.Gather(padded, again), body=compare, num_scan_inputs=1)
    chosen = op.Slice(op.ScatterElements(flat, again, certain, axis=0), zero, total)
    # onnxruntime adds up rows in an order that depends on where they lie in memory: equal codes may score unequally.
    _, firsts, places, _ = op.Unique(codes, axis=0)
    return op.Gather(op.Gather(firsts, places), chosen)


def _nearest_code(x: Any, codebook: Any, metric: str, k: int, scores: bool) -> Any:
    """Translate the operator `lexel::nearest_code`, of one neighbour and without scores."""
    if k != 1 or scores:
        raise NotImplementedError("lexel::nearest_code of several neighbours, or with scores")
    found = NearestCode(x, codebook, unit=int(metric == "cosine"), euclidean=int(metric == "euclidean"), tile=TILE)
    return op.Unsqueeze(found, [1]), op.CastLike(op.ConstantOfShape(op.Constant(value_ints=[0, 1])), x)


TRANSLATIONS: dict[Any, Callable[..., Any]] = {torch.ops.lexel.nearest_code.default: _nearest_code}
