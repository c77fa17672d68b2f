"""The Triton kernels of the nearest-code search; `_triton.py` calls them in this order.

    centre   a centre and a scale for all codes, from a sample of them
    pack     codes as float16 numbers, and the largest terms of the bound on the rounding of their products
             (`pack_inputs` does so with inputs that are too long for a program of `scan`)
    scan     all scores, tile by tile, of which each input keeps the few best; most inputs are settled here
    decide   inputs with several codes in their list: the one at the smallest true distance, and, for those that no
             list can hold, of all codes

For the k nearest codes two others follow upon `pack`:

    list_best   for each input the codes that may be among the k nearest
    sort_best   these by true distance, and, where a list does not hold them, all codes

Inputs are `(B, S, D)`, B batches of S rows, or rows `(N, D)` as batches of one: the strides say where each lies. Sizes
are not specialised, so that a batch of another size compiles nothing anew; strides are, and S is one of them.

Nothing of size (N, K) is written, and no kernel waits for the host: lists have their lengths in device memory.
docs/nearest-code-search.md derives the bound.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lexel._core._triton import offsets

# The counters that kernels share, an int32 each.
PENDING = tl.constexpr(0)  # inputs to decide
CROWDED = tl.constexpr(1)  # inputs whose list overflowed in the first scan
HARD = tl.constexpr(2)  # inputs to compare with all codes
MASK = tl.constexpr(8)  # behind them, for every lane: the bits of a score that are kept

# The flags that stay up until the host has seen them, in one int32.
BAD_CODES = tl.constexpr(1)  # the codebook contains NaN or infinity
BAD_INPUTS = tl.constexpr(2)  # x does

# The terms of the bound, a float32 each.
NORM = tl.constexpr(0)  # max |w|
RESIDUE = tl.constexpr(1)  # max |w - high|
FINE_RESIDUE = tl.constexpr(2)  # max |w - high - low|
LENGTH = tl.constexpr(3)  # max |scale e|
SCALE = tl.constexpr(4)

EUCLIDEAN = tl.constexpr(0)
COSINE = tl.constexpr(1)
DOT = tl.constexpr(2)

SINGLE = tl.constexpr(0)  # float16 numbers
SPLIT = tl.constexpr(1)  # a high and a low half, three products
JOINT = tl.constexpr(2)  # the same side by side in one product, with the bias, for few dimensions
FLOAT = tl.constexpr(3)  # float32 numbers

NONE = tl.constexpr(2147483647)  # no code
LOWEST = tl.constexpr(-1e5)  # of the scores of padding; a row whose scores are as low is compared in float64


@triton.jit
def _power_of_two(top):
    """The power of two that brings `top` near 1; 1 where it is 0."""
    exponent = (top.to(tl.int32, bitcast=True) >> 23) & 255
    scale = tl.minimum(tl.maximum(253 - exponent, 1), 254) << 23
    return tl.where(top > 0, scale.to(tl.float32, bitcast=True), 1.0)


@triton.jit(do_not_specialize=["K", "D", "units"])
def centre(
    codes, code_row, code_column, centres, tops, terms, counters, arrivals, K, D, units,
    METRIC: tl.constexpr, SAMPLE: tl.constexpr, MOST: tl.constexpr,
):  # fmt: skip
    """Take the mean of some codes as the centre, write how far they lie from it, and set all counters to zero."""
    if tl.program_id(0) == 0:
        place = tl.arange(0, 16)
        tl.store(counters + place, tl.where(place < MASK, 0, -units))
        tl.store(terms + tl.arange(0, 4), tl.zeros((4,), tl.float32))
        tl.store(arrivals + tl.arange(0, MOST), tl.zeros((MOST,), tl.int32))
    sample = tl.arange(0, SAMPLE)
    rows = ((sample.to(tl.int64) * K) // SAMPLE)[:, None] * code_row
    depth = tl.program_id(0) * 64 + tl.arange(0, 64)
    inside = (depth < D)[None, :]
    part = tl.load(codes + rows + depth.to(tl.int64)[None, :] * code_column, mask=inside, other=0.0).to(tl.float32)
    if METRIC == COSINE:
        middle = tl.zeros((64,), tl.float32)
    else:
        middle = tl.sum(part * (1.0 / SAMPLE), 0)
        middle = tl.where(tl.abs(middle) < float("inf"), middle, 0.0)  # a sum beyond float32, or NaN
    tl.store(centres + depth, middle, mask=depth < D)
    tl.store(tops + tl.program_id(0), tl.max(tl.max(tl.abs(part - middle[None, :]), 1), 0))


@triton.jit(do_not_specialize=["K", "D"])
def pack(
    codes, code_row, code_column, centres, tops, terms, flags, high, low, bias, K, D, P,
    METRIC: tl.constexpr, MODE: tl.constexpr, CODES: tl.constexpr, TOPS: tl.constexpr,
):  # fmt: skip
    """Write the codes as `scan` multiplies them, and the terms of the bound."""
    index = tl.program_id(0).to(tl.int64) * CODES + tl.arange(0, CODES)
    real = index < K
    rows = codes + index[:, None] * code_row
    if METRIC == COSINE:
        scale = 1.0
        square = tl.zeros((CODES,), tl.float64)
        for start in range(0, D, 64):
            depth = start + tl.arange(0, 64)
            inside = real[:, None] & (depth < D)[None, :]
            e = tl.load(rows + depth.to(tl.int64)[None, :] * code_column, mask=inside, other=0.0).to(tl.float64)
            square += tl.sum(e * e, 1)
        norm = tl.sqrt(square)
        inverse = tl.where(norm > 0, 1.0 / tl.where(norm > 0, norm, 1.0), 0.0)
    else:
        part = tl.arange(0, TOPS)
        scale = _power_of_two(tl.max(tl.load(tops + part, mask=part * 64 < D, other=0.0), 0))
        if tl.program_id(0) == 0:
            tl.store(terms + SCALE, scale)
    square = tl.zeros((CODES,), tl.float64)  # |w|^2
    length = tl.zeros((CODES,), tl.float64)  # |scale e|^2
    residue = tl.zeros((CODES,), tl.float64)
    fine = tl.zeros((CODES,), tl.float64)
    bad = 0
    for start in range(0, P, 64):
        depth = start + tl.arange(0, 64)
        inside = real[:, None] & (depth < D)[None, :]
        e = tl.load(rows + depth.to(tl.int64)[None, :] * code_column, mask=inside, other=0.0).to(tl.float32)
        bad = tl.maximum(bad, tl.max(tl.max(tl.where(tl.abs(e) < float("inf"), 0, 1), 1), 0))
        if METRIC == COSINE:
            w = (e.to(tl.float64) * inverse[:, None]).to(tl.float32)
            length += tl.sum(w.to(tl.float64) * w.to(tl.float64), 1)
        else:
            c = tl.load(centres + depth, mask=depth < D, other=0.0)
            w = tl.where(inside, (e - c[None, :]) * scale, 0.0)
            length += tl.sum((e * scale).to(tl.float64) * (e * scale).to(tl.float64), 1)
        square += tl.sum(w.to(tl.float64) * w.to(tl.float64), 1)
        place = index[:, None] * P + depth[None, :]
        stored = (depth < P)[None, :]
        if MODE == FLOAT:
            tl.store(high + place, w, mask=stored)
        else:
            half = w.to(tl.float16)
            rest = w - half.to(tl.float32)
            lower = rest.to(tl.float16)
            finer = rest - lower.to(tl.float32)
            residue += tl.sum(rest.to(tl.float64) * rest.to(tl.float64), 1)
            fine += tl.sum(finer.to(tl.float64) * finer.to(tl.float64), 1)
            if MODE == JOINT:  # high, low, high, and the three pieces of the bias
                tl.store(high + place, half, mask=inside)
                tl.store(high + place + D, lower, mask=inside)
                tl.store(high + place + 2 * D, half, mask=inside)
            else:
                tl.store(high + place, half, mask=stored)
                tl.store(low + place, lower, mask=stored)
    if METRIC == EUCLIDEAN:
        offset = (-0.5 * square).to(tl.float32)
    else:
        offset = tl.zeros((CODES,), tl.float32)
    if MODE == JOINT:
        offset = tl.where(real, offset, 3 * LOWEST)
        last = high + index * P + 3 * D
        for piece in tl.static_range(3):
            clipped = tl.minimum(tl.maximum(offset, -65504.0), 65504.0).to(tl.float16)
            tl.store(last + piece, clipped)
            offset -= clipped.to(tl.float32)
        # No bound is right for a code whose bias three pieces do not hold; `scan` allows for their last bit.
        lost = tl.max(tl.where(real & (tl.abs(offset) > 1.2e-7), 1, 0), 0)
        square = tl.where(lost > 0, float("inf"), square)
    else:
        tl.store(bias + index, tl.where(real, offset, -1e38))
    tl.atomic_max(terms + NORM, tl.max(tl.sqrt(square), 0).to(tl.float32) * 1.000001)
    tl.atomic_max(terms + RESIDUE, tl.max(tl.sqrt(residue), 0).to(tl.float32) * 1.000001)
    tl.atomic_max(terms + FINE_RESIDUE, tl.max(tl.sqrt(fine), 0).to(tl.float32) * 1.000001)
    tl.atomic_max(terms + LENGTH, tl.max(tl.sqrt(length), 0).to(tl.float32) * 1.000001)
    if bad > 0:
        tl.atomic_or(flags, BAD_CODES)


@triton.jit
def _halves(scores, INPUTS: tl.constexpr, COUNT: tl.constexpr, LANES: tl.constexpr):
    """Scores `(INPUTS, COUNT, LANES)` as two of `(INPUTS, COUNT / 2, LANES)`."""
    return tl.split(tl.permute(tl.reshape(scores, (INPUTS, COUNT // 2, 2, LANES)), (0, 1, 3, 2)))


@triton.jit
def _two_best(scores, INPUTS: tl.constexpr, COUNT: tl.constexpr, LEVELS: tl.constexpr, LANES: tl.constexpr):
    """The two largest of `COUNT` = 2^`LEVELS` scores of every lane."""
    one, two = _halves(scores, INPUTS, COUNT, LANES)
    best, second = tl.maximum(one, two), tl.minimum(one, two)
    for level in tl.static_range(1, LEVELS):
        one, two = _halves(best, INPUTS, COUNT >> level, LANES)
        third, fourth = _halves(second, INPUTS, COUNT >> level, LANES)
        best = tl.maximum(one, two)
        second = tl.maximum(tl.minimum(one, two), tl.maximum(third, fourth))
    return tl.reshape(best, (INPUTS, LANES)), tl.reshape(second, (INPUTS, LANES))


@triton.jit
def _append(counters, which: tl.constexpr, chosen):
    """Take places in a list for the rows that are chosen."""
    ones = chosen.to(tl.int32)
    first = tl.atomic_add(counters + which, tl.sum(ones, 0))
    return first + tl.cumsum(ones, 0) - 1


@triton.jit
def _inputs(x, rows, x_column, centres, scale, depth, real, D, METRIC: tl.constexpr):
    """Numbers of the inputs `(ROWS, depth)`, centred and scaled, and 1 for the rows with NaN or infinity."""
    inside = real[:, None] & (depth < D)[None, :]
    v = tl.load(x + rows[:, None] + depth.to(tl.int64)[None, :] * x_column, mask=inside, other=0.0).to(tl.float32)
    finite = tl.abs(v) < float("inf")
    if METRIC == EUCLIDEAN:
        c = tl.load(centres + depth, mask=depth < D, other=0.0)
        v = tl.where(inside, v - c[None, :], 0.0)
    return v * scale, tl.max(tl.where(finite, 0, 1), 1)


@triton.jit
def _square_left_out(v, MODE: tl.constexpr):
    """The squared length of what the packed numbers of each input leave out."""
    rest = v - v.to(tl.float16).to(tl.float32)
    if MODE == FLOAT:
        rest = v * 0.0
    elif MODE != SINGLE:
        rest -= rest.to(tl.float16).to(tl.float32)
    return tl.sum(rest * rest, 1)


@triton.jit
def _packed_inputs(x, rows, x_column, centres, scales, column, real, D, METRIC: tl.constexpr, MODE: tl.constexpr):
    """The numbers of the inputs that are multiplied with these columns of the packed codes."""
    if MODE == JOINT:  # high, high, low, and three ones for the pieces of the bias
        section = column // D
        depth = tl.where(section < 3, column % D, D)
        v, _ = _inputs(x, rows, x_column, centres, scales, depth, real, D, METRIC)
        half = v.to(tl.float16)
        lower = (v - half.to(tl.float32)).to(tl.float16)
        half = tl.where((section < 2)[None, :], half, lower)
        ones = (column >= 3 * D) & (column < 3 * D + 3)
        return tl.where(ones[None, :], 1.0, half.to(tl.float32)).to(tl.float16)
    v, _ = _inputs(x, rows, x_column, centres, scales, column, real, D, METRIC)
    return v.to(tl.float16)


@triton.jit
def _error(length, residue, terms, counters, gamma, wide_epsilon, MODE: tl.constexpr):
    """The bound for inputs of these squared lengths, of whose numbers `residue` is left out."""
    length = tl.sqrt(length) + 1e-18
    residue = tl.sqrt(residue) + 1e-18
    norm = tl.load(terms + NORM)
    if MODE == FLOAT:
        left_out = 0.0
    elif MODE == SINGLE:
        left_out = tl.load(terms + RESIDUE)
    else:
        left_out = tl.load(terms + FINE_RESIDUE) + 2.4e-7 * norm
    unit: tl.constexpr = 5.97e-8
    error = (residue + (gamma + 6 * unit) * length) * norm + length * left_out
    error += (gamma + 8 * unit) * norm * norm + wide_epsilon * (length * length + length * tl.load(terms + LENGTH))
    # The last bits of a score are cleared, and a unit's place stands there.
    error += -tl.load(counters + MASK) * 1.3e-7 * norm * (length + norm)
    error = 1.05 * error + 1e-30
    if MODE == JOINT:
        error += 1.5e-7
    return error


@triton.jit(do_not_specialize=["N", "D"])
def pack_inputs(
    x, S, x_batch, x_row, x_column, centres, terms, counters, packed, errors, N, D, P, gamma, wide_epsilon,
    METRIC: tl.constexpr, INPUTS: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """Write the inputs as float16 numbers and the bound of each, where a program of `scan` cannot hold a whole row.

    The bound is -1 where an input has NaN or infinity.
    """
    place = tl.program_id(0).to(tl.int64) * INPUTS + tl.arange(0, INPUTS)
    real = place < N
    rows = offsets(0, place.to(tl.int32), S, x_batch, x_row)
    scales = _scales(x, rows, x_column, terms, real, D, METRIC, INPUTS, STEP)
    length = tl.zeros((INPUTS,), tl.float32)
    residue = tl.zeros((INPUTS,), tl.float32)
    wrong = tl.zeros((INPUTS,), tl.int32)
    for start in range(0, P, STEP):
        depth = start + tl.arange(0, STEP)
        v, bad = _inputs(x, rows, x_column, centres, scales, depth, real, D, METRIC)
        wrong = tl.maximum(wrong, bad)
        length += tl.sum(v * v, 1)
        residue += _square_left_out(v, SINGLE)
        tl.store(
            packed + place[:, None] * P + depth[None, :], v.to(tl.float16), mask=real[:, None] & (depth < P)[None, :]
        )
    error = _error(length, residue, terms, counters, gamma, wide_epsilon, SINGLE)
    tl.store(errors + place, tl.where(wrong > 0, -1.0, error), mask=real)


@triton.jit
def _scales(x, rows, x_column, terms, real, D, METRIC: tl.constexpr, INPUTS: tl.constexpr, STEP: tl.constexpr):
    """Return the scale of every input, `(INPUTS, 1)`."""
    if METRIC == EUCLIDEAN:
        return tl.zeros((INPUTS, 1), tl.float32) + tl.load(terms + SCALE)
    # A scale of its own for each row does not change the order of its scores.
    top = tl.zeros((INPUTS,), tl.float32)
    for start in range(0, D, STEP):
        v, _ = _inputs(x, rows, x_column, terms, 1.0, start + tl.arange(0, STEP), real, D, METRIC)
        top = tl.maximum(top, tl.max(tl.abs(v), 1))
    return _power_of_two(top)[:, None]


@triton.jit
def _keep(
    scores, tile, mask, best, second, others, best_tile, second_tile,
    INPUTS: tl.constexpr, CODES: tl.constexpr, LANES: tl.constexpr, UNIT: tl.constexpr, LEVELS: tl.constexpr,
):  # fmt: skip
    """Keep, for every input and lane, the best units of two tiles, and the score of the best of all others."""
    UNITS: tl.constexpr = CODES // LANES // UNIT
    if UNIT > 1:
        scores = tl.max(tl.reshape(scores, (INPUTS, UNITS, UNIT, LANES)), 2)
    else:
        scores = tl.reshape(scores, (INPUTS, UNITS, LANES))
    # The unit's place in the tile stands in the last bits of its score.
    bits = (scores.to(tl.int32, bitcast=True) & mask) | tl.arange(0, UNITS)[None, :, None]
    top, next_ = _two_best(bits.to(tl.float32, bitcast=True), INPUTS, UNITS, LEVELS, LANES)
    is_best = top > best
    is_second = top > second
    others = tl.maximum(others, tl.maximum(next_, tl.minimum(second, top)))
    second_tile = tl.where(is_best, best_tile, tl.where(is_second, tile, second_tile))
    second = tl.maximum(second, tl.minimum(best, top))
    best_tile = tl.where(is_best, tile, best_tile)
    best = tl.maximum(best, top)
    return best, second, others, best_tile, second_tile


@triton.jit
def _bound(
    x, rows, x_column, centres, scales, terms, counters, real, D, gamma, wide_epsilon,
    METRIC: tl.constexpr, MODE: tl.constexpr, INPUTS: tl.constexpr, P: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """The bound on the rounding of every input's scores, 1 for inputs with NaN or infinity, and their first numbers.

    Those are all numbers where a program holds whole inputs.
    """
    v, wrong = _inputs(x, rows, x_column, centres, scales, tl.arange(0, STEP), real, D, METRIC)
    length = tl.sum(v * v, 1)
    residue = _square_left_out(v, MODE)
    if STEP < P:
        for start in range(STEP, D, STEP):
            part, bad = _inputs(x, rows, x_column, centres, scales, start + tl.arange(0, STEP), real, D, METRIC)
            wrong = tl.maximum(wrong, bad)
            length += tl.sum(part * part, 1)
            residue += _square_left_out(part, MODE)
    return _error(length, residue, terms, counters, gamma, wide_epsilon, MODE), wrong, v


@triton.jit
def _halves_of_inputs(
    x, rows, x_column, centres, scales, v, real, D, METRIC: tl.constexpr, MODE: tl.constexpr, P: tl.constexpr
):
    """What is multiplied with packed codes of whole inputs `v`, and for `SPLIT` their low halves."""
    if MODE == JOINT:
        packed = _packed_inputs(x, rows, x_column, centres, scales, tl.arange(0, P), real, D, METRIC, MODE)
        lower = packed
    elif MODE == FLOAT:
        packed = v
        lower = v
    else:
        packed = v.to(tl.float16)
        lower = (v - packed.to(tl.float32)).to(tl.float16)
    return packed, lower


@triton.jit
def _tile_scores(
    x, rows, x_column, centres, scales, packed_inputs, place, packed, lower, high, low, bias, tile, real, D,
    METRIC: tl.constexpr, MODE: tl.constexpr, INPUTS: tl.constexpr, CODES: tl.constexpr, P: tl.constexpr,
    STEP: tl.constexpr,
):  # fmt: skip
    """The scores of the codes of a tile, `(INPUTS, CODES)`."""
    code = tile * CODES + tl.arange(0, CODES)  # packed codes hold fewer than 2^31 numbers
    if STEP == P:
        w_place = code[None, :] * P + tl.arange(0, P)[:, None]
        w = tl.load(high + w_place)
        if MODE == FLOAT:
            scores = tl.dot(packed, w, input_precision="ieee")
        else:
            scores = tl.dot(packed, w)
            if MODE == SPLIT:
                scores = tl.dot(lower, w, scores)
                scores = tl.dot(packed, tl.load(low + w_place), scores)
    else:
        scores = tl.zeros((INPUTS, CODES), tl.float32)
        for start in range(0, P, STEP):
            depth = start + tl.arange(0, STEP)
            w_place = code[None, :] * P + depth[:, None]
            w = tl.load(high + w_place)
            if MODE == SINGLE:
                part = tl.load(packed_inputs + place[:, None] * P + depth[None, :], mask=real[:, None], other=0.0)
                scores = tl.dot(part, w, scores)
            else:
                v, _ = _inputs(x, rows, x_column, centres, scales, depth, real, D, METRIC)
                if MODE == FLOAT:
                    scores = tl.dot(v, w, scores, input_precision="ieee")
                else:
                    part = v.to(tl.float16)
                    scores = tl.dot(part, w, scores)
                    scores = tl.dot((v - part.to(tl.float32)).to(tl.float16), w, scores)
                    scores = tl.dot(part, tl.load(low + w_place), scores)
    if MODE != JOINT:
        scores += tl.load(bias + code)[None, :]
    return scores


@triton.jit(do_not_specialize=["N", "tiles", "D", "few"])
def scan(
    x, S, x_batch, x_row, x_column, centres, terms, counters, flags, packed_inputs, errors, high, low, bias,
    rows_in, indices, pending, sizes, candidates, overflow,
    N, tiles, D, gamma, wide_epsilon, few,
    P: tl.constexpr, METRIC: tl.constexpr, MODE: tl.constexpr, UNIT: tl.constexpr, LISTED: tl.constexpr,
    INPUTS: tl.constexpr, CODES: tl.constexpr, LANES: tl.constexpr, LEVELS: tl.constexpr, STEP: tl.constexpr,
    PACKED: tl.constexpr,
):  # fmt: skip
    """Scan all codes for a block of inputs.

    Codes of a tile are dealt out to `LANES` lanes, `UNIT` of each lane at a time. A unit's score is that of its best
    code, with the unit's place in the tile in its last bits. Every input keeps, for every lane, the best units of two
    tiles and the score of the best of all others. `LISTED`: the inputs are those of the list `rows_in`; `PACKED`: they
    were written by `pack_inputs`.
    """
    if LISTED:
        N = tl.load(counters + CROWDED)
        # So few are compared with all codes at once: a block that scans alone would hold up the rest.
        if N <= few:
            return
    if tl.program_id(0) * INPUTS >= N:
        return
    place = tl.program_id(0).to(tl.int64) * INPUTS + tl.arange(0, INPUTS)
    real = place < N
    if LISTED:
        row = tl.load(rows_in + place, mask=real, other=0)
    else:
        row = place.to(tl.int32)
    rows = offsets(0, row, S, x_batch, x_row)
    WHOLE: tl.constexpr = STEP == P
    BLOCK: tl.constexpr = UNIT * LANES
    WIDTH: tl.constexpr = CODES if CODES < 128 else 128  # codes that are looked at together
    UNITS: tl.constexpr = WIDTH // BLOCK

    if PACKED:
        error = tl.load(errors + place, mask=real, other=0.0)
        wrong = (error < 0).to(tl.int32)
        scales = error[:, None]
        packed = error[:, None]
        if STEP == P:
            whole = place[:, None] * P + tl.arange(0, P)[None, :]
            packed = tl.load(packed_inputs + whole, mask=real[:, None], other=0.0)
        lower = packed
    else:
        scales = _scales(x, rows, x_column, terms, real, D, METRIC, INPUTS, 32)
        error, wrong, v = _bound(
            x, rows, x_column, centres, scales, terms, counters, real, D, gamma, wide_epsilon,
            METRIC, MODE, INPUTS, P, STEP,
        )  # fmt: skip
        packed, lower = _halves_of_inputs(x, rows, x_column, centres, scales, v, real, D, METRIC, MODE, P)

    best = tl.full((INPUTS, LANES), -3e38, tl.float32)
    second = tl.full((INPUTS, LANES), -3e38, tl.float32)
    others = tl.full((INPUTS, LANES), -3e38, tl.float32)
    best_tile = tl.zeros((INPUTS, LANES), tl.int32)
    second_tile = tl.zeros((INPUTS, LANES), tl.int32)
    code = tl.arange(0, CODES)
    # Loaded from memory, since the compiler makes two operations of (bits & constant) | constant.
    mask = tl.load(counters + MASK + tl.arange(0, LANES))[None, None, :]
    STEPS: tl.constexpr = P // STEP
    if MODE == SINGLE and not WHOLE:  # one loop, so that the loads of the next tile come ahead of time
        scores = tl.zeros((INPUTS, CODES), tl.float32)
        for turn in range(0, tiles * STEPS):
            tile = turn // STEPS
            depth = (turn % STEPS) * STEP + tl.arange(0, STEP)
            part = tl.load(packed_inputs + place[:, None] * P + depth[None, :], mask=real[:, None], other=0.0)
            w = tl.load(high + (tile * CODES + code)[None, :] * P + depth[:, None])
            scores = tl.dot(part, w, scores)
            if turn % STEPS == STEPS - 1:
                scores += tl.load(bias + tile * CODES + code)[None, :]
                if CODES > WIDTH:
                    one, two = tl.split(tl.permute(tl.reshape(scores, (INPUTS, 2, WIDTH)), (0, 2, 1)))
                    best, second, others, best_tile, second_tile = _keep(
                        one, 2 * tile, mask, best, second, others, best_tile, second_tile,
                        INPUTS, WIDTH, LANES, UNIT, LEVELS,
                    )  # fmt: skip
                    best, second, others, best_tile, second_tile = _keep(
                        two, 2 * tile + 1, mask, best, second, others, best_tile, second_tile,
                        INPUTS, WIDTH, LANES, UNIT, LEVELS,
                    )  # fmt: skip
                else:
                    best, second, others, best_tile, second_tile = _keep(
                        scores, tile, mask, best, second, others, best_tile, second_tile,
                        INPUTS, WIDTH, LANES, UNIT, LEVELS,
                    )  # fmt: skip
                scores = tl.zeros((INPUTS, CODES), tl.float32)
    else:
        for tile in range(0, tiles):
            scores = _tile_scores(
                x, rows, x_column, centres, scales, packed_inputs, place, packed, lower, high, low, bias, tile, real, D,
                METRIC, MODE, INPUTS, CODES, P, STEP,
            )  # fmt: skip
            best, second, others, best_tile, second_tile = _keep(
                scores, tile, mask, best, second, others, best_tile, second_tile, INPUTS, CODES, LANES, UNIT, LEVELS
            )

    # Which units may hold the nearest code?
    highest = tl.max(best, 1)
    least = highest - error
    listed = best + error[:, None] >= least[:, None]
    also_listed = second + error[:, None] >= least[:, None]
    unknown = tl.max((others + error[:, None] >= least[:, None]).to(tl.int32), 1)
    sound = (least > LOWEST) & (error < 1e4)  # not NaN either
    if MODE != JOINT:
        sound = (least > -1e37) & (error < 1e37)
    found = tl.sum(listed.to(tl.int32), 1) + tl.sum(also_listed.to(tl.int32), 1)
    lane = tl.arange(0, LANES)[None, :]
    place_of_best = best.to(tl.int32, bitcast=True) & (UNITS - 1)
    place_of_second = second.to(tl.int32, bitcast=True) & (UNITS - 1)
    first_code = best_tile * WIDTH + place_of_best * BLOCK + lane
    second_code = second_tile * WIDTH + place_of_second * BLOCK + lane
    listable = sound & (unknown == 0)
    settled = listable & (found == 1)
    answer = tl.max(tl.where(best == highest[:, None], first_code, 0), 1)
    if UNIT > 1:
        if LISTED:
            settled = settled & False
        else:  # which code of the unit?
            members = answer[:, None] + tl.arange(0, UNIT)[None, :] * LANES
            values = tl.zeros((INPUTS, UNIT), tl.float32)
            for start in range(0, P, 16):
                column = start + tl.arange(0, 16)
                if PACKED:
                    beside = place[:, None] * P + column[None, :]
                    few_inputs = tl.load(packed_inputs + beside, mask=real[:, None], other=0.0)
                else:
                    few_inputs = _packed_inputs(x, rows, x_column, centres, scales, column, real, D, METRIC, MODE)
                few_codes = tl.load(high + members[:, :, None] * P + column[None, None, :])
                values += tl.sum(few_inputs.to(tl.float32)[:, None, :] * few_codes.to(tl.float32), 2)
            if MODE != JOINT:
                values += tl.load(bias + members)
            top = tl.max(values, 1)
            close = values + error[:, None] >= (top - error)[:, None]
            settled = settled & (tl.sum(close.to(tl.int32), 1) == 1)
            answer = tl.max(tl.where(close, members, 0), 1)
    settled = settled | (wrong > 0)
    answer = tl.where(wrong > 0, 0, answer)
    tl.store(indices + row, answer.to(tl.int64), mask=real & settled)

    todo = real & (settled == 0) & listable
    if tl.max(todo.to(tl.int32), 0) > 0:
        slot = _append(counters, PENDING, todo)
        tl.store(pending + slot, row, mask=todo)
        tl.store(sizes + slot, found, mask=todo)
        entry = candidates + slot.to(tl.int64)[:, None] * (2 * LANES) - 1
        before = tl.sum(listed.to(tl.int32), 1)[:, None]
        tl.store(entry + tl.cumsum(listed.to(tl.int32), 1), first_code, mask=todo[:, None] & listed)
        behind = before + tl.cumsum(also_listed.to(tl.int32), 1)
        tl.store(entry + behind, second_code, mask=todo[:, None] & also_listed)

    crowded = real & (settled == 0) & (listable == 0)
    if tl.max(crowded.to(tl.int32), 0) > 0:
        if LISTED or MODE == JOINT or MODE == FLOAT:
            slot = _append(counters, HARD, crowded)
        else:
            slot = _append(counters, CROWDED, crowded)
        tl.store(overflow + slot, row, mask=crowded)
    if tl.max(tl.where(real, wrong, 0), 0) > 0:
        tl.atomic_or(flags, BAD_INPUTS)


@triton.jit
def _true_scores(
    x,
    rows,
    x_column,
    codes,
    code_rows,
    code_column,
    valid,
    D,
    METRIC: tl.constexpr,
    PAIRS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """The negative squared distance, the cosine times the input's length, or the product, in float64, of pairs."""
    square = tl.zeros((PAIRS,), tl.float64)
    product = tl.zeros((PAIRS,), tl.float64)
    for start in range(0, D, DEPTH):
        depth = start + tl.arange(0, DEPTH)
        inside = valid[:, None] & (depth < D)[None, :]
        wide = depth.to(tl.int64)[None, :]
        v = tl.load(x + rows[:, None] + wide * x_column, mask=inside, other=0.0).to(tl.float64)
        e = tl.load(codes + code_rows[:, None] + wide * code_column, mask=inside, other=0.0).to(tl.float64)
        if METRIC == EUCLIDEAN:
            square += tl.sum((v - e) * (v - e), 1)
        else:
            product += tl.sum(v * e, 1)
            if METRIC == COSINE:
                square += tl.sum(e * e, 1)
    if METRIC == EUCLIDEAN:
        return -square
    if METRIC == COSINE:
        return tl.where(square > 0, product / tl.sqrt(tl.where(square > 0, square, 1.0)), 0.0)
    return product


@triton.jit(do_not_specialize=["K", "D", "few", "most", "chunk", "chunks"])
def decide(
    x, S, x_batch, x_row, x_column, codes, code_row, code_column, counters, pending, sizes, candidates,
    crowded, hard, indices, values, places, arrivals,
    K, D, few, most, chunk, chunks,
    METRIC: tl.constexpr, PAIRS: tl.constexpr, DEPTH: tl.constexpr, UNIT: tl.constexpr, LANES: tl.constexpr,
    CHUNKS: tl.constexpr,
):  # fmt: skip
    """Decide the inputs with several candidates, and compare those whose list overflowed with all codes.

    If those are few, many programs share each of them, and the last to arrive puts their findings together.
    """
    total = tl.load(counters + PENDING)
    BLOCK: tl.constexpr = PAIRS // UNIT
    pair = tl.arange(0, PAIRS)
    member = (pair % UNIT) * LANES
    for block in range(tl.program_id(0), tl.cdiv(total, BLOCK), tl.num_programs(0)):
        slot = block * BLOCK + pair // UNIT
        real = slot < total
        row = tl.load(pending + slot, mask=real, other=0)
        rows = offsets(0, row, S, x_batch, x_row)
        size = tl.load(sizes + slot, mask=real, other=0)
        best = tl.full((PAIRS,), float("-inf"), tl.float64)
        best_code = tl.full((PAIRS,), NONE, tl.int32)
        for place in range(tl.max(size, 0)):
            valid = place < size
            code = tl.load(candidates + slot.to(tl.int64) * (2 * LANES) + place, mask=valid, other=0) + member
            valid = valid & (code < K)
            score = _true_scores(
                x, rows, x_column, codes, code.to(tl.int64) * code_row, code_column, valid, D, METRIC, PAIRS, DEPTH
            )
            better = valid & ((score > best) | ((score == best) & (code < best_code)))
            best_code = tl.where(better, code, best_code)
            best = tl.where(better, score, best)
        if UNIT > 1:
            best = tl.reshape(best, (BLOCK, UNIT))
            best_code = tl.where(best == tl.max(best, 1)[:, None], tl.reshape(best_code, (BLOCK, UNIT)), NONE)
            best_code = tl.min(best_code, 1)
            slot = block * BLOCK + tl.arange(0, BLOCK)
            real = slot < total
            row = tl.load(pending + slot, mask=real, other=0)
        tl.store(indices + row, tl.minimum(best_code, K - 1).to(tl.int64), mask=real)

    first_list = tl.load(counters + CROWDED)
    if first_list > few:  # they were scanned again
        first_list = 0
    total = first_list + tl.load(counters + HARD)
    shared = total <= most
    tasks = total
    if shared:
        tasks = total * chunks
    for task in range(tl.program_id(0), tasks, tl.num_programs(0)):
        slot = task
        start = 0
        end = K
        if shared:
            slot = task // chunks
            start = (task % chunks) * chunk
            end = tl.minimum(start + chunk, K)
        if slot < first_list:
            row = tl.load(crowded + slot)
        else:
            row = tl.load(hard + slot - first_list)
        rows = tl.zeros((PAIRS,), tl.int64) + offsets(0, row, S, x_batch, x_row)
        best = tl.full((PAIRS,), float("-inf"), tl.float64)
        best_code = tl.full((PAIRS,), NONE, tl.int32)
        for part in range(start, end, PAIRS):
            code = part + pair
            valid = code < end
            score = _true_scores(
                x, rows, x_column, codes, code.to(tl.int64) * code_row, code_column, valid, D, METRIC, PAIRS, DEPTH
            )
            better = valid & ((score > best) | (best_code == NONE))
            best_code = tl.where(better, code, best_code)
            best = tl.where(better, score, best)
        top = tl.max(best, 0)
        answer = tl.min(tl.where(best == top, best_code, NONE), 0)
        arrived = chunks
        if shared:
            tl.store(values + task, top)
            tl.store(places + task, answer)
            tl.debug_barrier()  # all is written before the arrival counts
            arrived = tl.atomic_add(arrivals + slot, 1, sem="acq_rel") + 1
            if arrived == chunks:
                found = slot * chunks + tl.arange(0, CHUNKS)
                here = tl.arange(0, CHUNKS) < chunks
                value = tl.load(values + found, mask=here, other=float("-inf"), cache_modifier=".cg")
                found_code = tl.load(places + found, mask=here, other=NONE, cache_modifier=".cg")
                answer = tl.min(tl.where(value == tl.max(value, 0), found_code, NONE), 0)
        if arrived == chunks:
            tl.store(indices + row, tl.minimum(answer, K - 1).to(tl.int64))


@triton.jit(do_not_specialize=["N", "tiles", "D", "k"])
def list_best(
    x, S, x_batch, x_row, x_column, centres, terms, counters, flags, packed_inputs, errors, high, low, bias,
    sizes, candidates, N, tiles, D, gamma, wide_epsilon, k,
    P: tl.constexpr, METRIC: tl.constexpr, MODE: tl.constexpr, INPUTS: tl.constexpr, CODES: tl.constexpr,
    STEP: tl.constexpr, PACKED: tl.constexpr, GROUPS: tl.constexpr, CAPACITY: tl.constexpr,
):  # fmt: skip
    """List all codes that may be among the k nearest of each input.

    Codes are dealt out to `GROUPS` groups. The k-th largest of the groups' best scores is reached by k codes, one of
    each group. A second look at all codes lists those that reach it within the bound, and counts them in `sizes`: more
    than `CAPACITY` where the list does not hold them, -1 where an input is NaN or infinite.
    """
    place = tl.program_id(0).to(tl.int64) * INPUTS + tl.arange(0, INPUTS)
    real = place < N
    rows = offsets(0, place.to(tl.int32), S, x_batch, x_row)
    if PACKED:
        error = tl.load(errors + place, mask=real, other=0.0)
        wrong = (error < 0).to(tl.int32)
        scales = error[:, None]
        packed = error[:, None]
        if STEP == P:
            whole = place[:, None] * P + tl.arange(0, P)[None, :]
            packed = tl.load(packed_inputs + whole, mask=real[:, None], other=0.0)
        lower = packed
    else:
        scales = _scales(x, rows, x_column, terms, real, D, METRIC, INPUTS, 32)
        error, wrong, v = _bound(
            x, rows, x_column, centres, scales, terms, counters, real, D, gamma, wide_epsilon,
            METRIC, MODE, INPUTS, P, STEP,
        )  # fmt: skip
        packed, lower = _halves_of_inputs(x, rows, x_column, centres, scales, v, real, D, METRIC, MODE, P)
    tops = tl.full((INPUTS, GROUPS), -3e38, tl.float32)
    for tile in range(0, tiles):
        scores = _tile_scores(
            x, rows, x_column, centres, scales, packed_inputs, place, packed, lower, high, low, bias, tile, real, D,
            METRIC, MODE, INPUTS, CODES, P, STEP,
        )  # fmt: skip
        tops = tl.maximum(tops, tl.max(tl.reshape(scores, (INPUTS, CODES // GROUPS, GROUPS)), 1))

    # Bit by bit, the largest integer that k of the scores reach, as integers of the same order.
    bits = tops.to(tl.int32, bitcast=True)
    bits = tl.where(bits < 0, bits ^ 2147483647, bits)
    reached = tl.sum((bits >= 0).to(tl.int32), 1) >= k
    kth = tl.where(reached, 0, -2147483648)
    for turn in range(0, 31):
        trial = kth + (1 << (30 - turn))
        reached = tl.sum((bits >= trial[:, None]).to(tl.int32), 1) >= k
        kth = tl.where(reached, trial, kth)
    kth = tl.where(kth < 0, kth ^ 2147483647, kth)
    least = kth.to(tl.float32, bitcast=True) - 2 * error
    sound = (least > LOWEST) & (error < 1e4)  # not NaN either
    if MODE != JOINT:
        sound = (least > -1e37) & (error < 1e37)
    listable = real & sound & (wrong == 0)
    tl.store(sizes + place, tl.where(wrong > 0, -1, CAPACITY + 1), mask=real & (listable == 0))
    if tl.max(tl.where(real, wrong, 0), 0) > 0:
        tl.atomic_or(flags, BAD_INPUTS)

    ones = tl.full((INPUTS, CODES), 1, tl.int32)
    counts = sizes + place[:, None] + tl.zeros((INPUTS, CODES), tl.int32)
    for tile in range(0, tiles):
        scores = _tile_scores(
            x, rows, x_column, centres, scales, packed_inputs, place, packed, lower, high, low, bias, tile, real, D,
            METRIC, MODE, INPUTS, CODES, P, STEP,
        )  # fmt: skip
        chosen = listable[:, None] & (scores >= least[:, None])
        slot = tl.atomic_add(counts, ones, mask=chosen, sem="relaxed")  # in any order: `sort_best` sorts
        code = tile * CODES + tl.arange(0, CODES)[None, :] + tl.zeros((INPUTS, CODES), tl.int32)
        tl.store(candidates + place[:, None] * CAPACITY + slot, code, mask=chosen & (slot < CAPACITY))


@triton.jit(do_not_specialize=["K", "D", "k"])
def sort_best(
    x, S, x_batch, x_row, x_column, codes, code_row, code_column, sizes, candidates, indices, K, D, k,
    METRIC: tl.constexpr, PAIRS: tl.constexpr, DEPTH: tl.constexpr, CAPACITY: tl.constexpr, BEST: tl.constexpr,
):  # fmt: skip
    """Write the k nearest of the codes that are listed for an input, or of all codes where the list overflowed."""
    row = tl.program_id(0).to(tl.int64)
    size = tl.load(sizes + row)
    every = size > CAPACITY
    count = tl.where(every, K, size)
    rows = tl.zeros((PAIRS,), tl.int64) + offsets(0, row, S, x_batch, x_row)
    pair = tl.arange(0, PAIRS)
    rank = tl.arange(0, BEST)
    best = tl.full((BEST,), float("-inf"), tl.float64)
    best_code = tl.full((BEST,), NONE, tl.int32)
    for start in range(0, count, PAIRS):
        place = start + pair
        valid = place < count
        code = tl.load(candidates + row * CAPACITY + place, mask=valid & (place < CAPACITY), other=0)
        code = tl.where(every, place, code)
        score = _true_scores(
            x, rows, x_column, codes, code.to(tl.int64) * code_row, code_column, valid, D, METRIC, PAIRS, DEPTH
        )
        score = tl.where(valid, score, float("-inf"))
        if tl.max(score, 0) >= tl.min(best, 0):  # each finds its place among the others
            passed = (score[None, :] > best[:, None]) | (
                (score[None, :] == best[:, None]) & (code[None, :] < best_code[:, None])
            )
            passed = (passed & valid[None, :]).to(tl.int32)
            ahead = (score[None, :] > score[:, None]) | (
                (score[None, :] == score[:, None]) & (code[None, :] < code[:, None])
            )
            old_rank = rank + tl.sum(passed, 1)
            new_rank = tl.sum((ahead & valid[None, :]).to(tl.int32), 1) + tl.sum(1 - passed, 0)
            new_rank = tl.where(valid, new_rank, BEST)
            old = old_rank[:, None] == rank[None, :]
            new = new_rank[:, None] == rank[None, :]
            best = tl.sum(tl.where(old, best[:, None], 0.0), 0) + tl.sum(tl.where(new, score[:, None], 0.0), 0)
            best_code = tl.sum(tl.where(old, best_code[:, None], 0), 0) + tl.sum(tl.where(new, code[:, None], 0), 0)
    answer = tl.where(size < 0, rank, tl.maximum(tl.minimum(best_code, K - 1), 0))
    tl.store(indices + row * k + rank, answer.to(tl.int64), mask=rank < k)


@triton.jit
def products(a, b, out, DEPTH_: tl.constexpr, SIZE: tl.constexpr):
    """Products of two float16 matrices `(SIZE, DEPTH_)` on the units that `scan` uses, for a look at their rounding."""
    row = tl.arange(0, SIZE)
    depth = tl.arange(0, DEPTH_)
    left = tl.load(a + row[:, None] * DEPTH_ + depth[None, :])
    right = tl.load(b + row[None, :] * DEPTH_ + depth[:, None])
    tl.store(out + row[:, None] * SIZE + row[None, :], tl.dot(left, right))
