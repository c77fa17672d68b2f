"""What draws new examples: a prior, the model whose codes it knows, and the folder that holds both."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lexel._core.errors import blamed_on, sizes_named
from lexel._core.files import written_beside
from lexel._core.places import PRIOR_FACTS as FACTS, instead
from lexel._core.pretrained import CONFIG
from lexel.data.kind import Kind, kind_of
from lexel.models import Autoencoder
from lexel.priors.base import FREE, Prior, kinds
from lexel.runs import MODEL, TOKENIZER, load_model
from lexel.tokens import TokenSet, fingerprint
from lexel.tokens.decode import check_model

__all__ = ["KEPT", "Painter", "check_tokens", "class_count"]

MOST_CODES, FEW_CLASSES = 1 << 20, 1000
KEPT = ("left", "top", "box")
DECODED_AT_ONCE = 64


@dataclass(frozen=True)
class Painter:
    """A prior, and what turns its tokens into examples.

    Attributes:
        prior: which tokens follow each other.
        model: decodes them.
        shape: of an example's indices, as the model's `encode` gives them.
        size: of an example, such as (height, width).
        label_names: the name of each class; None where they have no names.
    """

    prior: Prior
    model: Autoencoder
    shape: tuple[int, ...]
    size: Any
    label_names: tuple[str, ...] | None = None

    @classmethod
    def of_tokens(cls, kind: str, model: Autoencoder, tokens: TokenSet, **sizes: int) -> Painter:
        """Return one with a new prior for a set of tokens.

        Args:
            kind: of the prior, by its name.
            model: made the tokens.
            tokens: to learn from.
            sizes: further arguments of the prior.

        Raises:
            ValueError: there is no such kind, or the tokens come from another model, have several shapes, or have
                labels out of range.
        """
        known = kinds()
        if kind not in known:
            raise ValueError(f"there is no kind of prior named {kind!r}; known: {', '.join(sorted(known))}")
        check_model(tokens, model)
        _check_size(model, tokens)
        if (most := max(tokens.codebook_sizes)) > MOST_CODES:
            raise ValueError(f"a prior has weights for each code: K must be at most {MOST_CODES:,}, got {most:,}")
        shapes = tokens.shapes[:1].tolist()
        with sizes_named("the prior", sizes):
            prior = known[kind](tokens.levels(0), list(tokens.codebook_sizes), class_count(tokens), **sizes)
        return cls(prior, model, tuple(shapes[0]), tokens.extent(0), tokens.label_names)

    @staticmethod
    def stands_in(folder: Path) -> bool:
        """Whether a folder is that of a prior, and not of a model."""
        return any((each / FACTS).is_file() for each in (folder / MODEL, folder))

    @classmethod
    def load(cls, folder: Path) -> Painter:
        """Load what `save` wrote, or what a run of a prior has come to, in eval mode.

        Raises:
            FileNotFoundError: there is no prior.
            ValueError: a file is damaged, or does not belong to the others.
        """
        found = folder / MODEL if (folder / MODEL).is_dir() else folder
        if not (found / CONFIG).is_file() or not (found / FACTS).is_file():
            raise FileNotFoundError(f"{folder} holds no prior and no run of one that is finished{instead(folder)}")
        with blamed_on(found / CONFIG, "does not describe a prior"):
            prior = Prior.from_pretrained(found)
        model = load_model(found / TOKENIZER)
        with blamed_on(found / FACTS, "is malformed"):
            facts = json.loads((found / FACTS).read_text(encoding="utf-8"))
            names = facts["label_names"]
            shape, size = (tuple(int(side) for side in facts[name]) for name in ("shape", "size"))
            maker, names = str(facts["model"]), None if names is None else tuple(map(str, names))
        if maker != fingerprint(model):
            raise ValueError(f"{found / TOKENIZER} is another model than the one whose tokens the prior knows")
        if (torch.Size(shape).numel(), tuple(prior.codebook_sizes)) != (
            torch.Size(prior.shape).numel(),
            tuple(model.codebook_sizes),
        ):
            raise ValueError(f"{found / FACTS} does not belong to this prior: it has indices of shape {shape}")
        return cls(prior, model, shape, size, names)

    def save(self, folder: Path) -> None:
        """Write the prior, the facts of its tokens, and the model into a folder."""
        self.prior.save_pretrained(folder)
        self.model.save_pretrained(folder / TOKENIZER)
        names = None if self.label_names is None else list(self.label_names)
        facts = {"model": fingerprint(self.model), "shape": self.shape, "size": self.size, "label_names": names}
        with written_beside(folder / FACTS) as temporary:
            temporary.write_text(json.dumps(facts, indent=2), encoding="utf-8")

    @property
    def kind(self) -> Kind:
        """The kind of data that it draws."""
        return kind_of(self.model)

    def to(self, device: torch.device) -> Painter:
        """Move both models to a device."""
        self.prior.to(device)
        self.model.to(device)
        return self

    def paint(self, n: int, labels: Tensor | None = None, *, batch_size: int = DECODED_AT_ONCE, **how: Any) -> Tensor:
        """Draw n examples, as a file holds them.

        Args:
            n: how many.
            labels: integers `(n,)`; by default no class.
            batch_size: how many are drawn together; another one draws other examples from the same generator.
            how: temperature, top_k, top_p, guidance, generator and given, as `Prior.sample` takes them.

        Raises:
            ValueError: as `Prior.sample`.
        """
        starts = range(0, n, batch_size)
        parts = [None if labels is None else labels[start : start + batch_size] for start in starts]
        return torch.cat(
            [
                self.decoded(self.prior.sample(min(batch_size, n - start), part, **how))
                for start, part in zip(starts, parts, strict=True)
            ]
        )

    @torch.no_grad()
    def decoded(self, indices: Tensor) -> Tensor:
        """Turn a prior's tokens `(B, *prior.shape)` into examples, as a file holds them; on the CPU."""
        device = self.model.device
        batches = torch.split(indices.reshape(-1, *self.shape).to(device), DECODED_AT_ONCE)
        return torch.cat([self.kind.examples(self.model.decode(each, self.size)).cpu() for each in batches])

    @torch.no_grad()
    def kept(self, example: Tensor, keep: str) -> Tensor:
        """Return the tokens of a part of an example, `prior.shape`, and `FREE` for those of the rest.

        Args:
            example: as a file holds it.
            keep: `"left"` half, `"top"` half, or `"box"`, the middle half of rows and columns; of each grid.

        Raises:
            ValueError: `keep` is none of these, or the example has another size.
        """
        if keep not in KEPT:
            raise ValueError(f"keep must be one of {', '.join(KEPT)}, got {keep!r}")
        size = tuple(self.kind.extent(example).values())
        if size != self.size:
            raise ValueError(
                f"the {self.kind.noun} is {_size(size)}, but this prior draws {self.kind.noun}s of {_size(self.size)}"
            )
        device = self.model.device
        indices = self.model.encode(self.kind.inputs(example[None].to(device))).cpu()
        masks = torch.cat([_mask(height, width, keep).flatten() for height, width in self.prior.levels])
        tokens = indices.reshape(self.prior.positions, -1)
        return tokens.masked_fill(~masks[:, None], FREE).reshape(self.prior.shape)

    def labels(self, words: Sequence[str] | None, n: int) -> Tensor | None:
        """Return a class for each of n examples: those of the words in turn, or all there are.

        Args:
            words: numbers or names of classes.
            n: how many examples.

        Raises:
            ValueError: there is no such class, or there are none.
        """
        if self.prior.num_classes is None:
            if words:
                raise ValueError("labels: this prior knows no classes")
            return None
        chosen = [self._label(word) for word in words] if words else list(range(self.prior.num_classes))
        return torch.tensor([chosen[number % len(chosen)] for number in range(n)])

    def _label(self, word: str) -> int:
        if self.label_names and word in self.label_names:
            return self.label_names.index(word)
        count = self.prior.num_classes or 0
        if not word.isdecimal() or int(word) >= count:
            names = f" or one of {', '.join(self.label_names)}" if self.label_names else ""
            raise ValueError(f"labels: there is no class {word!r}; give a number from 0 to {count - 1}{names}")
        return int(word)


def class_count(tokens: TokenSet) -> int | None:
    """Return how many classes tokens have; None without labels.

    Raises:
        ValueError: a label is negative.
    """
    if tokens.labels is None:
        return None
    if int(tokens.labels.min()) < 0:
        raise ValueError(f"the labels must be at least 0, got {int(tokens.labels.min())}")
    if tokens.label_names:
        return len(tokens.label_names)
    count = int(tokens.labels.max()) + 1
    if count > max(len(tokens), FEW_CLASSES):
        raise ValueError(
            f"the labels are classes, from 0 on, but there is {count - 1:,} among {len(tokens):,} examples"
        )
    return count


def _check_size(model: Autoencoder, tokens: TokenSet) -> None:
    """Refuse tokens of several sizes, and tokens from which the model makes no example.

    Raises:
        ValueError: they are.
    """
    sizes = torch.stack([*tokens.extents.values(), *tokens.shapes.T], 1)
    firsts = [int((sizes == row).all(1).nonzero()[0]) for row in torch.unique(sizes, dim=0)]
    kinds = {(tuple(tokens.levels(number)), tuple(tokens.shapes[number].tolist())) for number in firsts}
    if len(kinds) > 1:
        several = " and ".join(str(list(levels)) for levels, _ in sorted(kinds)[:2])
        raise ValueError(f"a prior learns grids of one size, but the tokens have {len(kinds)}, such as {several}")
    (levels, shape), size = next(iter(kinds)), tokens.extent(0)
    expected = model.levels(size)
    positions = sum(height * width for height, width in expected) * len(model.codebook_sizes)
    if list(levels) != list(expected) or torch.Size(shape).numel() != positions:
        raise ValueError(
            f"{tokens.names[0]!r} is no example of this model: of size {size} it has the grids {expected} of "
            f"{len(model.codebook_sizes)} codebook(s), but the tokens have the shape {shape}"
        )


def check_tokens(painter: Painter, tokens: TokenSet) -> None:
    """Refuse tokens that a prior cannot be measured on.

    Raises:
        ValueError: they come from another model, have another shape, or labels that the prior does not know.
    """
    check_model(tokens, painter.model)
    _check_size(painter.model, tokens)
    if tokens.levels(0) != list(painter.prior.levels):
        raise ValueError(f"the prior learns the grids {painter.prior.levels}, but there are {tokens.levels(0)}")
    if (tokens.shapes != torch.tensor(painter.shape)).any():
        other = tokens.shapes[(tokens.shapes != torch.tensor(painter.shape)).any(1)][0].tolist()
        raise ValueError(f"the prior learns indices of shape {painter.shape}, but there are some of {tuple(other)}")
    count = painter.prior.num_classes
    if (tokens.labels is None) != (count is None):
        raise ValueError("either both or neither of the tokens to learn and to validate on must have labels")
    if tokens.labels is not None and count is not None and not 0 <= tokens.labels.min() <= tokens.labels.max() < count:
        raise ValueError(
            f"the prior knows {count} classes, but there are labels from {tokens.labels.min()} to {tokens.labels.max()}"
        )
    names, others = painter.label_names, tokens.label_names
    if names is not None and others is not None and names != others:
        first = next(pair for pair in zip_longest(names, others) if pair[0] != pair[1])
        raise ValueError(f"the prior knows the class {first[0]!r} where these tokens have {first[1]!r}")


def _mask(height: int, width: int, keep: str) -> Tensor:
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    if keep == "left":
        return (columns < (width + 1) // 2).expand(height, width)
    if keep == "top":
        return (rows < (height + 1) // 2).expand(height, width)
    inside = (rows >= height // 4) & (rows < height - height // 4)
    return inside & (columns >= width // 4) & (columns < width - width // 4)


def _size(size: Sequence[int]) -> str:
    return " × ".join(map(str, size))
