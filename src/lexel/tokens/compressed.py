"""One image as one small file: its codes through a range coder, whose model learns from the codes themselves.

The file, in bytes:

    3  "LXL"
    1  how the indices are coded: 1 with the model of neighbouring indices (`_contexts.encoded`), 2 as they are
       (`_contexts.packed`), where that takes fewer bytes
    8  the fingerprint of the model that made the indices
    …  height and width of the image, each as LEB128: seven bits a byte, the lowest first; all but the last have bit 7
    …  the indices
    4  CRC-32 of all that comes before, the highest byte first

Only the model that made the indices gives the image back. Its codebook and how often it used each code in training are
known to both sides, so that the file need not hold them.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from lexel.data.images import to_pixels
from lexel.data.images.decode import most_pixels
from lexel.models import ImageAutoencoder
from lexel.quantizers.base import Quantizer
from lexel.tokens._contexts import (
    Codebook,
    CodeOrder,
    Grid,
    code_order,
    decoded,
    encoded,
    information,
    packed,
    unpacked,
)
from lexel.tokens.facts import fingerprint

__all__ = ["compress", "context_bits", "decompress"]

MAGIC = b"LXL"
CONTEXTS, AS_THEY_ARE = 1, 2
FINGERPRINT_BYTES, CRC_BYTES = 8, 4
HEADER_BYTES = len(MAGIC) + 1 + FINGERPRINT_BYTES
# The least that a decision costs is log2(1 / 0.99966) bits, for probabilities end there: so many decisions a bit.
DECISIONS_PER_BIT = 2070
SLACK_BITS = 64  # the state of a range coder
LARGEST_ORDERED = 1 << 18  # codes; to order more takes seconds


@torch.no_grad()
def compress(model: ImageAutoencoder, image: Tensor) -> bytes:
    """Turn an image into the content of a small file.

    Args:
        model: in eval mode, on any device.
        image: uint8 `(C, H, W)`.

    Returns:
        What `decompress` turns back, on any machine, into the same indices.

    Raises:
        TypeError: `image` is not uint8.
        ValueError: `image` has another number of dimensions or channels, no pixels, or a size that the model's
            quantizer does not take.

    Example:
        >>> import lexel
        >>> model = lexel.models.VQVAE(lexel.VectorQuantizer(512, 64)).eval()
        >>> data = compress(model, torch.zeros(3, 64, 48, dtype=torch.uint8))
        >>> len(data) < 50, decompress(model, data).shape
        (True, torch.Size([3, 64, 48]))
    """
    if image.dtype != torch.uint8:
        raise TypeError(f"compress: image must be uint8, got {image.dtype}")
    if image.ndim != 3:
        raise ValueError(f"compress: image must have shape (C, H, W), got {tuple(image.shape)}")
    device = model.device
    indices = model.encode(image[None].to(device).float() / 255)[0]
    return compress_indices(model, indices, (image.shape[1], image.shape[2]))


def compress_indices(model: ImageAutoencoder, indices: Tensor, size: tuple[int, int]) -> bytes:
    """Turn the indices of one image of `size` (H, W) into the content of a file.

    Raises:
        ValueError: an index is out of range, or images of this size do not have as many.
    """
    grids, shape = _grids(model, size)
    if tuple(indices.shape) != shape:
        raise ValueError(f"compress: an image of size {size} has indices of shape {shape}, got {tuple(indices.shape)}")
    flat = indices.cpu().numpy().astype(np.int64).reshape(-1)
    sizes = _sizes(grids)
    _check_range("compress", flat, sizes)
    small, plain = encoded(grids, flat), packed(sizes, flat.tolist())
    how, content = (CONTEXTS, small) if len(small) <= len(plain) else (AS_THEY_ARE, plain)
    body = MAGIC + bytes([how]) + bytes.fromhex(fingerprint(model)) + b"".join(map(_leb128, size)) + content
    return body + zlib.crc32(body).to_bytes(CRC_BYTES, "big")


def header_bytes(size: tuple[int, int]) -> int:
    """Return how many bytes of a file are not indices, for an image of `size` (H, W)."""
    return HEADER_BYTES + sum(len(_leb128(side)) for side in size) + CRC_BYTES


@torch.no_grad()
def decompress(model: ImageAutoencoder, data: bytes) -> Tensor:
    """Turn the content of a file that `compress` wrote into the image.

    Args:
        model: the model that compressed it, in eval mode, on any device.
        data: the whole file.

    Returns:
        uint8 `(C, H, W)`, on the CPU.

    Raises:
        ValueError: `data` is no such file, is damaged, says a size that it cannot hold, or comes from another model.
    """
    indices, size = decompress_indices(model, data)
    device = model.device
    return to_pixels(model.decode(indices[None].to(device), size)[0]).cpu()


def decompress_indices(model: ImageAutoencoder, data: bytes) -> tuple[Tensor, tuple[int, int]]:
    """Return the indices in a file that `compress` wrote, int64, and the image's size (H, W).

    Raises:
        ValueError: as `decompress`.
    """
    if not data.startswith(MAGIC) or len(data) < HEADER_BYTES + CRC_BYTES:
        raise ValueError("not a file that lexel compress wrote")
    how, body = data[len(MAGIC)], data[:-CRC_BYTES]
    if how not in (CONTEXTS, AS_THEY_ARE):
        raise ValueError(f"coded in a way that this version of Lexel does not know: number {how}")
    if zlib.crc32(body).to_bytes(CRC_BYTES, "big") != data[-CRC_BYTES:]:
        raise ValueError("damaged: its checksum is not that of its content")
    theirs, own = body[len(MAGIC) + 1 : HEADER_BYTES].hex(), fingerprint(model)
    if theirs != own:
        raise ValueError(
            f"it comes from the model with the fingerprint {theirs}, this model has {own}: "
            "decompress it with the model that made it"
        )
    height, at = _from_leb128(body, HEADER_BYTES)
    width, at = _from_leb128(body, at)
    size, content = (height, width), body[at:]
    most = most_pixels()
    if not (height and width) or (most is not None and height * width > most):
        raise ValueError(f"its image has {height} × {width} pixels; the most is {most} in all, the least is 1 × 1")
    # Checked before anything as large as the image is made: a few bytes cannot hold many decisions.
    positions = model.levels(size)
    decisions = sum(rows * columns for rows, columns in positions) * sum(
        (k - 1).bit_length() for k in model.codebook_sizes
    )
    if decisions > (8 * len(content) + SLACK_BITS) * DECISIONS_PER_BIT:
        raise ValueError(f"its {len(content)} bytes cannot hold an image of {height} × {width} pixels")
    grids, shape = _grids(model, size)
    found = decoded(grids, content) if how == CONTEXTS else np.array(unpacked(_sizes(grids), content), np.int64)
    return torch.from_numpy(found).reshape(shape), size


def context_bits(grids: Iterable[ArrayLike], codebook_sizes: Sequence[int], *, together: bool = False) -> float:
    """Return how many bits the coder of `compress` needs for grids, without the rest of a file.

    Nothing is known beforehand but the number of codes: neither the codebook nor how often codes are used.

    Args:
        grids: integers, `(h, w)` each, or `(h, w, Q)` for several codebooks; `(L,)` counts as one row.
        codebook_sizes: K of each of the Q codebooks.
        together: code all grids with one memory, one after the other, instead of each as a file of its own.

    Raises:
        ValueError: a grid has another shape, or an index is out of range.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> round(context_bits([np.zeros((32, 32), int), np.zeros((32, 32), int)], [512]))
        48
        >>> round(context_bits([rng.integers(0, 512, (32, 32))], [512]) / 32**2, 1)  # no pattern: log2 K and a little
        9.1
    """
    count = len(codebook_sizes)
    books = [Codebook(size) for size in codebook_sizes]
    bits = 0.0
    for given in grids:
        indices = np.asarray(given)
        if indices.ndim < (count > 1) + 1 or (count > 1 and indices.shape[-1] != count):
            raise ValueError(f"context_bits: {count} codebooks do not fit a grid of shape {indices.shape}")
        if not np.issubdtype(indices.dtype, np.integer):
            raise ValueError(f"context_bits: grids must be integers, got {indices.dtype}")
        flat = indices.astype(np.int64).reshape(-1, count)
        _check_range("context_bits", flat, list(codebook_sizes))
        columns = indices.shape[: indices.ndim - (count > 1)][-1]
        if not together:
            books = [Codebook(size) for size in codebook_sizes]
        rows = len(flat) // columns if columns else 0
        bits += information([Grid(rows, columns, books)], flat.reshape(-1))
    return bits


def _grids(model: ImageAutoencoder, size: tuple[int, int]) -> tuple[list[Grid], tuple[int, ...]]:
    """Return the grids of an image's indices, with fresh codebooks, and the shape of the indices."""
    grids: list[Grid] = []
    for quantizer, own in zip(model.quantizers, model.maps(size), strict=True):
        books = [Codebook(k, order) for k, order in zip(quantizer.codebook_sizes, _orders(quantizer), strict=True)]
        grids += [Grid(rows, columns, books) for rows, columns in quantizer.grids(own)]
    positions = model.levels(size)[0] if model.positionwise else (sum(grid.rows * grid.columns for grid in grids),)
    return grids, (*positions, *model.quantizers[0].index_shape)


def _orders(quantizer: Quantizer) -> list[CodeOrder | None]:
    """Return an order of the codes of each codebook, from tables that the model's file holds as they are.

    What is computed in floating point may differ in its last bit between machines, and is of no use here. So codes that
    are no table, and codebooks that a network computes, keep the order of their indices.
    """
    state = quantizer.state_dict()
    sizes = quantizer.codebook_sizes
    names = [name for name in state if name.endswith("codebook.weight")]
    if len(names) == 1:  # one table for all
        names *= len(sizes)
    if [state[name].shape[0] for name in names] != list(sizes) or max(sizes) > LARGEST_ORDERED:
        return [None] * len(sizes)
    found: dict[str, CodeOrder] = {}
    for name in names:
        if name not in found:
            usage = state.get(f"{name.removesuffix('codebook.weight')}learning.count")
            found[name] = code_order(_array(state[name]), None if usage is None else _array(usage))
    return [found[name] for name in names]


def _array(value: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = value.detach().cpu().double().numpy()
    return array


def _sizes(grids: Sequence[Grid]) -> list[int]:
    """Return the size of the codebook of each index."""
    return [size for grid in grids for size in [book.size for book in grid.codebooks] * (grid.rows * grid.columns)]


def _check_range(name: str, indices: NDArray[np.int64], sizes: Sequence[int]) -> None:
    wrong = (indices < 0) | (indices >= np.array(sizes, np.int64))
    if wrong.any():
        raise ValueError(f"{name}: index {indices[wrong][0]} is not below the size of its codebook, or negative")


def _leb128(number: int) -> bytes:
    groups = [number >> shift & 127 for shift in range(0, max(number.bit_length(), 1), 7)]
    return bytes([*(group | 128 for group in groups[:-1]), groups[-1]])


def _from_leb128(data: bytes, start: int) -> tuple[int, int]:
    """Return the number that starts at `start`, and where it ends."""
    number = 0
    for length, byte in enumerate(data[start : start + 5]):
        number |= (byte & 127) << 7 * length
        if byte < 128:
            return number, start + length + 1
    raise ValueError("damaged: it ends in the middle of the image's size")
