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
from lexel.tokens.ids import IDs, as_items, check_unique
from lexel.tokens.quality import IDQuality, quality_of
from lexel.tokens.unique import Uniqueness, make_unique

__all__ = ["Latents", "identify", "ids_of", "ids_to_judge", "judge_ids", "quality_of_ids"]

PIECE = 4096  # vectors that are encoded at once
MOST_NAMED = 5


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


def ids_to_judge(
    model: VectorAutoencoder, vectors: Vectors, ids: str | Path | None = None, codes: Tensor | None = None
) -> IDs:
    """Return the IDs of the items of vectors in their order, from a file or, by default, as the model gives them.

    Where a file has IDs of further items, a message says so, and they are left out. Where the vectors have something
    else in the place of classes, a message says so, and the IDs are without.

    Args:
        model: in eval mode.
        vectors: of the items.
        ids: the file.
        codes: what `model.encode` returns for the vectors, where that is known.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no file of IDs, another model made them, or an item has none there.
    """
    if ids is not None:
        return _matched(IDs.open(ids, model=fingerprint(model)), vectors, ids)
    try:
        labels = vectors.labels
    except ValueError as error:
        messages.print(f"{error}: judged without", style="yellow", soft_wrap=True)
        labels = None
    if codes is None:
        return ids_of(model, vectors, labels)
    facts = facts_of(model, None if labels is None else labels.names)
    values = None if labels is None else labels.values.numpy()
    return IDs(vectors.items, codes.reshape(len(vectors), -1), facts, labels=values)


def _matched(ids: IDs, vectors: Vectors, path: str | Path) -> IDs:
    """Return the IDs of the items of vectors, in their order.

    Raises:
        ValueError: an item has none, or the vectors name no items and the IDs are not those of their rows.
    """
    rows = ids.items.find(as_items(vectors.items))
    absent = [str(vectors.items[row]) for row in np.flatnonzero(rows < 0)[: MOST_NAMED + 1].tolist()]
    others = np.setdiff1d(np.arange(len(ids)), rows)
    further = [str(item) for item in ids.items.array.take(others[: MOST_NAMED + 1]).to_pylist()]
    if not vectors.named and (absent or further):
        raise ValueError(
            f"{vectors.origin} names no items, so that {path} must have the IDs of the numbers of its {len(vectors)} "
            f"rows and no others; it has those of {len(ids)} items, the first is {next(iter(ids))!r} (--id-column "
            "chooses a column)"
        )
    if absent:
        raise ValueError(
            f"{path} has no ID of {int((rows < 0).sum()):,} of the {len(vectors):,} items in {vectors.origin}: "
            f"{_listed(absent)}"
        )
    if further:
        messages.print(
            f"{path} has the IDs of {len(others):,} items more than {vectors.origin}, which are left out: "
            f"{_listed(further)}",
            style="yellow",
            soft_wrap=True,
        )
    return ids.take(rows)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:MOST_NAMED]) + (", …" if len(names) > MOST_NAMED else "")


def quality_of_ids(model: VectorAutoencoder, vectors: Vectors, ids: IDs) -> IDQuality:
    """Judge the IDs of vectors, which stand in the same order."""

    def decode(codes: Tensor) -> Tensor:
        indices = codes if model.quantizer.index_shape else codes[:, 0]
        return model.decode(indices.to(model.device)).cpu()

    return quality_of(ids, Targets(model, vectors), decode)


def judge_ids(
    model: Autoencoder,
    data: str | Path,
    ids: str | Path | None = None,
    columns: Columns = USUAL,
    *,
    codes: Tensor | None = None,
) -> IDQuality:
    """Judge the IDs that a model gives to the items of vectors (`lexel.tokens.quality_of`).

    Args:
        model: of vectors, in eval mode, on any device.
        data: what `lexel.data.vectors.open_vectors` takes.
        ids: a file with the IDs of these items in any order, as `identify` wrote it; by default those that the model
            gives. Those of further items are left out.
        columns: of a table, which hold the vectors and name their items.
        codes: what `model.encode` returns for the vectors, where that is known.

    Raises:
        FileNotFoundError: `data` or `ids` does not exist.
        ValueError: the model does not take vectors, one is not finite, an item has no ID, or another model made them.
    """
    if not isinstance(model, VectorAutoencoder):
        raise ValueError(f"IDs are those of vectors, this model takes {model.kind}")
    vectors = KIND.open(data, model, columns)
    return quality_of_ids(model, vectors, ids_to_judge(model, vectors, ids, codes))


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
            tuples than items, another model made the IDs to append to, or `unique` is no such way.
    """
    out = Path(out)
    if not isinstance(model, VectorAutoencoder):
        raise ValueError(f"IDs are those of vectors, this model takes {model.kind}: give --out a folder")
    if out.suffix != ".parquet":
        raise ValueError(f"IDs are written into a .parquet file, got {out}")
    check_unique(unique)
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
