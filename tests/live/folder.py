"""The folder of a page, for models at hand."""

from __future__ import annotations

import base64
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lexel.export import export
from tests.web import ROOT


def write_folder(models: Mapping[str, Any], out: Path) -> None:
    (out / "models").mkdir(parents=True)
    entries = []
    for number, (title, model) in enumerate(sorted(models.items(), key=lambda item: item[1].num_embeddings), 1):
        with tempfile.TemporaryDirectory() as tmp:
            folder = Path(tmp) / "x"
            export(model, folder)
            facts = json.loads((folder / "export.json").read_text())
            facts["downsampling"] = list(model.factors)
            facts["grids"] = None if model.image_size is None else model.levels(model.image_size)
            content = {k: base64.b64encode((folder / f"{k}.onnx").read_bytes()).decode() for k in ("encoder", "decoder")}
        (out / f"models/{number}.js").write_text(
            f"globalThis.lexelModel({json.dumps(str(number))}, {json.dumps({'facts': facts, **content})});\n"
        )
        entries.append({"name": str(number), "title": title, "codes": model.num_embeddings, "script": f"models/{number}.js"})
    (out / "models.js").write_text(f"globalThis.lexelModels = {json.dumps({'models': entries, 'photos': []})};\n")
    for name in ("index.html", "live.css", "live.js", "runtime.js"):
        shutil.copy(ROOT / "src/lexel/export/page" / name, out)
