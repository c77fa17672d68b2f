"""Examples to tokens, shard by shard."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lexel._core.console import messages, progress_bar
from lexel._core.errors import blamed_on, require_within
from lexel._core.files import refuse_existing, remove_halves, written_beside
from lexel._core.locks import LOCK, locked
from lexel.data.batches import MOST_BATCH, batches
from lexel.data.examples import Examples
from lexel.data.kind import kind_of
from lexel.data.labels import Labels, folder_labels
from lexel.data.tables import USUAL, Columns
from lexel.models import Autoencoder
from lexel.tokens.facts import Grids, facts_of, levels_as_json, levels_from_json, smallest_dtype
from lexel.tokens.file import write_file
from lexel.tokens.formats import FORMATS
from lexel.tokens.rows import Row, Table
from lexel.tokens.shards import (
    MANIFEST,
    PROGRESS,
    SHARD_SIZE,
    Manifest,
    Shard,
    file_digest,
    is_shard,
    shard_name,
    write_manifest,
    write_shard,
)

__all__ = ["Done", "Encoded", "Engine", "Work", "encode", "encode_examples", "labels_of"]

MOST_ROWS = 1 << 31  # of a shard; readers of Parquet count its rows in 31 bits
PIECE = 256  # examples, whose tokens are held until they are written; batches do not reach beyond
GROUP_TOKENS = 1 << 20  # pieces are put together into row groups of about so many tokens


@dataclass(frozen=True)
class Encoded:
    """What encoding has written.

    Attributes:
        examples: how many examples there are.
        tokens: how many tokens they have.
        skipped: examples that could not be read, with the reason.
    """

    examples: int
    tokens: int
    skipped: Mapping[str, str]


@dataclass(frozen=True)
class Done:
    """A shard that is whole.

    Attributes:
        number: of the shard.
        shard: its file.
        levels: the grids of its examples, by their extent, where their shape does not say it.
        skipped: examples of this part that could not be read, with the reason.
    """

    number: int
    shard: Shard
    levels: Mapping[tuple[int, ...], Grids]
    skipped: Mapping[str, str]

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {**asdict(self), "levels": levels_as_json(self.levels), "skipped": dict(self.skipped)}

    @classmethod
    def from_json(cls, content: Any) -> Done:
        """Read what `as_json` wrote."""
        levels = levels_from_json(content["levels"])
        return cls(int(content["number"]), Shard(**content["shard"]), levels, dict(content["skipped"]))


@dataclass(frozen=True)
class Work:
    """All that is needed to encode any shard, in any process that sees the data and the folder.

    Attributes:
        model: in eval mode.
        examples: what to encode.
        labels: int64 `(N,)`, or None.
        table: what the columns of a shard are.
        out: the folder to write into.
        form: a name in `FORMATS`.
        shard_size: how many examples belong to a shard.
        batch_size: how many examples of one size are encoded at once.
        strict: refuse unreadable examples instead of skipping them.
    """

    model: Autoencoder
    examples: Examples
    labels: Tensor | None
    table: Table
    out: Path
    form: str
    shard_size: int
    batch_size: int
    strict: bool

    def __len__(self) -> int:
        return -(-len(self.examples) // self.shard_size)

    def part(self, number: int) -> range:
        """Return which examples belong to a shard."""
        return range(number * self.shard_size, min((number + 1) * self.shard_size, len(self.examples)))

    def encode(self, number: int, advance: Callable[[int], None] = lambda count: None) -> Done:
        """Encode a shard and write it. The content depends on nothing but the model and the examples.

        Args:
            number: of the shard.
            advance: is told how many further examples are encoded.
        """
        levels: dict[tuple[int, ...], Grids] = {}
        groups = self._groups(number, levels, advance)
        shard = write_shard(self.out, number, groups, self.table, self.form, levels=levels)
        part = (self.examples.names[index] for index in self.part(number))
        skipped = {name: self.examples.skipped[name] for name in part if name in self.examples.skipped}
        return Done(number, shard, levels, skipped)

    def rows(self, indices: Sequence[int], levels: dict[tuple[int, ...], Grids]) -> list[Row]:
        """Encode some examples, and note the grids of each size: none where the shape of the tokens says them."""
        found: dict[int, Row] = {}
        readable = self.examples.available(indices, strict=self.strict)
        for numbers, batch in batches(readable, self.batch_size):
            for number, (extent, grid) in zip(numbers, encode_examples(self.model, batch), strict=True):
                label = None if self.labels is None else int(self.labels[number])
                found[number] = Row(self.examples.names[number], extent, grid, label)
                sizes = tuple(extent.values())
                if sizes and sizes not in levels:
                    grids = self.model.levels(sizes)
                    levels[sizes] = [] if grids == [grid.shape[: len(sizes)]] else grids
        return [found[number] for number in sorted(found)]

    def _groups(
        self, number: int, levels: dict[tuple[int, ...], Grids], advance: Callable[[int], None]
    ) -> Iterator[list[Row]]:
        part, group = self.part(number), list[Row]()
        known: dict[tuple[int, ...], Grids] = {}
        for start in range(part.start, part.stop, PIECE):
            piece = range(start, min(start + PIECE, part.stop))
            group += self.rows(piece, known)
            advance(len(piece))
            if sum(row.indices.size for row in group) >= GROUP_TOKENS:
                yield group
                group = []
        levels.update({extent: grids for extent, grids in known.items() if grids})
        if group:
            yield group


# Encodes the shards of the numbers given, in any order and on any machines; it is told to whom to report progress.
Engine = Callable[[Work, Sequence[int], Callable[[int], None]], Iterable[Done]]


def here(work: Work, numbers: Sequence[int], advance: Callable[[int], None]) -> Iterator[Done]:
    """Encode shards one after the other in this process."""
    for number in numbers:
        yield work.encode(number, advance)


@torch.no_grad()
def encode_examples(model: Autoencoder, examples: Tensor) -> list[tuple[dict[str, int], np.ndarray[Any, Any]]]:
    """Encode a batch of examples of one size: the extent and the tokens of each, in the smallest type that holds K."""
    kind, device = kind_of(model), model.device
    grids = model.encode(kind.inputs(examples.to(device))).cpu().numpy()
    grids = grids.astype(smallest_dtype(model.codebook_sizes))
    return [(kind.extent(example), grid) for example, grid in zip(examples, grids, strict=True)]


def encode(
    model: Autoencoder,
    data: str | Path,
    out: str | Path,
    *,
    form: str = "parquet",
    labels: Literal["auto", "folder", "none"] = "auto",
    shard_size: int = SHARD_SIZE,
    batch_size: int = 1,
    strict: bool = False,
    overwrite: bool = False,
    engine: Engine = here,
    columns: Columns = USUAL,
) -> Encoded:
    """Turn a set of examples into tokens: a folder of shards, or one file if `out` ends in .safetensors.

    A shard appears whole or not at all, and `_tokens.json` comes last. Where encoding was interrupted, the same call
    goes on after the last shard that is whole, and comes to the same files. The memory does not grow with the data:
    beside the names, the tokens of a piece of it are held.

    Args:
        model: in eval mode, on any device.
        data: what the model's kind of data opens.
        out: the folder or the file.
        form: of the shards: `"parquet"`, or for other programs `"safetensors"`, `"npz"` or `"webdataset"`.
        labels: `"auto"` takes the column `label` of a table; `"folder"` the first folder's name; `"none"` none.
        shard_size: how many examples a shard holds.
        batch_size: how many examples of one size are encoded at once. Sums of floating numbers come out differently in
            the last bit when they are taken together, so that a few tokens on the edge between two codes may differ.
        strict: refuse data with unreadable examples instead of skipping them.
        overwrite: replace a token set, or what there is of it.
        engine: encodes the shards, here by default; `lexel.tokens.cluster.on_ray` on a cluster.
        columns: of a table, which hold and which name the examples.

    Raises:
        FileNotFoundError: `data` does not exist.
        FileExistsError: `out` exists, and `overwrite` is not set.
        BlockingIOError: another process writes into `out`.
        ValueError: there is no readable example, labels do not fit, or what there is of `out` was begun otherwise.
    """
    out = Path(out)
    if form not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {form!r}")
    require_within("shard_size", shard_size, 1, MOST_ROWS)
    require_within("batch_size", batch_size, 1, MOST_BATCH)
    if out.suffix == ".safetensors" or (out / MANIFEST).exists() or (out.exists() and not out.is_dir()):
        refuse_existing(out, overwrite=overwrite)
    kind = kind_of(model)
    examples = kind.open(data, model, columns)
    classes = labels_of(examples, labels)
    facts = facts_of(model, None if classes is None else classes.names)
    table = Table(facts, kind.extents, classes is not None)
    work = Work(
        model, examples, None if classes is None else classes.values, table, out, form, shard_size, batch_size, strict
    )  # fmt: skip
    if out.suffix == ".safetensors":
        return _encode_file(work)
    present = {entry.name for entry in out.iterdir()} - {LOCK} if out.is_dir() else set()
    if present and not present & {MANIFEST, PROGRESS}:
        raise FileExistsError(f"{out} exists and is not a set of tokens: choose another")
    with locked(out, "writes"):
        return _encode_folder(work, _stamp(Path(data), out), engine, overwrite=overwrite)


def _encode_file(work: Work) -> Encoded:
    """Write one file of safetensors; all tokens are held until then."""
    levels: dict[tuple[int, ...], Grids] = {}
    rows: list[Row] = []
    pieces = replace(work, shard_size=PIECE)
    with _shown(work, 0) as advance:
        for number in range(len(pieces)):
            rows += pieces.rows(pieces.part(number), levels)
            advance(len(pieces.part(number)))
    work.examples.report_remarks()
    if not rows:
        raise work.examples.none_readable()
    with written_beside(work.out) as temporary:
        grids = {extent: found for extent, found in levels.items() if found}
        write_file(temporary, rows, work.table.facts, grids)
    return Encoded(len(rows), sum(row.indices.size for row in rows), work.examples.skipped)


def _encode_folder(work: Work, stamp: str, engine: Engine, *, overwrite: bool) -> Encoded:
    done = _begin(work, stamp, overwrite=overwrite)
    missing = [number for number in range(len(work)) if number not in done]
    begun_here = not done
    try:
        _encode_missing(work, engine, missing, done)
    except (ValueError, OSError) as error:
        # What is refused leaves nothing: it can go on only as it was begun. Shards stay where a disk failed them.
        if begun_here and (isinstance(error, ValueError) or not done):
            _clear(work.out)
        raise
    work.examples.report_remarks()
    ordered = [done[number] for number in range(len(work))]
    skipped = {**work.examples.skipped, **{name: why for each in ordered for name, why in each.skipped.items()}}
    work.examples.skipped.update(skipped)
    if not any(each.shard.rows for each in ordered):
        _clear(work.out)
        raise work.examples.none_readable()
    levels = {extent: grids for each in ordered for extent, grids in each.levels.items()}
    write_manifest(work.out, Manifest([each.shard for each in ordered], work.table.facts, levels, skipped))
    (work.out / PROGRESS).unlink()
    return Encoded(sum(each.shard.rows for each in ordered), sum(each.shard.tokens for each in ordered), skipped)


def _encode_missing(work: Work, engine: Engine, missing: Sequence[int], done: dict[int, Done]) -> None:
    already = sum(len(work.part(number)) for number in done)
    with _shown(work, already) as advance, (work.out / PROGRESS).open("a", encoding="utf-8") as progress:
        for each in engine(work, missing, advance):
            done[each.number] = each
            progress.write(json.dumps(each.as_json()) + "\n")
            progress.flush()
            os.fsync(progress.fileno())


def _begin(work: Work, stamp: str, *, overwrite: bool) -> dict[int, Done]:
    """Take over the folder; return the shards of an interrupted encoding that are whole."""
    out, plan = work.out, {**_plan(work), "files": stamp}
    remove_halves(out)
    present = {entry.name for entry in out.iterdir()} - {LOCK}
    begun = out / PROGRESS
    with blamed_on(begun, f"is damaged; give --overwrite to begin {out} again"):
        lines = begun.read_text(encoding="utf-8").split("\n") if begun.is_file() else []
    if overwrite and ({MANIFEST, PROGRESS} & present or not present):
        _clear(out)
    elif MANIFEST in present and not begun.is_file():
        refuse_existing(out, overwrite=False)
    elif lines and lines[0] == json.dumps(plan):
        # What follows the last line feed is a line that a kill cut off. It must not be the beginning of the next one.
        whole = "\n".join(lines[:-1]) + "\n"
        with written_beside(begun) as temporary:
            temporary.write_text(whole, encoding="utf-8")
        with blamed_on(begun, f"is damaged; give --overwrite to begin {out} again"):
            found = [Done.from_json(json.loads(line)) for line in lines[1:-1]]
        done = {each.number: each for each in found if _whole(work, each)}
        messages.print(f"{out}: going on after {len(done)} of {len(work)} shards", soft_wrap=True)
        return done
    elif begun.is_file():
        raise ValueError(_otherwise(out, lines[0], plan))
    elif present:
        raise FileExistsError(f"{out} exists and is not a set of tokens: choose another")
    with written_beside(begun) as temporary:
        temporary.write_text(json.dumps(plan) + "\n", encoding="utf-8")
    return {}


def _plan(work: Work) -> dict[str, Any]:
    """Return all that the content of the shards depends on."""
    names = hashlib.sha256("\0".join(work.examples.names).encode("utf-8", "surrogatepass"))
    labels = None if work.labels is None else hashlib.sha256(work.labels.numpy().tobytes()).hexdigest()
    return {
        "facts": work.table.facts.as_json(),
        "data": names.hexdigest(),
        "labels": labels,
        "format": work.form,
        "shard_size": work.shard_size,
        "batch_size": work.batch_size,
        "strict": work.strict,
    }


def _stamp(data: Path, out: Path) -> str:
    """Return a digest of the size and the time of each file of the data: names may stay where content changes."""
    own = out.resolve()
    files = sorted(path for path in data.resolve().rglob("*") if own not in path.parents) if data.is_dir() else [data]
    found = hashlib.sha256()
    for path in files:
        if path.is_file():
            facts = path.stat()
            found.update(f"{path.name} {facts.st_size} {facts.st_mtime_ns} ".encode("utf-8", "surrogatepass"))
    return found.hexdigest()


def _otherwise(out: Path, begun: str, plan: Mapping[str, Any]) -> str:
    try:
        before = json.loads(begun)
        differing = ", ".join(name for name in plan if before.get(name) != plan[name])
    except (ValueError, AttributeError):
        differing = "unreadable settings"
    return f"{out} is unfinished and was begun otherwise ({differing}): give what it was begun with, or --overwrite"


def _whole(work: Work, done: Done) -> bool:
    path = work.out / shard_name(done.number, work.form)
    return path.name == done.shard.file and path.is_file() and file_digest(path) == done.shard.sha256


def _clear(out: Path) -> None:
    """Remove the files of a token set, and nothing else; the list of its shards first, so that no part looks whole."""
    remove_halves(out)
    for name in (MANIFEST, PROGRESS):
        (out / name).unlink(missing_ok=True)
    for entry in list(out.iterdir()):
        if is_shard(entry.name) and entry.is_file():
            entry.unlink()


def labels_of(examples: Examples, labels: str) -> Labels | None:
    """Return the classes of examples.

    Args:
        examples: which.
        labels: `"auto"` takes the column `label` of a table; `"folder"` the first folder's name; `"none"` none.

    Raises:
        ValueError: the column holds something else than classes, or an example lies in no folder.
    """
    if labels == "folder":
        return folder_labels(examples.names)
    if labels not in ("auto", "none"):
        raise ValueError(f"labels must be auto, folder or none, got {labels!r}")
    try:
        return examples.labels if labels == "auto" else None
    except ValueError as error:
        raise ValueError(f"{error} (--labels none takes none)") from error


@contextmanager
def _shown(work: Work, already: int) -> Iterator[Callable[[int], None]]:
    """Show how many examples are encoded."""
    with progress_bar() as bar:
        task = bar.add_task("encoding", total=len(work.examples), completed=already, note="")
        yield lambda count: bar.advance(task, count)
