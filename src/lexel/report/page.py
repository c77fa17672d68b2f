"""Write one HTML file that shows a run: read the run, measure and judge its model, paint the page."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lexel._core.files import refuse_existing, written_beside
from lexel.data.images import to_pixels
from lexel.data.pictures import heat_map
from lexel.models import require_images
from lexel.report.findings import judge
from lexel.report.measuring import measure
from lexel.report.pictures import data_uri
from lexel.report.reading import open_source, read_run
from lexel.report.sections import SECTIONS, Report, Section
from lexel.report.wording import amount, counted, percent
from lexel.runs import REPORT, REPORT_MARK, is_report, load_model, model_folder
from lexel.tokens.decode import check_model
from lexel.tokens.open import open_tokens
from lexel.tokens.statistics import statistics_of

try:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup
except ImportError as error:
    raise ImportError("lexel.report needs jinja2: pip install 'lexel[train]'") from error

__all__ = ["check_place", "joined", "paint", "save_page", "write_report"]

WEB = Path(__file__).parent / "web"
SHARED_SCRIPTS = ("page", "theme", "keyboard", "chart")


@torch.no_grad()
def write_report(
    run: Path,
    out: Path | None = None,
    data: str | Path | None = None,
    *,
    tokens: str | Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a self-contained HTML page about a run, or about a saved model.

    Args:
        run: folder of a run, or of a saved model.
        out: the file to write; by default report.html in `run`.
        data: images for the model to reconstruct, as `lexel.data.images.open_images` takes them; by default those that
            it was trained on.
        tokens: a set of tokens that the model made, whose statistics the page shows.
        overwrite: replace `out` even if it is not a report.

    Returns:
        The path of the file.

    Raises:
        FileNotFoundError: there is no model in `run`, or nothing at the path of the images.
        FileExistsError: `out` exists, is no report, and `overwrite` is not set; or it is a folder.
        OSError: nothing can be written there.
        ValueError: no image is readable, the run does not name its images and there is no `data`, or a file of the run
            is malformed, or another model made the tokens.
    """
    if out is None:
        model_folder(run)  # in a folder that has none the page has no place
        out = run / REPORT
    check_place(out, overwrite=overwrite)
    read = read_run(run, require_images(load_model(run), "this page"))
    source = open_source(read, data)
    statistics = None
    if tokens is not None:
        opened = open_tokens(tokens)
        check_model(opened, read.model)
        statistics = statistics_of(opened)
    measurement = measure(read.model, source.images)
    html = paint(Report(read, source, measurement, judge(read, measurement), statistics))
    return save_page(html, out)


def paint(report: Report) -> str:
    """Return the page about a run."""
    return joined(
        "page.html",
        SECTIONS,
        report,
        run=report.run,
        model=report.run.model,
        quantizer=report.run.model.quantizers[0],
        source=report.source,
        measurement=report.measurement,
        findings=report.findings,
        statistics=report.statistics,
    )


def check_place(out: Path, *, overwrite: bool) -> None:
    """Check that a page may be written at `out`, before it is made: a report may be replaced.

    Raises:
        FileExistsError: `out` exists, is no report, and `overwrite` is not set; or it is a folder.
        OSError: nothing can be written there.
    """
    refuse_existing(out, overwrite=overwrite or is_report(out), folder=False)


def save_page(html: str, out: Path) -> Path:
    """Write a page whole, or not at all, and return its path."""
    with written_beside(out) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return out


def joined(template: str, sections: Sequence[Section], report: Any, **names: Any) -> str:
    """Return a page: templates, style and scripts of `web/`, joined into one text.

    Args:
        template: the frame of the page.
        sections: what it shows, from top to bottom.
        report: what the sections take their data from.
        names: what the templates can use.
    """
    # Everything that a template inserts is escaped unless it is `Markup`, which only the page's own files are.
    environment = Environment(
        loader=FileSystemLoader(WEB), autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": True, "allow_nan": False}  # JSON has no NaN
    environment.filters.update(amount=amount, counted=counted, percent=percent, picture=_picture, heat=_heat)
    scripts = [*SHARED_SCRIPTS, *(name for section in sections for name in section.scripts)]
    script = "\n".join((WEB / f"{name}.js").read_text(encoding="utf-8") for name in scripts)
    return environment.get_template(template).render(
        mark=Markup(REPORT_MARK),
        style=Markup((WEB / "page.css").read_text(encoding="utf-8")),
        script=Markup(script),
        # The page's own security policy lets the browser run this script and no other.
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        sections=[section.name for section in sections],
        data={section.name: section.data(report) for section in sections if section.data},
        **names,
    )


def _picture(image: Tensor) -> str:
    return data_uri(to_pixels(image))


def _heat(error: Tensor, highest: float) -> str:
    return data_uri(heat_map(error, highest))
