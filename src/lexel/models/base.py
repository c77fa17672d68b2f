"""What every autoencoder of images has: the way through its codes and back, and its files."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Self

from lexel._core.config import from_config, to_config
from lexel._core.modules import evaluating
from lexel.quantizers.base import Quantized, Quantizer

try:
    from huggingface_hub import hf_hub_download

    from lexel._core.pretrained import CONFIG, WEIGHTS, Pretrained, load_weights, save_model
except ImportError as error:
    raise ImportError("lexel.models needs huggingface_hub and safetensors: pip install 'lexel[models]'") from error

__all__ = ["Autoencoder", "Level", "check_architecture"]

MOST_DOWNSAMPLING = 1024
CLASS_PATH = "class_path"  # the entry of the configuration that names the class; files without one hold a VQVAE
FIRST = "lexel.models.VQVAE"

_CLASSES: dict[str, type[Autoencoder]] = {}


class Level(NamedTuple):
    """What one quantizer of a model was given, and what it returned.

    Attributes:
        latents: its inputs, `(B, D, h, w)`.
        output: its output.
    """

    latents: Tensor
    output: Quantized


class Autoencoder(nn.Module, Pretrained, ABC, library_name="lexel", tags=["vector-quantization", "image-tokenizer"]):
    """Turns images into codes and back, through one or more quantizers, each of which codes a map of its own.

    A subclass stores each argument of its constructor as an attribute of the same name.

    Attributes:
        kind: the kind of data that it takes.
        image_channels: C, how many channels an image has.
    """

    kind: ClassVar[str] = "images"
    image_channels: int

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _CLASSES[_class_path(cls)] = cls

    @classmethod
    def named(cls, class_path: str) -> type[Self]:
        """Return the subclass of a name, such as `lexel.models.VQVAE2`.

        Raises:
            ValueError: there is none.
        """
        found = _CLASSES.get(class_path)
        if found is None or not issubclass(found, cls):
            known = ", ".join(sorted(name for name, each in _CLASSES.items() if issubclass(each, cls)))
            hint = (
                "" if class_path.startswith("lexel.") else "; on the command line, name the model's file with --plugin"
            )
            raise ValueError(f"unknown class_path {class_path!r} of a model; known: {known}{hint}")
        return found

    @property
    @abstractmethod
    def quantizers(self) -> Sequence[Quantizer]:
        """The quantizers, coarse to fine."""

    @property
    @abstractmethod
    def factors(self) -> Sequence[int]:
        """The side of the square of pixels for which one position of each quantizer's map stands, coarse to fine."""

    @classmethod
    @abstractmethod
    def around(cls, quantizer: Callable[[], Quantizer], **settings: Any) -> Self:
        """Build a model around as many quantizers as it needs.

        Args:
            quantizer: makes a new one.
            settings: the other arguments of the constructor.
        """

    @abstractmethod
    def quantize(self, images: Tensor) -> list[Level]:
        """Encode images `(B, C, H, W)`, and quantize what the encoder returns, coarse to fine.

        Raises:
            TypeError: `images` is not a floating tensor.
            ValueError: `images` has another number of dimensions or channels, or no pixels.
        """

    @abstractmethod
    def synthesize(self, quantized: Sequence[Tensor], size: tuple[int, int] | None = None) -> Tensor:
        """Decode the quantized vectors of each level, `(B, D, h, w)`, into images `(B, C, H, W)`, not clamped.

        Args:
            quantized: of each level, coarse to fine.
            size: (H, W) to crop to; by default the images keep all their pixels.
        """

    def forward(self, images: Tensor) -> tuple[Tensor, Quantized]:
        """Reconstruct images through their codes.

        Args:
            images: floating `(B, C, H, W)` in [0, 1], of any size.

        Returns:
            The reconstructions, `(B, C, H, W)`, not clamped; and what the quantizer returned, or of several what
            `joined` makes of it.

        Raises:
            TypeError: `images` is not a floating tensor.
            ValueError: `images` has another number of dimensions or channels, or no pixels.
        """
        reconstructions, levels = self.reconstruct(images)
        return reconstructions, self.joined(levels)

    def reconstruct(self, images: Tensor) -> tuple[Tensor, list[Level]]:
        """Reconstruct images as `forward` does, and return what each quantizer was given and returned."""
        levels = self.quantize(images)
        height, width = images.shape[-2:]
        return self.synthesize([level.output.quantized for level in levels], (height, width)), levels

    def joined(self, levels: Sequence[Level]) -> Quantized:
        """Join what several quantizers returned.

        The loss is the sum of theirs, the perplexity the geometric mean, the indices are as `encode` returns them,
        level k's terms are named ``"k.codebook"`` and so on, and `quantized` holds all of them at the finest
        resolution, one after the other along the channels.
        """
        outputs = [level.output for level in levels]
        if len(outputs) == 1:
            return outputs[0]
        return Quantized(
            loss=torch.stack([output.loss for output in outputs]).sum(),
            quantized=at_finest([output.quantized for output in outputs]),
            perplexity=torch.stack([output.perplexity for output in outputs]).log().mean().exp(),
            indices=self._flat([output.indices for output in outputs]),
            terms={f"{k}.{name}": term for k, output in enumerate(outputs) for name, term in output.terms.items()},
            num_embeddings=self.num_embeddings,
        )

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Return the indices of images `(B, C, H, W)`. No state changes, even in training mode.

        Returns:
            int64: of one quantizer as it returns them, `(B, h, w)` for most; of several `(B, L)`, the positions of all
            `levels` one after the other, each row by row. With several codebooks there is one axis more.

        Raises:
            TypeError: `images` is not a floating tensor.
            ValueError: `images` has another number of dimensions or channels, or no pixels.
        """
        with evaluating(self):
            return self._flat([level.output.indices for level in self.quantize(images)])

    def decode(self, indices: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Turn indices into images `(B, C, H, W)`, clamped to [0, 1].

        Args:
            indices: as `encode` returns them.
            size: (H, W) of the images. With a single quantizer it may be left out; the images then keep all their
                pixels.

        Raises:
            TypeError: `indices` are not integers.
            ValueError: an index is out of range, images of this `size` do not have as many positions, or several
                quantizers need a `size`.
        """
        return self.synthesize(self.lookup(indices, size), size).clamp(0, 1)

    def lookup(self, indices: Tensor, size: tuple[int, int] | None = None) -> list[Tensor]:
        """Return the quantized vectors `(B, D, h, w)` of each level for indices, as `decode` takes them.

        Raises:
            TypeError: `indices` are not integers.
            ValueError: an index is out of range, images of this `size` do not have as many positions, or several
                quantizers need a `size`.
        """
        split = zip(self.quantizers, self._split(indices, size), strict=True)
        quantized = [quantizer.lookup(own) for quantizer, own in split]
        for each, expected in zip(quantized, self.maps(size) if size else [], strict=False):
            grid = tuple(each.shape[-2:])
            if grid != expected:
                name = type(self).__name__
                raise ValueError(f"{name}: an image of size {size} has {expected} positions, the indices {grid}")
        return quantized

    def maps(self, size: tuple[int, int]) -> list[tuple[int, int]]:
        """Return the (height, width) of each quantizer's map, for images of a `size` (H, W) in pixels."""
        height, width = (-(-side // max(self.factors)) * max(self.factors) for side in size)
        return [(height // factor, width // factor) for factor in self.factors]

    def levels(self, size: tuple[int, int]) -> list[tuple[int, int]]:
        """Return the grids (h, w) of which the indices of an image of a `size` (H, W) consist, coarse to fine.

        One for most models. If there are more, indices are `(B, L)`: the positions of one grid after those of the
        other, each row by row.

        Example:
            >>> import lexel
            >>> lexel.models.VQVAE(lexel.VectorQuantizer(512, 64), downsampling=8).levels((50, 70))
            [(7, 9)]
        """
        maps = zip(self.quantizers, self.maps(size), strict=True)
        return [grid for quantizer, own in maps for grid in quantizer.grids(own)]

    def by_codebook(self, indices: Tensor, size: tuple[int, int]) -> list[Tensor]:
        """Split indices, as `encode` returns them, by codebook: `(N,)` for each of each level.

        Raises:
            ValueError: images of this `size` do not have as many positions.
        """
        split = zip(self.quantizers, self._split(indices, size), strict=True)
        return [one for each, own in split for one in own.reshape(-1, len(each.codebook_sizes)).unbind(1)]

    def bits(self, size: tuple[int, int]) -> float:
        """Return how many bits the indices of an image of a `size` (H, W) have as they are."""
        return sum(h * w * each.bits for (h, w), each in zip(self.maps(size), self.quantizers, strict=True))

    @property
    def num_embeddings(self) -> int:
        """K, how many different values an index takes; the largest of several codebooks."""
        return self.quantizers[0].num_embeddings

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """How many different values each index of a position takes, in their order."""
        return self.quantizers[0].codebook_sizes

    @property
    def positionwise(self) -> bool:
        """Whether the indices are one grid, each for a square of pixels."""
        return len(self.quantizers) == 1 and self.quantizers[0].positionwise

    @property
    def image_size(self) -> tuple[int, int] | None:
        """The largest (H, W) of the images that it takes, and also the only one but for padding; None if any."""
        for quantizer, factor in zip(self.quantizers, self.factors, strict=True):
            if quantizer.map_size is not None:
                return factor * quantizer.map_size[0], factor * quantizer.map_size[1]
        return None

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments as plain data, and the name of the class."""
        return {CLASS_PATH: _class_path(type(self)), **{name: to_config(getattr(self, name)) for name in _names(self)}}

    def padded(self, images: Tensor) -> Tensor:
        """Check images `(B, C, H, W)`, pad them by their edge to whole positions, and bring them to [−1, 1].

        Raises:
            TypeError: `images` is not a floating tensor.
            ValueError: `images` has another number of dimensions or channels, or no pixels.
        """
        name = type(self).__name__
        if not images.dtype.is_floating_point:
            raise TypeError(f"{name}: images must be floating, in [0, 1], got {images.dtype}")
        if images.ndim != 4 or images.shape[1] != self.image_channels or 0 in images.shape[-2:]:
            raise ValueError(
                f"{name}: images must have shape (B, {self.image_channels}, H, W) with H and W above 0, "
                f"got {tuple(images.shape)}"
            )
        height, width = images.shape[-2:]
        side = max(self.factors)
        return 2 * F.pad(images, (0, -width % side, 0, -height % side), mode="replicate") - 1

    def _flat(self, indices: Sequence[Tensor]) -> Tensor:
        """Join the indices of all levels: one axis of positions, unless there is only one level."""
        if len(indices) == 1:
            return indices[0]
        pairs = zip(self.quantizers, indices, strict=True)
        return torch.cat([own.flatten(1, 2) if each.positionwise else own for each, own in pairs], 1)

    def _split(self, indices: Tensor, size: tuple[int, int] | None) -> Sequence[Tensor]:
        """Undo `_flat`."""
        if len(self.quantizers) == 1:
            return [indices]
        name = type(self).__name__
        if size is None:
            raise ValueError(f"{name}: several levels need the size (H, W) of the images")
        grids = [each.grids(own) for each, own in zip(self.quantizers, self.maps(size), strict=True)]
        lengths = [sum(h * w for h, w in own) for own in grids]
        if indices.ndim < 2 or indices.shape[1] != sum(lengths):
            raise ValueError(
                f"{name}: indices of images of size {size} must have shape (B, {sum(lengths)}, …), "
                f"got {tuple(indices.shape)}"
            )
        parts = zip(self.quantizers, torch.split(indices, lengths, 1), grids, strict=True)
        return [part.reshape(-1, *own[0], *part.shape[2:]) if each.positionwise else part for each, part, own in parts]

    def _save_pretrained(self, save_directory: Path) -> None:
        save_model(save_directory, self, self.config)

    @classmethod
    def _from_pretrained(
        cls, *, model_id: str, config: Mapping[str, Any] | None = None, map_location: str = "cpu",
        force_download: bool = False, token: Any = None, cache_dir: Any = None, local_files_only: bool = False,
        revision: str | None = None, **model_kwargs: Any,
    ) -> Self:  # fmt: skip
        path = Path(model_id) / WEIGHTS
        if (Path(model_id) / "model" / CONFIG).is_file() and not path.is_file():
            raise ValueError(f"{model_id} is the folder of a run: give that of its model, {Path(model_id) / 'model'}")
        named = cls.named(str((config or {}).get(CLASS_PATH, FIRST)))
        names = _names(named)
        model = named(**{name: from_config(value) for name, value in model_kwargs.items() if name in names})
        if not Path(model_id).is_dir():
            path = Path(
                hf_hub_download(
                    model_id, WEIGHTS, revision=revision, cache_dir=cache_dir, force_download=force_download,
                    token=token, local_files_only=local_files_only,
                )
            )  # fmt: skip
        load_weights(path, model, map_location)
        return model.eval()


def at_finest(maps: Sequence[Tensor]) -> Tensor:
    """Bring maps `(B, D, h, w)`, coarse to fine, to the size of the last, and join their channels."""
    size = maps[-1].shape[-2:]
    return torch.cat([each if each.shape[-2:] == size else F.interpolate(each, size) for each in maps], 1)


def check_architecture(
    owner: str,
    quantizers: Sequence[Quantizer],
    factors: Sequence[int],
    upsampling: str,
    **counts: tuple[int, int],
) -> None:
    """Check what the models have in common.

    Args:
        owner: the class to name.
        quantizers: its quantizers.
        factors: the side of the square of pixels for which a position stands, of each.
        upsampling: how the decoder doubles the resolution.
        counts: further arguments by name, with the least that each may be.

    Raises:
        ValueError: an argument is out of its range.
        TypeError: a quantizer is not one.
    """
    for quantizer in quantizers:
        if not isinstance(quantizer, Quantizer):
            raise TypeError(f"{owner}: quantizer must be a lexel Quantizer, got {type(quantizer).__name__}")
        if quantizer.channel_dim != 1:
            raise ValueError(f"{owner}: the quantizer must have channel_dim=1, got {quantizer.channel_dim}")
    for name, (value, least) in counts.items():
        if value < least:
            raise ValueError(f"{owner}: {name} must be at least {least}, got {value}")
    for factor in factors:
        if factor < 1 or factor & (factor - 1):
            raise ValueError(f"{owner}: downsampling must be a power of two, got {factor}")
        if factor > MOST_DOWNSAMPLING:  # images are padded to a multiple of it
            raise ValueError(f"{owner}: downsampling must be at most {MOST_DOWNSAMPLING}, got {factor}")
    if upsampling not in ("transposed", "resize"):
        raise ValueError(f"{owner}: upsampling must be 'transposed' or 'resize', got {upsampling!r}")


def _names(model: Autoencoder | type[Autoencoder]) -> list[str]:
    cls = model if isinstance(model, type) else type(model)
    return [name for name in inspect.signature(cls.__init__).parameters if name != "self"]


def _class_path(cls: type) -> str:
    own = cls.__module__.startswith("lexel.models.")
    return f"lexel.models.{cls.__name__}" if own else f"{cls.__module__}.{cls.__qualname__}"
