"""What stands at a path, by the files that Lexel writes: an error says what was given in place of what is wanted."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

from lexel._core.files import environment_of

__all__ = ["MANIFEST", "MODEL", "PRIOR_FACTS", "PROGRESS", "instead", "stands_at"]

MANIFEST = "_tokens.json"  # of a set of tokens
PROGRESS = "_progress.jsonl"  # of one, while encoding is not finished
MODEL = "model"  # the folder of the model in that of a run
PRIOR_FACTS = "tokens.json"  # beside a prior: which tokens it knows
PICTURES = {".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
LOOKED_AT = 10_000  # files, to find a picture
HEAD = 1 << 16  # bytes of a file that say what it is

# What it is, and what is to be done with it.
NAMES = {
    "tokens": "a set of tokens, which lexel decode, stats and train-prior take",
    "unfinished tokens": "an unfinished set of tokens: give the same lexel encode again, and it goes on",
    "prior": "a prior, with which lexel sample draws",
    "model": "a model, which encodes images (lexel encode) and, with their tokens, trains a prior (lexel train-prior)",
    "run": "a run that has not ended: lexel resume goes on with it",
    "compressed": "a compressed image, which lexel decompress takes",
    "images": "images, of which lexel encode RUN {path} --out tokens/ makes tokens",
}


def stands_at(path: Path) -> str | None:
    """Return what stands at a path, a name in `NAMES`; None for anything else, and for what cannot be read."""
    try:
        return _in_folder(path) if path.is_dir() else _in_file(path) if path.is_file() else None
    except OSError:
        return None


def instead(path: Path) -> str:
    """Return the end of a sentence that says what stands at a path in place of what is wanted; empty if unknown.

    Example:
        >>> f"it is no model{instead(Path('holidays.jpg'))}"  # where nothing stands
        'it is no model'
    """
    found = stands_at(path)
    return "" if found is None else f", but {NAMES[found].format(path=path)}"


def _in_folder(path: Path) -> str | None:
    for file, name in ((MANIFEST, "tokens"), (PROGRESS, "unfinished tokens")):
        if (path / file).is_file():
            return name
    for folder in (path / MODEL, path):
        if (folder / "config.json").is_file() and (folder / "model.safetensors").is_file():
            return "prior" if (folder / PRIOR_FACTS).is_file() else "model"
    if environment_of(path):
        return "run"
    files = (name for _, _, names in os.walk(path) for name in names)
    return "images" if any(Path(name).suffix.lower() in PICTURES for name in islice(files, LOOKED_AT)) else None


def _in_file(path: Path) -> str | None:
    with path.open("rb") as file:
        head = file.read(HEAD)
    if head.startswith(b"LXL"):
        return "compressed"
    if b"lexel-tokens-" in head:
        return "tokens"
    return "images" if path.suffix.lower() in PICTURES else None
