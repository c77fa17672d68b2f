"""What every autoencoder has: the way of examples through codes and back, and its files."""

from __future__ import annotations

import inspect
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from typing_extensions import Self

from lexel._core.config import Configurable, from_config, registry
from lexel._core.modules import evaluating
from lexel.quantizers.base import Quantized, Quantizer

try:
    from huggingface_hub import hf_hub_download

    from lexel._core.pretrained import CONFIG, WEIGHTS, Pretrained, load_weights, save_model
except ImportError as error:
    raise ImportError("lexel.models needs huggingface_hub and safetensors: pip install 'lexel[models]'") from error

__all__ = ["Autoencoder", "Level"]

CLASS_PATH = "class_path"  # the entry of the configuration that names the class; files without one hold a VQVAE
FIRST = "lexel.models.VQVAE"


class Level(NamedTuple):
    """What one quantizer of a model was given, and what it returned.

    Attributes:
        latents: its inputs, `(B, D, *map)`.
        output: its output.
    """

    latents: Tensor
    output: Quantized


class Autoencoder(nn.Module, Pretrained, Configurable, library_name="lexel", tags=["vector-quantization"]):
    """Turns examples of a kind of data into codes and back, through one or more quantizers.

    A subclass stores each argument of its constructor as an attribute of the same name. The `size` of an example is the
    shape of its axes after the channels: (H, W) for an image, () for a vector.

    Attributes:
        kind: the kind of data that it takes.
    """

    kind: ClassVar[str]
    exported_by = "lexel.models"

    @classmethod
    def named(cls, class_path: str) -> type[Self]:
        """Return the subclass of a name, such as `lexel.models.VQVAE2`.

        Raises:
            ValueError: there is none.
        """
        models = {name: make for name, make in registry().items() if isinstance(make, type) and issubclass(make, cls)}
        if class_path not in models:
            foreign = not class_path.startswith("lexel.")
            hint = "; on the command line, name the model's file with --plugin" if foreign else ""
            raise ValueError(f"unknown class_path {class_path!r} of a model; known: {', '.join(sorted(models))}{hint}")
        return models[class_path]

    @property
    @abstractmethod
    def quantizers(self) -> Sequence[Quantizer]:
        """The quantizers, coarse to fine."""

    @classmethod
    @abstractmethod
    def around(cls, quantizer: Callable[[], Quantizer], **settings: Any) -> Self:
        """Build a model around as many quantizers as it needs.

        Args:
            quantizer: makes a new one.
            settings: the other arguments of the constructor.
        """

    @abstractmethod
    def quantize(self, examples: Tensor) -> list[Level]:
        """Encode examples `(B, C, *size)`, and quantize what the encoder returns, coarse to fine.

        Raises:
            TypeError: `examples` is not a floating tensor.
            ValueError: `examples` has another number of dimensions or channels, or is empty.
        """

    @abstractmethod
    def synthesize(self, quantized: Sequence[Tensor], size: tuple[int, ...] | None = None) -> Tensor:
        """Decode the quantized vectors of each level, `(B, D, *map)`, into examples `(B, C, *size)`, not clamped.

        Args:
            quantized: of each level, coarse to fine.
            size: to crop to; by default the examples keep all that the decoder makes.
        """

    @abstractmethod
    def maps(self, size: tuple[int, ...]) -> Sequence[tuple[int, ...]]:
        """Return the size of each quantizer's map, for examples of a `size`."""

    def forward(self, examples: Tensor) -> tuple[Tensor, Quantized]:
        """Reconstruct examples through their codes.

        Args:
            examples: floating `(B, C, *size)`, of any size; images in [0, 1].

        Returns:
            The reconstructions, of the same shape, not clamped; and what the quantizer returned, or of several what
            `joined` makes of it.

        Raises:
            TypeError: `examples` is not a floating tensor.
            ValueError: `examples` has another number of dimensions or channels, or is empty.
        """
        reconstructions, levels = self.reconstruct(examples)
        return reconstructions, self.joined(levels)

    def reconstruct(self, examples: Tensor) -> tuple[Tensor, list[Level]]:
        """Reconstruct examples as `forward` does, and return what each quantizer was given and returned."""
        levels = self.quantize(examples)
        return self.synthesize([level.output.quantized for level in levels], tuple(examples.shape[2:])), levels

    def joined(self, levels: Sequence[Level]) -> Quantized:
        """Join what the quantizers returned."""
        (level,) = levels
        return level.output

    @torch.no_grad()
    def encode(self, examples: Tensor) -> Tensor:
        """Return the indices of examples `(B, C, *size)`. No state changes, even in training mode.

        Returns:
            int64: of one quantizer as it returns them, `(B, *map)` for most; of several `(B, L)`, the positions of all
            `levels` one after the other, each row by row. With several codebooks there is one axis more.

        Raises:
            TypeError: `examples` is not a floating tensor.
            ValueError: `examples` has another number of dimensions or channels, or is empty.
        """
        with evaluating(self):
            return self._flat([level.output.indices for level in self.quantize(examples)])

    def decode(self, indices: Tensor, size: tuple[int, ...] | None = None) -> Tensor:
        """Turn indices into examples `(B, C, *size)`.

        Args:
            indices: as `encode` returns them.
            size: of the examples. With a single quantizer it may be left out; they then keep all that the decoder
                makes.

        Raises:
            TypeError: `indices` are not integers.
            ValueError: an index is out of range, examples of this `size` do not have as many positions, or several
                quantizers need a `size`.
        """
        return self.synthesize(self.lookup(indices, size), size)

    def lookup(self, indices: Tensor, size: tuple[int, ...] | None = None) -> list[Tensor]:
        """Return the quantized vectors `(B, D, *map)` of each level for indices, as `decode` takes them.

        Raises:
            TypeError: `indices` are not integers.
            ValueError: an index is out of range, examples of this `size` do not have as many positions, or several
                quantizers need a `size`.
        """
        split = zip(self.quantizers, self._split(indices, size), strict=True)
        quantized = [quantizer.lookup(own) for quantizer, own in split]
        for each, expected in zip(quantized, self.maps(size) if size else [], strict=False):
            grid = tuple(each.shape[2:])
            if grid != expected:
                name = type(self).__name__
                raise ValueError(f"{name}: an example of size {size} has {expected} positions, the indices {grid}")
        return quantized

    @abstractmethod
    def levels(self, size: tuple[int, ...]) -> list[tuple[int, int]]:
        """Return the (rows, columns) of the grids that an example's indices consist of, coarse to fine.

        One for most models, (1, 1) where there is one position. If there are more, indices are `(B, L)`: the positions
        of one grid after those of the other, each row by row.

        Example:
            >>> import lexel
            >>> lexel.models.VQVAE(lexel.VectorQuantizer(512, 64), downsampling=8).levels((50, 70))
            [(7, 9)]
        """

    def by_codebook(self, indices: Tensor, size: tuple[int, ...]) -> list[Tensor]:
        """Split indices, as `encode` returns them, by codebook: `(N,)` for each of each level.

        Raises:
            ValueError: examples of this `size` do not have as many positions.
        """
        split = zip(self.quantizers, self._split(indices, size), strict=True)
        return [one for each, own in split for one in own.reshape(-1, len(each.codebook_sizes)).unbind(1)]

    def bits(self, size: tuple[int, ...]) -> float:
        """Return how many bits the indices of an example of a `size` have as they are.

        Example:
            >>> import lexel
            >>> lexel.models.VQVAE(lexel.VectorQuantizer(512, 64), downsampling=8).bits((50, 70))
            567.0
        """
        return sum(math.prod(own) * each.bits for own, each in zip(self.maps(size), self.quantizers, strict=True))

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(chain(self.parameters(), self.buffers()), torch.empty(0)).device

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
        """Whether the indices are one grid, each for its own part of an example."""
        return len(self.quantizers) == 1 and self.quantizers[0].positionwise

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments as plain data, and the name of the class."""
        config = super().config
        return {CLASS_PATH: config["class_path"], **config["init_args"]}

    def _flat(self, indices: Sequence[Tensor]) -> Tensor:
        """Join the indices of all levels, as `encode` returns them."""
        (only,) = indices
        return only

    def _split(self, indices: Tensor, size: tuple[int, ...] | None) -> Sequence[Tensor]:
        """Undo `_flat`."""
        return [indices]

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
        names = inspect.signature(named.__init__).parameters
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
