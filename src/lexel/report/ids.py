"""The page about semantic IDs: how good they are, and the tree of their prefixes with the items under each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lexel._core.files import refuse_existing, written_beside
from lexel.report.page import joined
from lexel.report.sections import Section
from lexel.runs import is_report
from lexel.tokens.ids import IDs
from lexel.tokens.quality import IDQuality

__all__ = ["IDReport", "write_id_report"]

MOST_NODES = 1 << 17  # of all levels that the page shows
MOST_ITEMS, ITEMS_OF_PREFIX = 1 << 16, 40  # that it names: in all, and under each of the longest prefixes
MOST_LETTERS = 200  # of a text


@dataclass(frozen=True)
class IDReport:
    """Everything that the page of IDs shows.

    Attributes:
        name: what stands above the page.
        ids: of the items.
        quality: how good they are; None if that is not known.
        texts: what is shown beside the name of each item, in the order of the rows; None for nothing.
    """

    name: str
    ids: IDs
    quality: IDQuality | None = None
    texts: Sequence[str] | None = None


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
    refuse_existing(out, overwrite=overwrite or is_report(out), folder=False)
    if report.texts is not None and len(report.texts) != len(report.ids):
        raise ValueError(f"there are {len(report.texts)} texts for {len(report.ids)} items")
    html = joined("ids.html", SECTIONS, report, run=report, ids=report.ids, quality=report.quality)
    with written_beside(out) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return out


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
