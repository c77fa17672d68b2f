"""The layer's kernels for a GPU, in Triton, and what launches them. Imported where the first one runs.

Every kernel gives the same numbers, to the bit, in whatever order its programs run: none adds floating-point numbers
atomically, and none waits for the device. With `TRITON_INTERPRET=1` they run on a CPU, slowly.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["add_by_code", "batch_strides", "code_difference", "count_by_code", "offsets"]

HEIGHT, WIDTH, NUMBERS = 128, 64, 2048  # of a tile of rows, at most
CHUNKS = 2048  # programs that share the rows of one sum by code, at most
COUNTED = 128  # indices that one program counts


@triton.jit
def offsets(batch, place, S, batch_stride, row_stride):
    """Where rows of `(B, S, D)` begin: those `place` rows behind the first of a batch, in that batch or a later one."""
    later = place // S
    return (batch + later).to(tl.int64) * batch_stride + (place - later * S).to(tl.int64) * row_stride


def batch_strides(x: Tensor) -> tuple[int, int, int, int]:
    """Return S and the three strides of `(B, S, D)`. Rows `(N, D)` are batches of one: the compiler drops the rest."""
    if x.ndim == 2:
        return 1, x.stride(0), 1, x.stride(1)
    return x.shape[1], *x.stride()  # type: ignore[return-value]


@triton.jit
def _difference_kernel(
    z,
    codes,
    indices,
    valid,
    quantized,
    difference,
    errors,
    count,
    dim,
    num_embeddings,
    S,
    z_batch,
    z_row,
    z_column,
    batch_stride,
    row_stride,
    column_stride,
    code_row,
    code_column,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Gather codes, subtract the inputs, and sum the squares of a block of rows."""
    first = tl.program_id(0).to(tl.int64) * HEIGHT
    row = first + tl.arange(0, HEIGHT)
    there = row < count
    batch = first // S
    local = (first - batch * S).to(tl.int32) + tl.arange(0, HEIGHT)
    z_rows = offsets(batch, local, S, z_batch, z_row)[:, None]
    rows = offsets(batch, local, S, batch_stride, row_stride)[:, None]
    code = tl.load(indices + row, mask=there, other=0)
    known = there & (code >= 0) & (code < num_embeddings)
    counts = there
    if valid is not None:
        counts = tl.load(valid + row, mask=there, other=0) != 0
    squares = tl.zeros((HEIGHT, WIDTH), errors.dtype.element_ty)
    for start in range(0, dim, WIDTH):
        column = start + tl.arange(0, WIDTH).to(tl.int64)
        within = (column < dim)[None, :]
        x = tl.load(z + z_rows + column[None, :] * z_column, mask=there[:, None] & within, other=0)
        place = code[:, None] * code_row + column[None, :] * code_column
        e = tl.load(codes + place, mask=known[:, None] & within, other=float("nan"))  # an index out of range shows
        d = tl.where(counts[:, None] & within, e - x, 0)
        squares += d * d
        target = rows + column[None, :] * column_stride
        tl.store(quantized + target, e, mask=there[:, None] & within)
        tl.store(difference + target, d, mask=there[:, None] & within)
    tl.store(errors + tl.program_id(0), tl.sum(tl.sum(squares, 1), 0))


def code_difference(z: Tensor, codes: Tensor, indices: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return the codes e of inputs, e − z, zero in rows that do not count, and the sum of its squares.

    Args:
        z: `(N, D)` or `(B, S, D)`, any strides.
        codes: `(K, D)`, any strides, the same dtype.
        indices: int64 `(N,)` or `(B, S)`.
        valid: bool of that shape; None when all rows count.
    """
    count, dim = indices.numel(), z.shape[-1]
    quantized, difference = torch.empty_like(z), torch.empty_like(z)
    height, width = _tile(dim)
    errors = z.new_empty(triton.cdiv(count, height))
    if count:
        with torch.cuda.device_of(z):
            _difference_kernel[(len(errors),)](
                z,
                codes,
                indices.contiguous(),
                None if valid is None else valid.contiguous(),
                quantized,
                difference,
                errors,
                count,
                dim,
                len(codes),
                *batch_strides(z),
                *batch_strides(quantized)[1:],
                *codes.stride(),
                HEIGHT=height,
                WIDTH=width,
            )
    return quantized, difference, errors.sum()


@triton.jit
def _add_in_run(begins, total, next_begins, next_total):
    return begins | next_begins, tl.where(next_begins != 0, next_total, total + next_total)


@triton.jit
def _run_kernel(
    codes,
    order,
    rows,
    sums,
    heads,
    count,
    dim,
    num_embeddings,
    S,
    batch_stride,
    row_stride,
    column_stride,
    sum_row,
    sum_column,
    tiles,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Sum up each run of equal codes within a chunk of the sorted rows.

    The sum of a run that begins in the chunk is added to its code's; that of the chunk's head, a run that began in a
    chunk before, goes to `heads`.
    """
    chunk = tl.program_id(0).to(tl.int64)
    column = (tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)).to(tl.int64)
    within = (column < dim)[None, :]
    local = tl.arange(0, HEIGHT)
    end = (chunk + 1) * tiles * HEIGHT
    carry = tl.zeros((WIDTH,), rows.dtype.element_ty)
    began = tl.zeros((WIDTH,), tl.int32)
    for tile in range(tiles):
        place = (chunk * tiles + tile) * HEIGHT + local
        there = place < count
        code = tl.load(codes + place, mask=there, other=-1).to(tl.int64)
        before = tl.load(codes + place - 1, mask=there & (place > 0), other=-1).to(tl.int64)
        after = tl.load(codes + place + 1, mask=place + 1 < count, other=-1).to(tl.int64)
        row = tl.load(order + place, mask=there, other=0)
        begins = code != before
        source = offsets(0, row, S, batch_stride, row_stride)[:, None] + column[None, :] * column_stride
        value = tl.load(rows + source, mask=there[:, None] & within, other=0)
        value += tl.where(((local == 0) & (code == before))[:, None], carry[None, :], 0)  # the run of the tile before
        flags = tl.zeros((HEIGHT, WIDTH), tl.int32) + begins[:, None].to(tl.int32)
        flags, total = tl.associative_scan((flags, value), 0, _add_in_run)
        is_own = (flags | began[None, :]) != 0
        is_end = (there & ((code != after) | (place + 1 == end)))[:, None] & within
        target = sums + code[:, None] * sum_row + column[None, :] * sum_column
        mask = is_end & is_own & ((code >= 0) & (code < num_embeddings))[:, None]
        tl.store(target, tl.load(target, mask=mask, other=0) + total, mask=mask)
        head = tl.broadcast_to((heads + chunk * dim + column)[None, :], (HEIGHT, WIDTH))
        tl.store(head, total, mask=is_end & (is_own == 0))
        is_last = (local == HEIGHT - 1)[:, None]
        carry = tl.sum(tl.where(is_last, total, 0), 0)
        began = began | tl.max(flags, 0)


@triton.jit
def _join_kernel(
    codes,
    sums,
    heads,
    count,
    dim,
    num_embeddings,
    sum_row,
    sum_column,
    length,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Add to the sum of a run that goes on in later chunks what these found of it, in their order."""
    chunk = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    first = chunk * length
    code = tl.load(codes + first + length - 1).to(tl.int64)
    before = tl.load(codes + first - 1, mask=first > 0, other=-1).to(tl.int64)
    after = tl.load(codes + first + length).to(tl.int64)
    goes_on = (code == after) & (code != before) & (code >= 0) & (code < num_embeddings)
    mask = column < tl.where(goes_on, dim, 0)
    target = sums + code * sum_row + column * sum_column
    total = tl.load(target, mask=mask, other=0)
    number = chunk + 1
    more = goes_on
    while more:
        numbers = number + tl.arange(0, HEIGHT)
        place = numbers * length
        same = tl.load(codes + place, mask=place < count, other=-1).to(tl.int64) == code
        source = heads + numbers[:, None] * dim + column[None, :]
        total += tl.sum(tl.load(source, mask=same[:, None] & (column < dim)[None, :], other=0), 0)
        more = tl.sum(same.to(tl.int32), 0) == HEIGHT
        number += HEIGHT
    tl.store(target, total, mask=mask)


def add_by_code(totals: Sequence[Tensor], indices: Tensor, rows: Sequence[Tensor]) -> None:
    """Add to each of several totals `(K, …)`, in place, the sums of its rows `(N, …)` or `(B, S, …)` by code.

    The rows are sorted by code, and each chunk of them is summed up by a program of its own, however many have the same
    code: 32 to 128 rows, or a 2,048th of all if that is more. The programs of the chunks in which a run of equal codes
    begins add up what the others found of it.

    Args:
        totals: K is below 2^31.
        indices: int64 `(N,)` or `(B, S)`, in [0, K).
        rows: floating or integer, of the dtypes of the totals, any strides.
    """
    count, num_embeddings = indices.numel(), len(totals[0])
    if not count:
        return
    # A sort takes as many passes as its keys have bytes.
    codes, order = indices.flatten().to(torch.int16 if num_embeddings <= 1 << 15 else torch.int32).sort(stable=True)
    for total, part in zip(totals, rows, strict=True):
        total, part = total.view(num_embeddings, -1), part.reshape(*indices.shape, -1)
        dim = part.shape[-1]
        height, width = _tile(dim)
        tiles = triton.cdiv(count, height * CHUNKS)
        length = height * tiles
        chunks, columns = triton.cdiv(count, length), triton.cdiv(dim, width)
        heads = part.new_empty((chunks, dim))
        sizes = count, dim, num_embeddings
        tile = {"HEIGHT": height, "WIDTH": width}
        with torch.cuda.device_of(part):
            _run_kernel[(chunks, columns)](
                codes, order, part, total, heads, *sizes, *batch_strides(part), *total.stride(), tiles, **tile
            )
            if chunks > 1:
                _join_kernel[(chunks - 1, columns)](codes, total, heads, *sizes, *total.stride(), length, **tile)


@triton.jit
def _count_kernel(indices, counts, count, num_embeddings, SIZE: tl.constexpr):
    """Count a block of indices. Each code gets one atomic addition, however many of them are its own."""
    local = tl.arange(0, SIZE)
    place = tl.program_id(0).to(tl.int64) * SIZE + local
    code = tl.load(indices + place, mask=place < count, other=-1).to(tl.int32)
    same = (code[:, None] == code[None, :]).to(tl.int32)
    earlier = tl.where(local[None, :] < local[:, None], same, 0)
    is_first = (code >= 0) & (code < num_embeddings) & (tl.sum(earlier, 1) == 0)
    tl.atomic_add(counts + code, tl.sum(same, 1).to(counts.dtype.element_ty), mask=is_first, sem="relaxed")


def count_by_code(indices: Tensor, num_embeddings: int) -> Tensor:
    """Count how often each code occurs, float32 `(K,)`; indices int64 `(N,)` below K, negative ones do not count."""
    # Sums of so few ones are exact in float32, and so the same in any order.
    dtype = torch.float32 if len(indices) < 1 << 24 else torch.int32
    counts = torch.zeros(num_embeddings, dtype=dtype, device=indices.device)
    if len(indices):
        with torch.cuda.device_of(indices):
            _count_kernel[(triton.cdiv(len(indices), COUNTED),)](
                indices.contiguous(), counts, len(indices), num_embeddings, SIZE=COUNTED
            )
    return counts.float()


def _tile(dim: int) -> tuple[int, int]:
    """Return the height and width of a tile of rows of `dim` numbers."""
    width = min(WIDTH, triton.next_power_of_2(dim))
    return min(HEIGHT, NUMBERS // width), width
