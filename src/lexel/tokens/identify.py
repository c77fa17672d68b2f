"""Vectors to IDs: one file, with the distance of each vector from what its codes stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lexel._core.console import messages, track
from lexel._core.files import refuse_existing
from lexel.data.labels import Labels
from lexel.data.tables import USUAL, Columns
from lexel.data.vectors import Vectors
from lexel.data.vectors.kind import KIND
from lexel.models import Autoencoder, VectorAutoencoder
from lexel.tokens.encode import labels_of
from lexel.tokens.facts import facts_of, fingerprint, smallest_dtype
from lexel.tokens.ids import IDs
from lexel.tokens.quality import IDQuality, quality_of
from lexel.tokens.unique import Uniqueness, make_unique

__all__ = ["Latents", "identify", "ids_of", "ids_to_judge", "judge_ids", "quality_of_ids"]

PIECE = 4096  # vectors that are encoded at once


class Latents:
    """What a model's quantizer is given for vectors, computed where a slice is asked for.

    Args:
        model: in eval mode.
        vectors: all of them.
    """

    def __init__(self, model: VectorAutoencoder, vectors: Vectors) -> None:
        self.model, self.vectors = model, vectors

    def __len__(self) -> int:
        return len(self.vectors)

    @torch.no_grad()
    def __getitem__(self, rows: slice) -> Tensor:
        return self.model.latents(self.vectors[rows].to(self.model.device)).cpu()


class Targets(Latents):
    """What the vectors are compared with that a model decodes: themselves, or their directions."""

    @torch.no_grad()
    def __getitem__(self, rows: slice) -> Tensor:
        return self.model.target(self.vectors[rows].to(self.model.device)).cpu()


@torch.no_grad()
def ids_of(model: VectorAutoencoder, vectors: Vectors, labels: Labels | None = None) -> IDs:
    """Return the IDs that a model gives to the items of vectors, of which several may be equal.

    Args:
        model: in eval mode.
        vectors: of the items.
        labels: their classes, which the IDs keep.
    """
    facts, latents = facts_of(model, None if labels is None else labels.names), Latents(model, vectors)
    books = len(facts.codebook_sizes)
    codes = np.zeros((len(vectors), books), smallest_dtype(facts.codebook_sizes))
    distances = np.zeros(len(vectors), np.float32)
    for start in track(range(0, len(vectors), PIECE), "encoding"):
        own = latents[start : start + PIECE].to(model.device)
        indices = model.indices_of(own)
        codes[start : start + PIECE] = indices.reshape(len(own), books).cpu().numpy()
        errors = model.quantizer.unquantized(own) - model.quantizer.lookup(indices)
        distances[start : start + PIECE] = errors.square().sum(1).cpu().numpy()
    return IDs(vectors.items, codes, facts, distances, None if labels is None else labels.values.numpy())


def ids_to_judge(model: VectorAutoencoder, vectors: Vectors, ids: str | Path | None = None) -> IDs:
    """Return the IDs that stand in a file, by default those that the model gives to the items of vectors.

    Where the vectors have something else in the place of classes, a message says so, and the IDs are without.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no file of IDs, or another model made them.
    """
    if ids is not None:
        return IDs.open(ids, model=fingerprint(model))
    try:
        labels = vectors.labels
    except ValueError as error:
        messages.print(f"{error}: judged without", style="yellow", soft_wrap=True)
        labels = None
    return ids_of(model, vectors, labels)


def quality_of_ids(model: VectorAutoencoder, vectors: Vectors, ids: IDs) -> IDQuality:
    """Judge the IDs of vectors.

    Raises:
        ValueError: they are those of other items, or in another order.
    """
    if list(ids.items) != vectors.items:
        raise ValueError(f"the IDs are not those of the items in {vectors.origin}, in their order")

    def decode(codes: Tensor) -> Tensor:
        indices = codes if model.quantizer.index_shape else codes[:, 0]
        return model.decode(indices.to(model.device)).cpu()

    return quality_of(ids, Targets(model, vectors), decode)


def judge_ids(
    model: Autoencoder, data: str | Path, ids: str | Path | None = None, columns: Columns = USUAL
) -> IDQuality:
    """Judge the IDs that a model gives to the items of vectors (`lexel.tokens.quality_of`).

    Args:
        model: of vectors, in eval mode, on any device.
        data: what `lexel.data.vectors.open_vectors` takes.
        ids: a file with the IDs of these items in this order, as `identify` wrote it; by default those that the model
            gives.
        columns: of a table, which hold the vectors and name their items.

    Raises:
        FileNotFoundError: `data` or `ids` does not exist.
        ValueError: the model does not take vectors, one is not finite, or the IDs are of other items or another model.
    """
    if not isinstance(model, VectorAutoencoder):
        raise ValueError(f"IDs are those of vectors, this model takes {model.kind}")
    vectors = KIND.open(data, model, columns)
    return quality_of_ids(model, vectors, ids_to_judge(model, vectors, ids))


@torch.no_grad()
def identify(
    model: Autoencoder,
    data: str | Path,
    out: str | Path,
    *,
    unique: str | None = None,
    append: str | Path | None = None,
    labels: Literal["auto", "folder", "none"] = "auto",
    overwrite: bool = False,
    columns: Columns = USUAL,
) -> tuple[IDs, Uniqueness | None]:
    """Give an ID to each of the items whose vectors stand in a set of data, and write one Parquet file.

    The distance of an item is the squared one of its vector from what its codes stand for; of a model with an encoder,
    that of the encoder's output.

    Args:
        model: of vectors, in eval mode, on any device.
        data: what `lexel.data.vectors.open_vectors` takes.
        out: the file to write, .parquet.
        unique: how no two items get one ID: `"suffix"` by a further code, `"nearest-free"` by the nearest tuple that no
            item has (`lexel.tokens.make_unique`); None if they may.
        append: a file of IDs that the same model made, of other items. What is written begins with them, unchanged.
        labels: `"auto"` takes the column `label` of a table; `"folder"` the first folder in each item's name; `"none"`
            none.
        overwrite: replace `out`; where it is the file that is appended to, this is not needed.
        columns: of a table, which hold the vectors and name their items.

    Returns:
        The IDs of all items in the file, and what it took to make the new ones unique.

    Raises:
        FileExistsError: `out` exists, and `overwrite` is not set; or another process has written it meanwhile.
        FileNotFoundError: `data` or `append` does not exist.
        ValueError: the model does not take vectors, one is not finite, an item has an ID already, there are fewer
            tuples than items, or another model made the IDs to append to.
    """
    out = Path(out)
    if not isinstance(model, VectorAutoencoder):
        raise ValueError(f"IDs are those of vectors, this model takes {model.kind}: give --out a folder")
    if out.suffix != ".parquet":
        raise ValueError(f"IDs are written into a .parquet file, got {out}")
    same = append is not None and out.exists() and Path(append).exists() and out.samefile(append)
    refuse_existing(out, overwrite=overwrite or same, folder=False)
    there = stamp_of(out)
    before = None if append is None else IDs.open(append, model=fingerprint(model))
    if before is not None and before.unique is not None:
        if unique not in (None, before.unique):
            raise ValueError(f"unique: {append} is unique by {before.unique}, not by {unique}")
        unique = before.unique
    vectors = KIND.open(data, model, columns)
    if not vectors.named:
        messages.print(
            f"{vectors.origin} names no items: they are the numbers of its rows (--id-column chooses a column)",
            style="yellow",
            soft_wrap=True,
        )
    found = ids_of(model, vectors, labels_of(vectors, labels))
    figures = None
    if unique is not None:

        def candidates(own: Tensor, count: int) -> tuple[Tensor, Tensor]:
            indices, errors = model.quantizer.candidates(own.to(model.device), count)
            return indices.reshape(*errors.shape, -1).cpu(), errors.cpu()

        found, figures = make_unique(found, unique, Latents(model, vectors), candidates, taken=before)
    ids = found if before is None else before.append(found)
    if stamp_of(out) != there:  # what stands there now would be lost, such as items that were added meanwhile
        raise FileExistsError(f"{out} was written by another process meanwhile: give the command again")
    ids.write(out)
    return ids, figures


def stamp_of(path: Path) -> tuple[int, int, int] | None:
    """Return by what a file is told from one that replaced it; None where there is none."""
    if not path.exists():
        return None
    facts = path.stat()
    return facts.st_ino, facts.st_mtime_ns, facts.st_size
