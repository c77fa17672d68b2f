"""The file that holds the codes of many images: plain safetensors."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

try:
    from safetensors import safe_open
    from safetensors.torch import save_file
except ImportError as error:
    raise ImportError("token files need safetensors: pip install 'lexel[train]'") from error

from lexel._core.checksums import digest
from lexel._core.errors import blamed_on
from lexel._core.files import inside, written_beside
from lexel.models import VQVAE

__all__ = ["TokenFile", "fingerprint", "read_tokens", "smallest_dtype", "write_tokens"]

FORMAT = "lexel-tokens-1"
METADATA = "lexel"  # the entry of the metadata that holds all facts
RESERVED = "__metadata__"


@dataclass(frozen=True)
class TokenFile:
    """The codes of a set of images.

    Attributes:
        indices: by the image's name, integers of any type, `(h, w)`, with one axis more for several codebooks.
        sizes: by the image's name, (H, W) in pixels.
        num_embeddings: K of the quantizer that made the codes.
        model: fingerprint of the model that made the codes.
    """

    indices: dict[str, Tensor]
    sizes: dict[str, tuple[int, int]]
    num_embeddings: int
    model: str


def fingerprint(model: VQVAE) -> str:
    """Return a short digest of a model's weights, which shows whether tokens come from this model."""
    return digest(model.state_dict())[:16]


def smallest_dtype(num_embeddings: int) -> torch.dtype:
    """Return the smallest integer type that holds the indices of `num_embeddings` codes.

    uint16 and wider unsigned types are left out, since torch has few operations on them.
    """
    limits = ((torch.uint8, 1 << 8), (torch.int16, 1 << 15), (torch.int32, 1 << 31))
    return next((dtype for dtype, limit in limits if num_embeddings <= limit), torch.int64)


def write_tokens(path: Path, tokens: TokenFile) -> None:
    """Write a token file, whole or not at all. Indices have the smallest integer type that holds K − 1.

    The file is plain safetensors: one tensor for each image, under the image's name; the metadata has the sizes, and a
    checksum of everything.

    Raises:
        OSError: the file cannot be written.
    """
    dtype = smallest_dtype(tokens.num_embeddings)
    tensors = {_key(name): indices.to(dtype).contiguous() for name, indices in tokens.indices.items()}
    facts = {
        "format": FORMAT,
        "model": tokens.model,
        "num_embeddings": tokens.num_embeddings,
        "sizes": tokens.sizes,
    }
    checksum = digest(tensors, {"facts": json.dumps(facts)})
    with written_beside(path) as temporary:
        # One entry: the format does not keep the order of several, and the same tokens shall make the same file.
        save_file(tensors, temporary, {METADATA: json.dumps({**facts, "sha256": checksum})})


def read_tokens(path: Path) -> TokenFile:
    """Read a token file and check its content. Nothing in the file can run code.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is malformed or damaged, an index is out of range, or an image's name leads out of the output
            folder.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    with blamed_on(path, "is not a valid token file"):
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {}).get(METADATA, "{}"))
            if facts.get("format") != FORMAT:
                raise ValueError(f"its format is {facts.get('format')!r}, expected {FORMAT!r}")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        if facts.pop("sha256") != digest(tensors, {"facts": json.dumps(facts)}):
            raise ValueError("it is damaged: its checksum is not that of its content")
        num_embeddings, model = int(facts["num_embeddings"]), str(facts["model"])
        indices = {_name(key): grid for key, grid in tensors.items()}
        sizes = {name: _size(size) for name, size in facts["sizes"].items()}
        if sizes.keys() != indices.keys():
            raise ValueError("the metadata does not have a size for exactly the images that have indices")
        for name, grid in indices.items():
            inside(Path(), name)
            if grid.dtype.is_floating_point or grid.ndim < 1:
                raise ValueError(f"the indices of {name!r} are {grid.dtype} of shape {tuple(grid.shape)}")
            if grid.numel() and not 0 <= int(grid.min()) <= int(grid.max()) < num_embeddings:
                raise ValueError(f"the indices of {name!r} are not all in [0, {num_embeddings})")
    # In the order in which they were encoded, which the format does not keep.
    return TokenFile({name: indices[name] for name in sizes}, sizes, num_embeddings, model)


def _key(name: str) -> str:
    """Return the key of an image's tensor: safetensors reserves one name, which an image may have."""
    return f"./{name}" if name == RESERVED else name


def _name(key: str) -> str:
    return RESERVED if key == f"./{RESERVED}" else key


def _size(value: Any) -> tuple[int, int]:
    height, width = value
    if not all(isinstance(side, int) and side > 0 for side in (height, width)):
        raise ValueError(f"{value!r} is not the size of an image")
    return height, width
