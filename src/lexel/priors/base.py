"""The base of all priors: which tokens they know, how they are trained, measured, sampled from and saved."""

# No `from __future__ import annotations` here: the hub mixin reads the constructor's annotations as types.
import json
import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import Self

from lexel._core.checks import check_fields, check_number
from lexel._core.config import Configurable, from_config, registry
from lexel._core.errors import require_within
from lexel._core.modules import evaluating

try:
    from huggingface_hub import snapshot_download

    from lexel._core.pretrained import CONFIG, WEIGHTS, Pretrained, check_config, load_weights, save_model
except ImportError as error:
    raise ImportError("lexel.priors needs huggingface_hub and safetensors: pip install 'lexel[priors]'") from error

__all__ = ["FREE", "Prior", "Sampling", "kinds"]

FREE = -1  # an index that is to be drawn
# Beyond these, logits of float32 are no numbers any more, or all the same.
COLDEST, HOTTEST, MOST_GUIDANCE = 0.0001, 10_000, 1_000
MOST_LAYERS, MOST_WIDTH = 1000, 1 << 16


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn from the probabilities that a prior gives them.

    Args:
        temperature: divides the logits; below 1 the probable becomes more probable, 0 takes the most probable.
            Otherwise from 0.0001 to 10,000.
        top_k: draw among the k most probable tokens alone.
        top_p: draw among the fewest most probable tokens that together have this probability.
        guidance: γ of classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598): logits without a class plus γ
            times their difference to those with the class. 1 draws from the class as it was learnt. At most 1,000.
        generator: of the random numbers, on any device.

    Raises:
        TypeError: a setting is of another type.
        ValueError: a setting is out of its range.

    Example:
        >>> logits = torch.tensor([[0.0, 1.0, 2.0, 3.0]]).repeat(1000, 1)
        >>> Sampling(top_k=2).draw(logits).unique()
        tensor([2, 3])
        >>> Sampling(temperature=0).draw(logits).unique()
        tensor([3])
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    guidance: float = 1.0
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.temperature != 0:  # which takes the most probable
            require_within("temperature", self.temperature, COLDEST, HOTTEST)
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {self.top_p}")
        require_within("guidance", self.guidance, 0, MOST_GUIDANCE)

    def classes(self, classes: Tensor, without: int) -> Tensor:
        """Return the classes `(B,)` for which logits are needed: with guidance `(2B,)`, the second half without class.

        Args:
            classes: of each example.
            without: the number that means no class.
        """
        return classes if self.guidance == 1 else torch.cat([classes, torch.full_like(classes, without)])

    def guided(self, logits: Tensor) -> Tensor:
        """Return the logits `(B, …)` to draw from, given those of `classes`: `(B, …)`, or `(2B, …)` with guidance."""
        if self.guidance == 1:
            return logits
        conditional, unconditional = logits.float().chunk(2)  # half precision could not hold the sum
        return unconditional + self.guidance * (conditional - unconditional)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the probabilities `(…, K)` from which is drawn, after temperature, top-k and top-p; float32."""
        logits = logits.float()
        if self.temperature == 0:
            return torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1)
        logits = logits / self.temperature
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            # Of equal logits the first ones stay, so that k are left.
            order = logits.sort(dim=-1, descending=True, stable=True).indices
            logits = logits.scatter(-1, order[..., self.top_k :], -math.inf)
        probabilities = logits.softmax(-1)
        if self.top_p is not None and self.top_p < 1:
            ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
            beyond = ordered.cumsum(-1) - ordered >= self.top_p  # false for the first, which always stays
            probabilities = probabilities.masked_fill(beyond.gather(-1, order.argsort(-1)), 0)
            probabilities = probabilities / probabilities.sum(-1, keepdim=True)
        return probabilities

    def draw(self, logits: Tensor) -> Tensor:
        """Draw one token for each row of logits `(…, K)`; int64 `(…)`.

        The random numbers come from the generator's device, so that a seed gives the same ones whatever the model's
        device.
        """
        probabilities = self.probabilities(logits)
        # A race: each token arrives after an exponential time with its probability as rate, and the first one wins.
        # A token of probability 0 never does, which rounding cannot promise for the inverse of a cumulated sum.
        times = torch.empty(probabilities.shape, device=self.noise_device(logits)).exponential_(
            generator=self.generator
        )
        return (probabilities / times.to(logits.device)).argmax(-1)

    def noise_device(self, like: Tensor) -> torch.device:
        """Return the device of the random numbers: the generator's, or that of a tensor where there is none."""
        return like.device if self.generator is None else self.generator.device


class Prior(
    nn.Module, Configurable, Pretrained, library_name="lexel", tags=["vector-quantization", "image-generation"]
):
    """What knows which tokens follow each other, so that new examples can be drawn (van den Oord et al. 2017, §4).

    An example has the tokens that a model's `encode` gives: a grid `(h, w)`; where it consists of several grids, as
    with a multi-scale quantizer, `(L,)`, their positions one after the other, each row by row; with several codebooks
    one trailing axis `(…, Q)`.

    A kind of prior names itself, and writes three methods about tokens `(B, L, Q)` and classes `(B,)`, in which
    `num_classes` or 0 means no class: `loss_of_tokens`, `bits_of_tokens` and `sample_tokens`. This class checks and
    lays out what comes in, drops classes in training, keeps given tokens, and saves.

    Attributes:
        name: of the kind, as `lexel train-prior --kind` takes it.
        exact: whether `bits` are those of the distribution that `sample` draws from, and not an upper bound.
        positions: L, over all grids.
        shape: of one example's indices.

    Args:
        levels: (h, w) of the grids of an example, coarse to fine; one for a plain VQ-VAE.
        codebook_sizes: K of each of the Q codebooks from which a position has a token.
        num_classes: how many classes examples may have; None for none.
        layers: blocks of the network.
        width: channels between the blocks.
        heads: attention heads of a block; they divide the width.
        class_dropout: in training, the share of examples whose class is withheld, so that guidance has logits without
            a class.

    Raises:
        ValueError: an argument is out of its range.
    """

    name: ClassVar[str]
    exact: ClassVar[bool] = True

    def __init__(
        self,
        levels: Sequence[Sequence[int]],
        codebook_sizes: Sequence[int],
        num_classes: int | None = None,
        layers: int = 6,
        width: int = 256,
        heads: int = 8,
        class_dropout: float = 0.1,
    ) -> None:
        super().__init__()
        who = type(self).__name__
        if not levels or any(len(level) != 2 or min(level) < 1 for level in levels):
            raise ValueError(f"{who}: levels must be grids (h, w) of at least 1 × 1, got {levels}")
        if not codebook_sizes or min(codebook_sizes) < 1:
            raise ValueError(f"{who}: codebook_sizes must be K of each codebook, at least 1, got {codebook_sizes}")
        for argument, size, most in (("layers", layers, MOST_LAYERS), ("width", width, MOST_WIDTH)):
            require_within(f"{who}: {argument}", size, 1, most)
        for argument, value in (("heads", heads), ("num_classes", num_classes)):
            if value is not None and value < 1:
                raise ValueError(f"{who}: {argument} must be at least 1, got {value}")
        if width % heads:
            raise ValueError(f"{who}: heads must divide the width {width}, got {heads}")
        check_number(who, "class_dropout", class_dropout, least=0, most=1)
        self.levels = [(int(height), int(width)) for height, width in levels]
        self.codebook_sizes = [int(size) for size in codebook_sizes]
        self.num_classes = num_classes
        self.layers, self.width, self.heads = layers, width, heads
        self.class_dropout = class_dropout

        self.positions = sum(height * width for height, width in self.levels)
        grid = self.levels[0] if len(self.levels) == 1 else (self.positions,)
        self.shape = (*grid, *[len(self.codebook_sizes)] * (len(self.codebook_sizes) > 1))

    @property
    def no_class(self) -> int:
        """The number that stands for no class; as an embedding's row it comes after those of the classes."""
        return self.num_classes or 0

    @abstractmethod
    def loss_of_tokens(self, tokens: Tensor, classes: Tensor) -> Tensor:
        """Return the loss of a training step, a scalar: the mean of nats per token that are to be learnt.

        Args:
            tokens: int64 `(B, L, Q)`.
            classes: int64 `(B,)`, `no_class` where there is none or it was dropped.
        """

    @abstractmethod
    def bits_of_tokens(self, tokens: Tensor, classes: Tensor) -> Tensor:
        """Return bits per example `(B,)`: −log2 of its probability, or an upper bound where `exact` is false.

        Args:
            tokens: int64 `(B, L, Q)`.
            classes: int64 `(B,)`, `no_class` where there is none.
        """

    @abstractmethod
    def sample_tokens(self, given: Tensor, classes: Tensor, sampling: Sampling) -> Iterator[Tensor]:
        """Yield tokens as they are drawn, the last time all of them.

        Args:
            given: int64 `(B, L, Q)`, tokens to keep, and `FREE` where one is to be drawn.
            classes: int64 `(B,)`, `no_class` where there is none.
            sampling: how to draw.

        Yields:
            int64 `(B, L, Q)` after each step, `FREE` where nothing is drawn yet.
        """

    def loss(self, indices: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the mean loss in nats per token, a scalar. In training, some of the classes are dropped.

        Args:
            indices: integers `(B, *shape)`, as `model.encode` gives them.
            labels: integers `(B,)` in [0, num_classes).

        Raises:
            TypeError: indices or labels are not integers.
            ValueError: an index or a label is out of range, or the shape is another one.
        """
        tokens = self._tokens(indices)
        classes = self._classes(labels, len(tokens), tokens.device)
        if self.training and labels is not None:
            dropped = torch.rand(len(classes), device=classes.device) < self.class_dropout
            classes = classes.masked_fill(dropped, self.no_class)
        return self.loss_of_tokens(tokens, classes)

    @torch.no_grad()
    def bits(self, indices: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return how many bits each example takes under this prior, float32 `(B,)`; an upper bound if not `exact`.

        Args:
            indices: integers `(B, *shape)`, as `model.encode` gives them.
            labels: integers `(B,)` in [0, num_classes); the bits are then those of the tokens given the class.

        Raises:
            TypeError: indices or labels are not integers.
            ValueError: an index or a label is out of range, or the shape is another one.
        """
        tokens = self._tokens(indices)
        classes = self._classes(labels, len(tokens), tokens.device)
        with evaluating(self):
            return self.bits_of_tokens(tokens, classes).float()

    def sample(self, n: int, labels: Tensor | int | None = None, **how: Any) -> Tensor:
        """Draw n examples.

        Args:
            n: how many.
            labels: a class for all, or integers `(n,)` in [0, num_classes); by default no class.
            how: the other arguments of `sample_steps`.

        Returns:
            int64 `(n, *shape)`, as `model.encode` gives them.

        Raises:
            TypeError: labels or given are not integers.
            ValueError: a setting, a label or a given index is out of range, or a shape does not fit.
        """
        for indices in self.sample_steps(n, labels, **how):
            last = indices
        return last

    @torch.no_grad()
    def sample_steps(
        self,
        n: int,
        labels: Tensor | int | None = None,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        guidance: float = 1.0,
        generator: torch.Generator | None = None,
        given: Tensor | None = None,
    ) -> Iterator[Tensor]:
        """Draw n examples, and yield them after each step of the drawing.

        Args:
            n: how many.
            labels: a class for all, or integers `(n,)` in [0, num_classes); by default no class.
            temperature: as in `Sampling`.
            top_k: as in `Sampling`.
            top_p: as in `Sampling`.
            guidance: as in `Sampling`.
            generator: as in `Sampling`.
            given: integers `(*shape)` or `(n, *shape)`: tokens that stay as they are, and −1 where one is to be drawn.

        Yields:
            int64 `(n, *shape)`, −1 where nothing is drawn yet; the last time none is.

        Raises:
            TypeError: labels or given are not integers.
            ValueError: a setting, a label or a given index is out of range, or a shape does not fit.
        """
        if n < 1:
            raise ValueError(f"{type(self).__name__}: n must be at least 1, got {n}")
        sampling = Sampling(temperature, top_k, top_p, guidance, generator)
        device = next(self.parameters()).device
        if given is None:
            given = torch.full(self.shape, FREE)
        if given.shape == self.shape:
            given = given.expand(n, *self.shape)
        tokens = self._tokens(given.to(device), "given", least=FREE)
        if len(tokens) != n:
            raise ValueError(f"{type(self).__name__}: given must be one example or n = {n}, got {len(tokens)}")
        classes = self._classes(labels, n, device)
        if guidance != 1 and labels is None:
            raise ValueError(f"{type(self).__name__}: guidance {guidance} leads to a class, but there are no labels")
        with evaluating(self):
            for drawn in self.sample_tokens(tokens, classes, sampling):
                yield torch.where(tokens == FREE, drawn, tokens).reshape(n, *self.shape)

    def _tokens(self, indices: Tensor, argument: str = "indices", least: int = 0) -> Tensor:
        """Check indices `(B, *shape)` and return them as int64 `(B, L, Q)`."""
        who = type(self).__name__
        if indices.dtype.is_floating_point or indices.dtype.is_complex or indices.dtype == torch.bool:
            raise TypeError(f"{who}: {argument} must be integers, got {indices.dtype}")
        if tuple(indices.shape[1:]) != self.shape or not len(indices):
            raise ValueError(
                f"{who}: {argument} must have shape (B, {', '.join(map(str, self.shape))}), got {tuple(indices.shape)}"
            )
        tokens = indices.long().reshape(len(indices), self.positions, len(self.codebook_sizes))
        sizes = torch.tensor(self.codebook_sizes, device=tokens.device)
        if bool(((tokens < least) | (tokens >= sizes)).any()):
            wrong = tokens[(tokens < least) | (tokens >= sizes)][0]
            raise ValueError(f"{who}: {argument} must be in [{least}, {max(self.codebook_sizes)}), got {int(wrong)}")
        return tokens

    def _classes(self, labels: Tensor | int | None, n: int, device: torch.device) -> Tensor:
        """Check labels and return them as int64 `(n,)`."""
        if labels is None:
            return torch.full((n,), self.no_class, device=device)
        who = type(self).__name__
        if self.num_classes is None:
            raise ValueError(f"{who}: labels were given, but this prior knows no classes")
        labels = torch.as_tensor(labels, device=device)
        if labels.dtype.is_floating_point or labels.dtype.is_complex or labels.dtype == torch.bool:
            raise TypeError(f"{who}: labels must be integers, got {labels.dtype}")
        if labels.shape not in ((), (n,)):
            raise ValueError(f"{who}: labels must be one class or have shape ({n},), got {tuple(labels.shape)}")
        if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < self.num_classes:
            raise ValueError(f"{who}: labels must be in [0, {self.num_classes}), got {labels.min()} to {labels.max()}")
        return labels.long().expand(n)

    def _save_pretrained(self, save_directory: Path) -> None:
        save_model(save_directory, self, self.config)

    @classmethod
    def _from_pretrained(
        cls, *, model_id: str, map_location: str = "cpu", force_download: bool = False, token: Any = None,
        cache_dir: Any = None, local_files_only: bool = False, revision: str | None = None, **model_kwargs: Any,
    ) -> Self:  # fmt: skip
        folder = Path(model_id)
        if not folder.is_dir():
            folder = Path(
                snapshot_download(
                    model_id, revision=revision, cache_dir=cache_dir, force_download=force_download, token=token,
                    local_files_only=local_files_only,
                )
            )  # fmt: skip
            check_config(folder)
        if not (folder / CONFIG).is_file():
            raise FileNotFoundError(f"{folder} holds no prior: it has no {CONFIG}")
        try:
            config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
            prior = from_config(config) if "class_path" in config else None
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{folder / CONFIG} does not describe a prior: {error}") from error
        if not isinstance(prior, cls):
            raise ValueError(f"{folder / CONFIG} does not describe a prior of the kind {cls.__name__}")
        load_weights(folder / WEIGHTS, prior, map_location)
        return prior.eval()


def kinds() -> dict[str, type[Prior]]:
    """Return the kinds of priors by their names, those of plugins too."""
    found = (make for make in registry().values() if isinstance(make, type) and issubclass(make, Prior))
    return {kind.name: kind for kind in found}
