"""The file that holds the tokens of many examples: plain safetensors."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

try:
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save_file
except ImportError as error:
    raise ImportError("token files need safetensors: pip install 'lexel[train]'") from error

from lexel._core.checksums import digest
from lexel._core.errors import blamed_on, reason_of
from lexel._core.files import require_file, require_inside
from lexel.data.kind import kind_of
from lexel.tokens.facts import Facts, Grids, check_range, levels_as_json, levels_from_json
from lexel.tokens.rows import Row
from lexel.tokens.token_set import Columns, TokenSet

__all__ = ["read_file", "write_file"]

FORMAT = "lexel-tokens-1"
METADATA = "lexel"  # the entry of the metadata that holds all facts
RESERVED = "__metadata__"


def write_file(
    path: Path, rows: Iterable[Row], facts: Facts, levels: Mapping[tuple[int, ...], Grids] | None = None
) -> None:
    """Write a token file. Indices have the smallest integer type that holds K − 1.

    The file is plain safetensors: one tensor for each example, under the example's name; the metadata has the sizes,
    the labels, the facts, and a checksum of everything.

    Raises:
        OSError: the file cannot be written.
    """
    held = list(rows)
    dtype = smallest_signed_dtype(facts.num_embeddings)
    tensors = {_key(row.name): torch.from_numpy(row.indices.astype(np.int64)).to(dtype) for row in held}
    content = {
        "format": FORMAT,
        **facts.as_json(),
        "extents": list(held[0].extent) if held else [],
        "sizes": {row.name: list(row.extent.values()) for row in held},
    }
    if any(row.label is not None for row in held):
        content["labels"] = [row.label for row in held]
    if levels:
        content["levels"] = levels_as_json(levels)
    checksum = digest(tensors, {"facts": json.dumps(content)})
    # One entry: the format does not keep the order of several, and the same tokens shall make the same file.
    try:
        save_file(tensors, path, {METADATA: json.dumps({**content, "sha256": checksum})})
    except SafetensorError as error:
        raise OSError(errno.EIO, reason_of(error)) from error  # who has opened the file names it


def read_file(path: Path) -> TokenSet:
    """Read a token file and check its content. Nothing in the file can run code.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is malformed or damaged, an index is out of range, or an example's name leads out of the output
            folder.
    """
    require_file(path)
    with blamed_on(path, "is not a valid token file"):
        with safe_open(path, "pt") as file:
            content = json.loads((file.metadata() or {}).get(METADATA, "{}"))
            if content.get("format") != FORMAT:
                raise ValueError(f"its format is {content.get('format')!r}, expected {FORMAT!r}")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        if content.pop("sha256") != digest(tensors, {"facts": json.dumps(content)}):
            raise ValueError("it is damaged: its checksum is not that of its content")
        grids = {RESERVED if key == f"./{RESERVED}" else key: grid for key, grid in tensors.items()}
        extents = content.get("extents", ["height", "width"])
        sizes = {name: _size(size, extents) for name, size in content["sizes"].items()}
        if sizes.keys() != grids.keys():
            raise ValueError("the metadata does not have a size for exactly the images that have indices")
        for name, grid in grids.items():
            if grid.dtype.is_floating_point or grid.ndim < bool(extents):
                raise ValueError(f"the indices of {name!r} are {grid.dtype} of shape {tuple(grid.shape)}")
        # In the order in which they were encoded, which the format does not keep.
        facts, columns = _columns({name: grids[name] for name in sizes}, sizes, extents, content)
        if not kind_of(facts).has_ids:  # items may have any name
            require_inside(grids)
        return TokenSet(facts, columns)


def smallest_signed_dtype(num_embeddings: int) -> torch.dtype:
    """Return the smallest integer type that holds the indices of `num_embeddings` codes.

    uint16 and wider unsigned types are left out, since torch has few operations on them.
    """
    limits = ((torch.uint8, 1 << 8), (torch.int16, 1 << 15), (torch.int32, 1 << 31))
    return next((dtype for dtype, limit in limits if num_embeddings <= limit), torch.int64)


def _columns(
    grids: Mapping[str, torch.Tensor],
    sizes: Mapping[str, list[int]],
    extents: Sequence[str],
    content: Mapping[str, Any],
) -> tuple[Facts, Columns]:
    shapes = np.array([grid.shape for grid in grids.values()], np.int64).reshape(len(grids), -1)
    if "codebook_sizes" in content:
        facts = Facts.from_json(content)
    else:  # files of earlier versions
        books = int(shapes[0, len(extents) :].prod()) if len(shapes) else 1
        count = int(content["num_embeddings"])
        facts = Facts("images", count, (count,) * books, str(content["model"]))
    names = list(grids)
    flat = torch.cat([torch.zeros(0, dtype=torch.int64), *(grid.long().flatten() for grid in grids.values())]).numpy()
    check_range(flat, shapes.prod(1), facts, lambda number: names[number])
    labels = np.array(content["labels"], np.int64) if "labels" in content else None
    if labels is not None and labels.shape != (len(names),):
        raise ValueError(f"it has {labels.size} labels for {len(names)} examples")
    columns = {name: np.array([size[place] for size in sizes.values()], np.int64) for place, name in enumerate(extents)}
    return facts, Columns(names, columns, shapes, flat, labels, levels_from_json(content.get("levels", {})))


def _key(name: str) -> str:
    """Return the key of an example's tensor: safetensors reserves one name, which an example may have."""
    return f"./{name}" if name == RESERVED else name


def _size(value: Any, extents: Sequence[str]) -> list[int]:
    sides = list(value)
    if len(sides) != len(extents) or not all(isinstance(side, int) and side > 0 for side in sides):
        raise ValueError(f"{value!r} is not the size of an image")
    return sides
