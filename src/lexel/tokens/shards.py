"""A folder of tokens: shards, and the list of them that is written last."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from lexel._core.files import written_beside
from lexel._core.places import MANIFEST, PROGRESS
from lexel.tokens.facts import Facts, Grids, levels_as_json, levels_from_json
from lexel.tokens.formats import FORMATS
from lexel.tokens.rows import Row, Table

__all__ = [
    "MANIFEST",
    "PROGRESS",
    "Manifest",
    "Shard",
    "check_shard",
    "file_digest",
    "is_shard",
    "read_manifest",
    "shard_name",
    "write_manifest",
    "write_set",
    "write_shard",
]

FORMAT = "lexel-token-set-1"
SHARD_SIZE = 4096  # examples
SHARD = re.compile(r"part-\d{5,}\.(parquet|safetensors|npz|tar)")


@dataclass(frozen=True)
class Shard:
    """A file of a token set.

    Attributes:
        file: its name.
        rows: how many examples it holds.
        tokens: how many indices they have.
        sha256: the checksum of its content.
    """

    file: str
    rows: int
    tokens: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What `_tokens.json` says: which shards belong to a set, and what their tokens have in common.

    Attributes:
        shards: in the order of their examples.
        facts: what is true of all tokens.
        levels: the grids of examples with several levels, by the values of their extent.
        skipped: examples that could not be read, with the reason.
    """

    shards: Sequence[Shard]
    facts: Facts
    levels: Mapping[tuple[int, ...], Grids] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)


def write_set(folder: Path, rows: Iterable[Row], facts: Facts, *, shard_size: int = SHARD_SIZE) -> None:
    """Write rows, one or more, as a folder of Parquet shards.

    Args:
        folder: to write into; created if it is missing.
        rows: all of them with labels, or none.
        facts: what is true of all tokens.
        shard_size: how many rows a shard holds.
    """
    remaining = iter(rows)
    shards: list[Shard] = []
    while held := list(islice(remaining, shard_size)):
        table = Table(facts, tuple(held[0].extent), held[0].label is not None)
        shards.append(write_shard(folder, len(shards), [held], table))
    write_manifest(folder, Manifest(shards, facts))


def shard_name(number: int, form: str) -> str:
    """Return the name of the file of a shard.

    Example:
        >>> shard_name(7, "parquet")
        'part-00007.parquet'
    """
    return f"part-{number:05d}{FORMATS[form].suffix}"


def write_shard(
    folder: Path,
    number: int,
    groups: Iterable[Sequence[Row]],
    table: Table,
    form: str = "parquet",
    *,
    levels: Mapping[tuple[int, ...], Grids] | None = None,
) -> Shard:
    """Write a shard, whole or not at all.

    Args:
        folder: to write into; created if it is missing.
        number: of the shard.
        groups: its rows; what a format can stream, it writes group by group.
        table: what the columns are.
        form: a name in `FORMATS`.
        levels: the grids of its examples, by their extent, where their shape does not say it; complete when the last
            group has come.

    Raises:
        OSError: it cannot be written.
    """
    path = folder / shard_name(number, form)
    rows = tokens = 0

    def counted() -> Iterator[Sequence[Row]]:
        nonlocal rows, tokens
        for group in groups:
            rows, tokens = rows + len(group), tokens + sum(row.indices.size for row in group)
            yield group

    with written_beside(path) as temporary:
        FORMATS[form].write(temporary, counted(), table, {} if levels is None else levels)
        checksum = file_digest(temporary)
    return Shard(path.name, rows, tokens, checksum)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `_tokens.json`, by which a folder becomes a token set.

    Raises:
        OSError: it cannot be written.
    """
    content = {
        "format": FORMAT,
        "shards": [vars(shard) for shard in manifest.shards],
        "facts": manifest.facts.as_json(),
        "levels": levels_as_json(manifest.levels),
        "skipped": dict(manifest.skipped),
    }
    content["sha256"] = _checksum(content)
    with written_beside(folder / MANIFEST) as temporary:
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """Read `_tokens.json`, and check that all shards are there; `check_shard` checks their content.

    Raises:
        FileNotFoundError: the file or a shard is missing.
        ValueError: the file is malformed or damaged.
    """
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.get("format") != FORMAT:
            raise ValueError(f"its format is {content.get('format')!r}, expected {FORMAT!r}")
        if content.pop("sha256", None) != _checksum(content):
            raise ValueError("it is damaged or was changed: its checksum is not that of its content")
        manifest = Manifest(
            [Shard(**shard) for shard in content["shards"]],
            Facts.from_json(content["facts"]),
            levels_from_json(content["levels"]),
            dict(content["skipped"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} does not list the shards of a token set: {error}") from error
    for shard in manifest.shards:
        if not is_shard(shard.file):
            raise ValueError(f"{path} names {shard.file!r}, which is not the name of a shard")
        if not (folder / shard.file).is_file():
            raise FileNotFoundError(
                f"{folder / shard.file} is missing: {path.name} lists it with {shard.rows} examples"
            )
    return manifest


def check_shard(folder: Path, shard: Shard) -> Path:
    """Return the path of a shard whose content is the one that was written.

    Raises:
        ValueError: it is half-written, damaged or was changed.
    """
    path = folder / shard.file
    if file_digest(path) != shard.sha256:
        raise ValueError(f"{path} is damaged or was changed: its checksum is not the one in {MANIFEST}")
    return path


def is_shard(name: str) -> bool:
    """Whether a file in the folder of a token set is one of its shards, by its name."""
    return SHARD.fullmatch(name) is not None


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            found.update(piece)
    return found.hexdigest()


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
