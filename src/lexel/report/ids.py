"""The page about semantic IDs: how good they are, and the tree of their prefixes with the items under each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lexel.data.tables import USUAL, Columns
from lexel.data.vectors import open_vectors
from lexel.models import VectorAutoencoder
from lexel.report.page import check_place, joined, save_page
from lexel.report.reading import Run, read_run, trained_on
from lexel.report.sections import Section, training_rows
from lexel.runs import REPORT, load_model, model_folder
from lexel.tokens.identify import ids_to_judge, quality_of_ids
from lexel.tokens.ids import IDs
from lexel.tokens.quality import IDQuality

__all__ = ["IDReport", "write_id_report", "write_vector_report"]

MOST_NODES = 1 << 17  # of all levels that the page shows
MOST_ITEMS, ITEMS_OF_PREFIX = 1 << 16, 40  # that it names: in all, and under each of the longest prefixes
MOST_LETTERS = 200  # of a text


@dataclass(frozen=True)
class IDReport:
    """Everything that the page of IDs shows.

    Attributes:
        name: what stands above the page.
        run: the files of the run that made them; None where it is not known.
        ids: of the items.
        quality: how good they are; None if that is not known.
        texts: what is shown beside the name of each item, in the order of the rows; None for nothing.
    """

    name: str
    ids: IDs
    quality: IDQuality | None = None
    texts: Sequence[str] | None = None
    run: Run[VectorAutoencoder] | None = None


def write_id_report(report: IDReport, out: Path, *, overwrite: bool = False) -> Path:
    """Write a self-contained HTML page about IDs.

    Args:
        report: what it shows.
        out: the file to write.
        overwrite: replace `out` even if it is not a report.

    Returns:
        The path of the file.

    Raises:
        FileExistsError: `out` exists, is no report, and `overwrite` is not set; or it is a folder.
        OSError: nothing can be written there.
        ValueError: there are not as many texts as items.
    """
    check_place(out, overwrite=overwrite)
    if report.texts is not None and len(report.texts) != len(report.ids):
        raise ValueError(f"there are {len(report.texts)} texts for {len(report.ids)} items")
    run = report.run
    sections = SECTIONS if run is None else (*SECTIONS, *SECTIONS_OF_RUN)
    named = {"run": report} if run is None else {"run": run, "model": run.model}
    html = joined("ids.html", sections, report, ids=report.ids, quality=report.quality, **named)
    return save_page(html, out)


def write_vector_report(
    run: Path,
    out: Path | None = None,
    data: str | Path | None = None,
    *,
    ids: str | Path | None = None,
    text: str | None = None,
    overwrite: bool = False,
    columns: Columns = USUAL,
) -> Path:
    """Write a self-contained HTML page about a run on vectors: the IDs of their items.

    Args:
        run: folder of a run, or of a saved model of vectors.
        out: the file to write; by default report.html in `run`.
        data: the vectors; by default those that the run was fitted to.
        ids: a file of the items' IDs, as `lexel encode` wrote it; by default those that the model gives.
        text: the column of the data with a text for each item.
        overwrite: replace `out` even if it is not a report.
        columns: of a table, which hold the vectors and name their items.

    Returns:
        The path of the file.

    Raises:
        FileNotFoundError: there is no model in `run`, or nothing at the path of the vectors or the IDs.
        FileExistsError: `out` exists, is no report, and `overwrite` is not set; or it is a folder.
        OSError: nothing can be written there.
        ValueError: the run does not name its vectors and there is no `data`, there is no such column, a file is
            malformed, or the IDs are of other items or another model.
    """
    if out is None:
        model_folder(run)  # in a folder that has none the page has no place
        out = run / REPORT
    check_place(out, overwrite=overwrite)
    model = load_model(run)
    if not isinstance(model, VectorAutoencoder):
        raise ValueError(f"this page needs a model of vectors, this one takes {model.kind}")
    read = read_run(run, model)
    path, _ = trained_on(read, data, "vectors")
    if data is None:  # the run knows which columns it read
        columns = Columns(*(read.config.get(name) for name in ("column", "id_column")))
    vectors = open_vectors(path, model.dim, columns=columns, unit=model.unit)
    found = ids_to_judge(model, vectors, ids)
    quality = quality_of_ids(model, vectors, found)
    texts = None if text is None else vectors.texts(text)
    return write_id_report(IDReport(read.name, found, quality, texts, read), out, overwrite=True)


def prefix_tree(report: IDReport) -> dict[str, Any]:
    """Return the tree of prefixes as the page's script takes it.

    The items stand in the order of their codes. `levels` has for each level the last code of every prefix, `codes`, and
    where the items under it begin, `starts`. Where there are too many, the longest prefixes are left out, and some of
    the items under the longest that remain, evenly spread. Of the others, `items` holds the place in the order, `at`,
    the name, all codes, and, if there are some, the text and the class.
    """
    ids, trie = report.ids, report.ids.trie()
    starts = [level.numpy() for level in trie.starts]
    sizes = np.cumsum([len(level) - 1 for level in starts])
    depth = max(int((sizes <= MOST_NODES).sum()), 1)
    order = trie.order.numpy()
    classes, names = None, ids.facts.label_names
    if ids.labels is not None:
        values, classes = np.unique(ids.labels, return_inverse=True)
        names = tuple(names[value] if names else str(value) for value in values.tolist())
    levels = []
    for level in range(depth):
        keys, size = trie.keys[level].numpy(), ids.codebook_sizes[level]
        own: dict[str, Any] = {"size": size, "codes": (keys % size).tolist(), "starts": starts[level].tolist()}
        if classes is not None and names is not None:
            pairs, counts = np.unique(trie.nodes(level).numpy() * len(names) + classes, return_counts=True)
            last = np.lexsort((counts, pairs // len(names)))  # of each prefix, its most frequent class comes last
            ends = np.flatnonzero(np.diff(pairs[last] // len(names), append=-1))
            own["classes"] = (pairs[last][ends] % len(names)).tolist()
            own["share"] = [round(share, 4) for share in (counts[last][ends] / np.diff(starts[level])).tolist()]
        levels.append(own)
    ends = starts[depth - 1]
    most = max(min(ITEMS_OF_PREFIX, MOST_ITEMS // (len(ends) - 1)), 1)
    counts = np.minimum(np.diff(ends), most)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    among = np.arange(len(first)) - first
    at = np.repeat(ends[:-1], counts) + among * np.repeat(np.diff(ends), counts) // np.repeat(counts, counts)
    rows = order[at]
    items: dict[str, Any] = {
        "at": at.tolist(),
        "names": [str(item) for item in ids.items.array.take(rows).to_pylist()],
        "codes": ids.codes[rows].tolist(),
    }
    if report.texts is not None:
        items["texts"] = [_shortened(str(report.texts[row])) for row in rows.tolist()]
    if classes is not None:
        items["classes"] = classes[rows].tolist()
    return {"levels": levels, "items": items, "classes": names, "count": len(ids), "depth": len(ids.codebook_sizes)}


def _shortened(text: str) -> str:
    return text if len(text) <= MOST_LETTERS else text[: MOST_LETTERS - 1] + "…"


SECTIONS = (Section("levels"), Section("tree", ("tree",), prefix_tree))
SECTIONS_OF_RUN = (Section("training", ("training",), training_rows), Section("origin"))
