"""Real items with texts that a package ships: WordNet 3.0, of Debian's `wordnet-base`."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import Tensor

WORDNET = Path("/usr/share/wordnet")


class Text(NamedTuple):
    """An item.

    Attributes:
        name: its words, as "dog, domestic dog, Canis familiaris".
        text: what it is, in a sentence.
        kind: number of the file that lexicographers keep it in: animals, food, motion and so on, 0 to 44.
    """

    name: str
    text: str
    kind: int


def real_texts() -> list[Text]:
    """Read all entries, in the order of WordNet's files (wndb(5WN)).

    Raises:
        FileNotFoundError: WordNet is not installed.
    """
    if not WORDNET.is_dir():
        raise FileNotFoundError(f"{WORDNET} is absent: apt-get install wordnet-base")
    texts = []
    for part in ("noun", "verb", "adj", "adv"):
        for line in (WORDNET / f"data.{part}").read_text(encoding="utf-8").splitlines():
            if line.startswith("  "):  # the licence
                continue
            entry, text = line.split(" | ", 1)
            _, kind, _, words, *rest = entry.split()
            names = rest[: 2 * int(words, 16) : 2]
            texts.append(Text(", ".join(names).replace("_", " "), text.strip(), int(kind)))
    return texts


def text_embeddings(texts: list[Text], dim: int = 128) -> Tensor:
    """Embed texts by TF-IDF and a truncated SVD, `(N, dim)`, float32, of length 1.

    A text none of whose words is common has the embedding of zero length.
    """
    counts = TfidfVectorizer(sublinear_tf=True, min_df=2, stop_words="english")
    words = counts.fit_transform(f"{each.name}: {each.text}" for each in texts)
    rows = torch.from_numpy(TruncatedSVD(dim, random_state=0).fit_transform(words)).float()
    return torch.nn.functional.normalize(rows, dim=1)
