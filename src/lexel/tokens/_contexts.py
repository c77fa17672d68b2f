"""The adaptive model behind compressed files: how probable an index is after its neighbours, in integers alone.

An index is a path of binary decisions, from the highest bit of its place in an order of the codes to the lowest. Each
decision is foretold four times, from what came so far at this node of the path: anywhere, beside the same first
neighbour, beside the same second neighbour, and beside both. A memory that has not seen the node yet takes over what
the one before it says. The four are mixed in the logistic domain by weights that are learned on the way (Mahoney 2005,
"Adaptive weighing of context models for lossless data compression").

Every number that decides a probability is an integer, so that each machine finds the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

try:
    import constriction
except ImportError as error:
    raise ImportError("compressed files need constriction: pip install 'lexel[train]'") from error

__all__ = ["CodeOrder", "Codebook", "Grid", "code_order", "decoded", "encoded", "information", "packed", "unpacked"]

ONE = 1 << 16  # probability 1
FLAT = 2047  # the logistic domain is [-2047, 2047], in units of 1/256
LIMIT = 30  # a memory forgets what lies further back than about so many decisions
RATE = 10  # of the weights
BLOCK = 256
INVALID = "damaged: its indices are not as Lexel codes them"
START = 2  # as how many decisions the usage of codes counts that is known before the first
OUTSIDE = -1  # the index beyond the border

# round(2^62 · e^(-1/256)): its powers, in integers, are the exponential function.
STEP = 4593706758521714574


def _logistic() -> list[int]:
    """Return 2^16 / (1 + e^(-x / 256)) for x in [-2047, 2047]."""
    power, upper = 1 << 62, []
    for _ in range(FLAT + 1):
        upper.append((ONE << 62) // ((1 << 62) + power))
        power = power * STEP >> 62
    return [ONE - p for p in upper[:0:-1]] + upper


def _logit(logistic: Sequence[int]) -> list[int]:
    """Return the x of the nearest probability below, for probabilities in units of 1/4096."""
    found, x = [], 0
    for p in range(8, ONE, 16):
        while x < 2 * FLAT and logistic[x + 1] <= p:
            x += 1
        found.append(x - FLAT)
    return found


LOGISTIC = _logistic()
LOGIT = _logit(LOGISTIC)
SPEED = [10 * ONE // (10 * seen + 16) for seen in range(LIMIT + 1)]
# How sure a memory is that has seen a node so often: one of five grades.
GRADE = [0, 1, 2, 2, *[3] * 8, *[4] * (LIMIT - 11)]


class CodeOrder(NamedTuple):
    """An order of the codes of a codebook in which similar ones lie near each other.

    Attributes:
        place: the place of each code.
        code: the code at each place.
        share: at i, the sum of how often the codes at the places before i are expected, K + 1 integers; None if nothing
            is known.
    """

    place: list[int]
    code: list[int]
    share: list[int] | None


class Grid(NamedTuple):
    """A grid of positions.

    Attributes:
        rows: h.
        columns: w.
        codebooks: the codebooks of which each position has an index, in their order.
    """

    rows: int
    columns: int
    codebooks: Sequence[Codebook]


class Codebook:
    """What was learned about the indices of one codebook.

    Args:
        size: K.
        order: the order of its codes; by default that of their indices.
    """

    def __init__(self, size: int, order: CodeOrder | None = None) -> None:
        self.size = size
        self.order = order
        self.depth = (size - 1).bit_length()
        # A memory holds by node of the path: probability << 6 | how often the node was seen.
        self.anywhere: dict[int, int] = {}
        self.beside_first: dict[int, dict[int, int]] = {}
        self.beside_second: dict[int, dict[int, int]] = {}
        self.beside_both: dict[tuple[int, int], dict[int, int]] = {}
        self.weights: dict[int, list[int]] = {}

    def code(self, first: int, second: int, index: int | None, turn: Callable[[int, int], int]) -> int:
        """Code an index beside two neighbours, learn from it, and return it.

        Args:
            first: the first neighbour.
            second: the second neighbour.
            index: the index, or None to decode it.
            turn: takes x, the logit of the probability of a 1, plus `FLAT`, and the bit (0 to decode it); returns the
                bit.
        """
        order, share = self.order, None
        place = index
        if order is not None:
            share = order.share
            place = None if index is None else order.place[index]
        anywhere, weights = self.anywhere, self.weights
        one = self.beside_first.setdefault(first, {})
        two = self.beside_second.setdefault(second, {})
        both = self.beside_both.setdefault((first, second), {})
        size, low, half = self.size, 0, 1 << self.depth >> 1
        node = 1
        while half:
            middle = low + half
            if middle >= size:  # nothing lies there
                node <<= 1
                half >>= 1
                continue
            a = anywhere.get(node)
            if a is None:
                high = min(middle + half, size)
                if share is None:
                    a = ((high - middle) * ONE // (high - low)) << 6
                else:
                    a = ((share[high] - share[middle]) * (ONE - 1) // (share[high] - share[low])) << 6 | START
            b = one.get(node)
            if b is None:
                b = a & -64
            c = two.get(node)
            if c is None:
                c = b & -64
            d = both.get(node)
            if d is None:
                d = c & -64
            xa, xb, xc, xd = LOGIT[a >> 10], LOGIT[b >> 10], LOGIT[c >> 10], LOGIT[d >> 10]
            grades = ((GRADE[a & 63] * 5 + GRADE[b & 63]) * 5 + GRADE[c & 63]) * 5 + GRADE[d & 63]
            w = weights.get(grades)
            if w is None:
                seen = [bool(state & 63) for state in (a, b, c, d)]
                w = [ONE * each // sum(seen) for each in seen] if any(seen) else [ONE, 0, 0, 0]
                weights[grades] = w
            wa, wb, wc, wd = w
            x = (wa * xa + wb * xb + wc * xc + wd * xd >> 16) + FLAT
            x = 0 if x < 0 else min(x, 2 * FLAT)
            bit = turn(x, 1 if place is not None and place >= middle else 0)

            error = ((bit << 16) - LOGISTIC[x]) * RATE
            w[0] = wa + (xa * error >> 18)
            w[1] = wb + (xb * error >> 18)
            w[2] = wc + (xc * error >> 18)
            w[3] = wd + (xd * error >> 18)
            for memory, state in ((anywhere, a), (one, b), (two, c), (both, d)):
                p, seen_times = state >> 6, state & 63
                p += ((ONE - 1 - p if bit else -p) * SPEED[seen_times]) >> 16
                memory[node] = p << 6 | (seen_times + 1 if seen_times < LIMIT else LIMIT)
            node = node << 1 | bit
            if bit:
                low = middle
            half >>= 1
        return low if order is None else order.code[low]


def encoded(grids: Sequence[Grid], indices: NDArray[np.int64]) -> bytes:
    """Code the indices of grids, one after the other, each row by row; see `decoded`."""
    bits, places = _turns(grids, indices)
    coder = constriction.stream.queue.RangeEncoder()
    coder.encode(bits, constriction.stream.model.Bernoulli(perfect=False), np.array(LOGISTIC)[places] / ONE)
    words: NDArray[np.uint32] = coder.get_compressed()
    return words.astype(">u4").tobytes().rstrip(b"\0")


def information(grids: Sequence[Grid], indices: NDArray[np.int64]) -> float:
    """Return how many bits `encoded` needs, before they are rounded to whole bytes."""
    bits, places = _turns(grids, indices)
    p = np.array(LOGISTIC)[places] / ONE
    return float(-np.log2(np.where(bits, p, 1 - p)).sum())


def _turns(grids: Sequence[Grid], indices: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return the decisions of which indices consist, and the places of their probabilities in `LOGISTIC`."""
    bits: list[int] = []
    places: list[int] = []

    def turn(x: int, bit: int) -> int:
        places.append(x)
        bits.append(bit)
        return bit

    _code(grids, indices.tolist(), turn)
    return np.array(bits, np.int32), np.array(places, np.int64)


def decoded(grids: Sequence[Grid], data: bytes) -> NDArray[np.int64]:
    """Return the indices that `encoded` coded for the same grids.

    Whatever `data` holds, the indices are in range.

    Raises:
        ValueError: `encoded` writes no such bytes.
    """
    words = np.frombuffer(data + bytes(-len(data) % 4), ">u4").astype(np.uint32)
    decode, models = constriction.stream.queue.RangeDecoder(words).decode, _models()

    def turn(x: int, _: int) -> int:
        return int(decode(models[x]))

    try:
        return np.array(_code(grids, None, turn), np.int64)
    except AssertionError as error:  # what constriction raises for bytes that no encoder writes
        raise ValueError(INVALID) from error


@cache
def _models() -> list[Any]:
    """Return a distribution of a bit for each entry of `LOGISTIC`.

    Probabilities reach constriction as floating numbers, which it turns into multiples of 2^-24. They are multiples of
    2^-16, so that each sum and product on that way is a number that a double holds: nothing is rounded, anywhere.
    """
    return [constriction.stream.model.Bernoulli(p / ONE, perfect=False) for p in LOGISTIC]


def _code(grids: Sequence[Grid], known: Sequence[int] | None, turn: Callable[[int, int], int]) -> list[int]:
    """Code the indices of grids; the neighbours of an index are the one to the left and the one above.

    Where a position has several indices, those after the first have the one before, and the one to the left.
    """
    found: list[int] = []
    for grid in grids:
        start, count = len(found), len(grid.codebooks)
        row = grid.columns * count
        for position in range(grid.rows * row):
            at = start + position
            number = position % count
            left = found[at - count] if position % row >= count else OUTSIDE
            above = found[at - row] if position >= row else OUTSIDE
            neighbours = (found[at - 1], left) if number else (left, above)
            index = None if known is None else known[at]
            found.append(grid.codebooks[number].code(*neighbours, index, turn))
    return found


def packed(sizes: Sequence[int], indices: Sequence[int]) -> bytes:
    """Write indices as they are, log2(K) bits each: blocks of 256 as one number each, in as many bytes as hold it."""
    blocks = []
    for start in range(0, len(indices), BLOCK):
        number, most = 0, 1
        for index, size in zip(indices[start : start + BLOCK], sizes[start : start + BLOCK], strict=True):
            number, most = number * size + index, most * size
        blocks.append(number.to_bytes(_bytes(most), "big"))
    return b"".join(blocks)


def unpacked(sizes: Sequence[int], data: bytes) -> list[int]:
    """Read what `packed` wrote.

    Raises:
        ValueError: `packed` writes no such bytes for indices of these sizes.
    """
    indices: list[int] = []
    for start in range(0, len(sizes), BLOCK):
        own = sizes[start : start + BLOCK]
        length = _bytes(math.prod(own))
        block, data = data[:length], data[length:]
        number = int.from_bytes(block, "big")
        found = []
        for size in reversed(own):
            number, index = divmod(number, size)
            found.append(index)
        if number or len(block) < length:
            raise ValueError(INVALID)
        indices += reversed(found)
    if data:
        raise ValueError(INVALID)
    return indices


def _bytes(most: int) -> int:
    return ((most - 1).bit_length() + 7) // 8


def code_order(table: NDArray[Any], usage: NDArray[Any] | None = None) -> CodeOrder:
    """Order codes so that similar ones lie near each other, as machines of any kind do alike.

    The codes are halved again and again, along the dimension in which they spread most.

    Args:
        table: the codes `(K, D)`, floating.
        usage: how often each is used, `(K,)`, floating.
    """
    codes = _integers(table)
    place = np.arange(len(codes))  # the code at each place
    parts = [(0, len(codes))]
    while parts:
        start, stop = parts.pop()
        size = stop - start
        if size < 2:
            continue
        members = codes[place[start:stop]]
        spread = size * (members * members).sum(0) - members.sum(0) ** 2
        along = np.argsort(members[:, int(spread.argmax())], kind="stable")
        place[start:stop] = place[start:stop][along]
        middle = start + (1 << (size - 1).bit_length() - 1)
        parts += [(start, middle), (middle, stop)]
    inverse = np.empty_like(place)
    inverse[place] = np.arange(len(place))
    share = None if usage is None else [0, *np.cumsum(1 + _integers(usage)[place].clip(0)).tolist()]
    return CodeOrder(inverse.tolist(), place.tolist(), share)


def _integers(values: NDArray[Any]) -> NDArray[np.int64]:
    """Scale values by a power of two to integers of at most eleven bits; this rounds alike everywhere."""
    finite = np.nan_to_num(values.astype(np.float64), nan=0, posinf=0, neginf=0)
    _, exponent = math.frexp(float(np.abs(finite).max(initial=0)))
    return np.rint(np.ldexp(finite, 11 - exponent)).astype(np.int64)
