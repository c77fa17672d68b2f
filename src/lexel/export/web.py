"""The page that runs models in a browser, with nothing from elsewhere: its files, and the folder that they make."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from lexel._core.files import refuse_existing
from lexel.data.kind import kind_of
from lexel.export.convert import Verdict, convert
from lexel.export.write import Exported, write_files
from lexel.models import Autoencoder

__all__ = ["Page", "Photo", "export_page", "page_of"]

PAGE = ("runtime.js", "live.js", "live.css", "index.html")  # those that are the same for all models
CHANNELS = (1, 3, 4)  # which the page can draw


@dataclass(frozen=True)
class Photo:
    """A picture that a page has with it.

    Attributes:
        titles: what it shows, by language, `"en"` and `"zh"`.
        path: of a PNG file.
    """

    titles: Mapping[str, str]
    path: Path


@dataclass(frozen=True)
class Page:
    """A page of models, in memory.

    Attributes:
        files: what each of its files holds, by its path below the folder; `index.html` comes last.
        verdicts: how the graphs of each model compare with it; None where onnxruntime is not installed.
    """

    files: Mapping[str, bytes]
    verdicts: Sequence[Verdict | None]


def page_of(models: Mapping[str, Autoencoder], photos: Sequence[Photo] = ()) -> Page:
    """Return the page of models of images, with a slider of their numbers of codes.

    Args:
        models: in eval mode, on the CPU, by the titles that the page shows.
        photos: pictures to begin with.

    Raises:
        ValueError: there is no model, or one that the page cannot show or that cannot be exported.
    """
    if not models:
        raise ValueError("models: a page shows at least one model, got none")
    for title, model in models.items():
        _check(title, model)
    contents, entries, verdicts = dict[str, bytes](), list[dict[str, Any]](), list[Verdict | None]()
    ordered = sorted(models.items(), key=lambda item: item[1].num_embeddings)
    for number, (title, model) in enumerate(ordered, 1):
        graphs = convert(model)
        encoded = {name: base64.b64encode(graph).decode() for name, graph in graphs.content.items()}
        script = f"models/{number}.js"
        contents[script] = _call("lexelModel", str(number), {"facts": {**graphs.facts, **_grids(model)}, **encoded})
        entries.append({"name": str(number), "title": title, "codes": model.num_embeddings, "script": script})
        verdicts.append(graphs.verdict)
    shown = []
    for number, photo in enumerate(photos, 1):
        source = f"photos/{number}.js"
        picture = "data:image/png;base64," + base64.b64encode(photo.path.read_bytes()).decode()
        contents[source] = _call("lexelPhoto", str(number), picture)
        shown.append({"name": str(number), "title": dict(photo.titles), "source": source})
    contents["models.js"] = f"globalThis.lexelModels = {json.dumps({'models': entries, 'photos': shown})};\n".encode()
    return Page(contents | {name: (files("lexel.export") / "page" / name).read_bytes() for name in PAGE}, verdicts)


def export_page(models: Mapping[str, Autoencoder], out: Path, *, overwrite: bool = False) -> Exported:
    """Write the page of models into a folder, which a browser opens from disk or from any server; all or nothing.

    Args:
        models: as `page_of` takes them.
        out: the folder; created if it is missing.
        overwrite: replace what exists.

    Raises:
        FileExistsError: `out` exists, and `overwrite` is not set.
        ValueError: as `page_of` does.
        OSError: the folder cannot be written.
    """
    refuse_existing(out, overwrite=overwrite, folder=True)
    page = page_of(models)
    stale = (f"models/{number}.js" for number in itertools.count(len(models) + 1))  # of a page of more models
    return Exported(write_files(page.files, out, overwrite=overwrite, stale=stale), page.verdicts)


def _check(title: str, model: Any) -> None:
    if kind_of(model).name != "images":
        raise ValueError(f"{title}: the page shows images, and this is a model of {kind_of(model).name}")
    if model.image_channels not in CHANNELS:
        raise ValueError(f"{title}: the page shows images of 1, 3 or 4 channels, and its have {model.image_channels}")


def _grids(model: Any) -> dict[str, Any]:
    """Say how the indices of an image lie in it."""
    size = model.image_size
    return {"downsampling": list(model.factors), "grids": None if size is None else model.levels(size)}


def _call(function: str, name: str, content: Any) -> bytes:
    return f"globalThis.{function}({json.dumps(name)}, {json.dumps(content)});\n".encode()
