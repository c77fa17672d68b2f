"""Codebooks: what the codes of a quantizer are a function of.

Settings such as `SimVQ()` say which function it is. The quantizer builds a `CodebookModule` from them, which holds the
table and whatever else is learned, and stores it as `vq.codebook`; `vq.codebook()` returns the codes.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Self, override

from lexel._core.checks import check_integer, check_number
from lexel._core.config import Configurable, Part
from lexel._core.gradients import unit_rows
from lexel._core.modules import ZeroLinear
from lexel._core.sharding import is_sharded, write_rows
from lexel._core.values import Refusal

__all__ = [
    "AffineCodebook",
    "Codebook",
    "CodebookModule",
    "CosineCodebook",
    "FactorisedCodebook",
    "FreeCodebook",
    "SimVQ",
    "VQBridge",
    "apply_layer",
]


class Codebook(Configurable):
    """Settings that say what the codes are a function of; `build` makes the module from them."""

    @property
    def accepts_averages(self) -> bool:
        """Whether a learning rule may set each code to an average of its inputs, as `EMA` does."""
        return True

    @property
    def accepts_placement(self) -> bool:
        """Whether upkeep may move a single code to a new place."""
        return True

    @property
    def unit_length(self) -> bool:
        """Whether codes and inputs have length 1."""
        return False

    @property
    def learns_from_task(self) -> bool:
        """Whether the task loss must train parameters of the codebook that the quantizer's own loss does not reach."""
        return False

    @property
    def accepts_positions(self) -> bool:
        """Whether the module projects and expands `(B, S, D)`, B batches of S rows, as well as rows `(N, D)`."""
        return False

    @abstractmethod
    def build(self, num_embeddings: int, embedding_dim: int, *, trainable: bool = True) -> CodebookModule[Codebook]:
        """Make the module for K codes and inputs of D numbers.

        Args:
            num_embeddings: K.
            embedding_dim: D.
            trainable: True if gradient descent moves the codes; otherwise they are a buffer, which the learning rule
                updates in place.
        """


CodebookT = TypeVar("CodebookT", bound=Codebook, covariant=True)


class CodebookModule(Part[CodebookT]):
    """A table of codes, each learned on its own. Calling the module returns the codes, `(K, d)`.

    A codebook whose codes are a function of its table overrides `forward` and `table_for`; one whose codes lie in
    another space than the inputs overrides `project` and `expand`.

    Attributes:
        weight: the table, `(K, d)`; a parameter when gradient descent moves it, else a buffer.
    """

    weight: Tensor

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "forward" in cls.__dict__ and "table_for" not in cls.__dict__:
            cls.table_for = CodebookModule._no_table_for  # type: ignore[method-assign]

    # FSDP puts the whole table in the place of this rank's shard during a pass, and throws it away afterwards.
    _shard: Tensor | None = None

    def __init__(self, settings: CodebookT, num_embeddings: int, code_dim: int, *, trainable: bool = True) -> None:
        super().__init__(settings)
        self._refusal = Refusal()
        weight = torch.empty(num_embeddings, code_dim)
        if trainable:
            self.weight = nn.Parameter(weight)
        else:
            self.register_buffer("weight", weight)
        self.reset_parameters()

    @override
    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "weight" and is_sharded(value):
            self.__dict__["_shard"] = value

    @override
    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        if is_sharded(self.weight):  # another one, when the module was on the meta device
            self.__dict__["_shard"] = self.weight
        return self

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Start the codes uniform in [−1/K, 1/K]."""
        self.weight.uniform_(-1 / len(self.weight), 1 / len(self.weight))

    def forward(self) -> Tensor:
        """Return the codes, `(K, d)`."""
        return self.weight

    def project(self, z: Tensor) -> Tensor:
        """Map inputs `(N, D)` into the space of the codes, `(N, d)`."""
        return z

    def expand(self, e: Tensor) -> Tensor:
        """Map codes `(N, d)` back into the space of the inputs, `(N, D)`."""
        return e

    def table_for(self, codes: Tensor) -> Tensor:
        """Return the table from which `forward` would compute `codes`: its inverse; both are `(K, d)`.

        Upkeep may ask for codes anywhere, also for those that `forward` cannot return: give the nearest then.
        """
        return codes

    def _no_table_for(self, codes: Tensor) -> Tensor:
        raise NotImplementedError(
            f"{type(self).__name__} overrides forward, so that upkeep must know which table has certain codes: define "
            f"table_for, or set accepts_placement = False in {type(self.settings).__name__}"
        )

    @torch.no_grad()
    def pull(self, anchors: Tensor, strength: Tensor) -> None:
        """Move codes towards anchors in place: e ← (1 − s) e + s · anchor.

        Args:
            anchors: `(K, d)`, finite.
            strength: s, `(K,)`, in [0, 1].
        """
        strength = strength.to(self.weight.dtype).unsqueeze(1)
        codes = torch.lerp(self(), anchors.to(self.weight.dtype), strength)
        table = torch.where(strength > 0, self.table_for(codes), self.weight)
        finite = table.isfinite().all()
        self._refusal.unless(
            finite,
            f"{self._get_name()}: table_for gives NaN or infinity for some codes, which this codebook cannot have; no "
            "code was changed",
        )
        self.write(table, (strength > 0) & finite)

    @torch.no_grad()
    def write(self, table: Tensor, which: Tensor | None = None) -> None:
        """Write the table in place, also one that FSDP's `fully_shard` has sharded over the ranks.

        Args:
            table: `(K, d)`, the same on all ranks.
            which: bool `(K, 1)`, True for the rows to write; None for all.
        """
        which = torch.ones_like(table[:, :1], dtype=torch.bool) if which is None else which
        write_rows(self.weight, table, which)
        if self._shard is not None and self._shard is not self.weight:
            write_rows(self._shard, table, which)


@dataclass(frozen=True)
class FreeCodebook(Codebook):
    """The codes are the table itself (van den Oord et al. 2017, arXiv 1711.00937).

    Attributes:
        std: the standard deviation of the normal numbers that the codes start as, positive; None for uniform ones in
            [−1/K, 1/K].

    Raises:
        ValueError: `std` is not positive.

    Example:
        >>> FreeCodebook().build(512, 64)()[:2].shape
        torch.Size([2, 64])
    """

    std: float | None = None
    accepts_positions = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.std is not None:
            check_number("FreeCodebook", "std", self.std, above=0)

    @override
    def build(self, num_embeddings: int, embedding_dim: int, *, trainable: bool = True) -> CodebookModule[Codebook]:
        return _FreeModule(self, num_embeddings, embedding_dim, trainable=trainable)


class _FreeModule(CodebookModule[FreeCodebook]):
    @override
    @torch.no_grad()
    def reset_parameters(self) -> None:
        if self.settings.std is None:
            super().reset_parameters()
        else:
            self.weight.normal_(std=self.settings.std)


@dataclass(frozen=True)
class CosineCodebook(Codebook):
    """Codes and inputs are scaled to length 1, so that the angle decides (ViT-VQGAN, arXiv 2110.04627, §3.2).

    Losses and estimator see unit vectors, and the quantized output has length 1. Codes start uniform on the sphere.
    With EMA each code is the direction of the mean of its unit inputs (spherical k-means).

    Example:
        >>> import lexel
        >>> vq = lexel.VectorQuantizer(512, 64, codebook=CosineCodebook())
        >>> vq(10 * torch.randn(1, 64, 3)).quantized.detach().norm(dim=1).round(decimals=4)
        tensor([[1., 1., 1.]])
    """

    unit_length = True

    @override
    def build(self, num_embeddings: int, embedding_dim: int, *, trainable: bool = True) -> CodebookModule[Codebook]:
        return _CosineModule(self, num_embeddings, embedding_dim, trainable=trainable)


class _CosineModule(CodebookModule[CosineCodebook]):
    @override
    @torch.no_grad()
    def reset_parameters(self) -> None:
        self.weight.copy_(unit_rows(self.weight.normal_()))

    @override
    def forward(self) -> Tensor:
        return unit_rows(self.weight)

    @override
    def project(self, z: Tensor) -> Tensor:
        return unit_rows(z)

    @override
    def table_for(self, codes: Tensor) -> Tensor:
        return codes


@dataclass(frozen=True)
class FactorisedCodebook(Codebook):
    """A codebook of few dimensions between two learned linear maps (ViT-VQGAN, arXiv 2110.04627, §3.2).

    The search, the losses and the estimator work in the space of the codes.

    Attributes:
        dim: d, the dimension of the codes, at least 1.
        codes: the codebook in that space; ViT-VQGAN has `CosineCodebook()`.

    Raises:
        ValueError: `dim` is below 1.

    Example:
        >>> import lexel
        >>> vq = lexel.VectorQuantizer(8192, 256, codebook=FactorisedCodebook(dim=8, codes=CosineCodebook()))
        >>> vq.codebook().shape, vq(torch.randn(2, 256, 8)).quantized.shape
        (torch.Size([8192, 8]), torch.Size([2, 256, 8]))
    """

    dim: int = 8
    codes: Codebook = FreeCodebook()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("FactorisedCodebook", "dim", self.dim, least=1)

    @property
    @override
    def accepts_averages(self) -> bool:
        return self.codes.accepts_averages

    @property
    @override
    def accepts_placement(self) -> bool:
        return self.codes.accepts_placement

    @property
    @override
    def unit_length(self) -> bool:
        return self.codes.unit_length

    learns_from_task = True

    @override
    def build(self, num_embeddings: int, embedding_dim: int, *, trainable: bool = True) -> CodebookModule[Codebook]:
        return _FactorisedModule(self, self.codes.build(num_embeddings, self.dim, trainable=trainable), embedding_dim)


class _FactorisedModule(CodebookModule[FactorisedCodebook]):
    """Another codebook, between two linear maps."""

    def __init__(self, settings: FactorisedCodebook, codes: CodebookModule[Codebook], embedding_dim: int) -> None:
        Part.__init__(self, settings)
        self._refusal = Refusal()
        self.codes = codes
        self.down = nn.Linear(embedding_dim, settings.dim)
        self.up = nn.Linear(settings.dim, embedding_dim)

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        return self.codes.weight

    @override
    def write(self, table: Tensor, which: Tensor | None = None) -> None:
        self.codes.write(table, which)

    @override
    def forward(self) -> Tensor:
        codes: Tensor = self.codes()
        return codes

    @override
    def project(self, z: Tensor) -> Tensor:
        return self.codes.project(apply_layer(self.down, z))

    @override
    def expand(self, e: Tensor) -> Tensor:
        return apply_layer(self.up, self.codes.expand(e))

    @override
    def table_for(self, codes: Tensor) -> Tensor:
        return self.codes.table_for(codes)


def apply_layer(layer: nn.Linear, rows: Tensor) -> Tensor:
    """Apply a layer in its own dtype, so that looking a code up gives the very numbers that quantizing gave."""
    result: Tensor = layer(rows.to(layer.weight.dtype))
    return result.to(rows.dtype)


@dataclass(frozen=True)
class SimVQ(Codebook):
    """A frozen random table behind a learned linear map, so that each step moves all codes (arXiv 2411.02038, §4).

    The table is normal with standard deviation D^−½ and never learns; the codes are table · Wᵀ.

    Example:
        >>> import lexel
        >>> vq = lexel.VectorQuantizer(512, 64, codebook=SimVQ())
        >>> [name for name, _ in vq.named_parameters()]
        ['codebook.map.weight']
    """

    accepts_averages = False
    accepts_placement = False
    accepts_positions = True

    @override
    def build(self, num_embeddings: int, embedding_dim: int, *, trainable: bool = True) -> CodebookModule[Codebook]:
        return _SimModule(self, num_embeddings, embedding_dim, trainable=False)


class _SimModule(CodebookModule[SimVQ]):
    def __init__(self, settings: SimVQ, num_embeddings: int, code_dim: int, *, trainable: bool) -> None:
        super().__init__(settings, num_embeddings, code_dim, trainable=trainable)
        self.map = nn.Linear(code_dim, code_dim, bias=False)

    @override
    @torch.no_grad()
    def reset_parameters(self) -> None:
        self.weight.normal_(std=self.weight.shape[1] ** -0.5)

    @override
    def forward(self) -> Tensor:
        return apply_layer(self.map, self.weight)


@dataclass(frozen=True)
class VQBridge(Codebook):
    """A learned table behind a small transformer, so that each step moves all codes (FVQ, arXiv 2509.10140, §3).

    Compress: `codes_per_token` neighbouring rows become a token. Process: `depth` pre-norm transformer blocks.
    Recover: each token becomes its rows again. Here the result is added to the table and starts at zero, so that the
    codes start as the table. No (tokens, tokens) matrix is stored.

    Attributes:
        depth: number of transformer blocks.
        width: channels of a token; a multiple of `heads`.
        heads: number of attention heads.
        codes_per_token: how many rows make a token.

    Raises:
        ValueError: a value is below 1, or `width` is not a multiple of `heads`.

    Example:
        >>> import lexel
        >>> vq = lexel.VectorQuantizer(512, 64, codebook=VQBridge())
        >>> vq(torch.randn(2, 64, 8)).quantized.shape
        torch.Size([2, 64, 8])
    """

    depth: int = 2
    width: int = 128
    heads: int = 4
    codes_per_token: int = 16

    accepts_averages = False
    accepts_placement = False
    accepts_positions = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("depth", "width", "heads", "codes_per_token"):
            check_integer("VQBridge", name, getattr(self, name), least=1)
        if self.width % self.heads:
            raise ValueError(f"VQBridge: width must be a multiple of heads={self.heads}, got {self.width}")

    @override
    def build(self, num_embeddings: int, embedding_dim: int, *, trainable: bool = True) -> CodebookModule[Codebook]:
        return _BridgeModule(self, num_embeddings, embedding_dim, trainable=trainable)


class _BridgeModule(CodebookModule[VQBridge]):
    def __init__(self, settings: VQBridge, num_embeddings: int, code_dim: int, *, trainable: bool) -> None:
        super().__init__(settings, num_embeddings, code_dim, trainable=trainable)
        self.patch = settings.codes_per_token
        self.compress = nn.Linear(self.patch * code_dim, settings.width)
        self.process = nn.Sequential(*(_Block(settings.width, settings.heads) for _ in range(settings.depth)))
        recover = ZeroLinear(settings.width, self.patch * code_dim)
        self.recover = nn.Sequential(nn.LayerNorm(settings.width), recover)

    @override
    @torch.no_grad()
    def reset_parameters(self) -> None:
        self.weight.normal_(std=self.weight.shape[1] ** -0.5)

    @override
    def forward(self) -> Tensor:
        K, d = self.weight.shape
        rows = F.pad(self.weight, (0, 0, 0, -K % self.patch))
        tokens = self.process(self.compress(rows.reshape(1, -1, self.patch * d)))
        codes: Tensor = self.weight + self.recover(tokens).reshape(-1, d)[:K]
        return codes


class _Block(nn.Module):
    """A pre-norm transformer block without dropout."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    @override
    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).view(*x.shape[:-1], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        result: Tensor = x + self.mlp(x)
        return result


@dataclass(frozen=True)
class AffineCodebook(Codebook):
    """All codes share a learned shift and scale, so that unused codes follow the others (Huh et al. 2023, §4.1).

        e_i = shift + scale · table_i

    with a shift and a scale for each dimension, both learned by gradient descent like the table.

    Example:
        >>> import lexel
        >>> vq = lexel.VectorQuantizer(512, 64, codebook=AffineCodebook())
        >>> [name for name, _ in vq.named_parameters()]
        ['codebook.weight', 'codebook.shift', 'codebook.scale']
    """

    accepts_averages = False
    accepts_positions = True

    @override
    def build(self, num_embeddings: int, embedding_dim: int, *, trainable: bool = True) -> CodebookModule[Codebook]:
        return _AffineModule(self, num_embeddings, embedding_dim, trainable=trainable)


class _AffineModule(CodebookModule[AffineCodebook]):
    def __init__(self, settings: AffineCodebook, num_embeddings: int, code_dim: int, *, trainable: bool) -> None:
        super().__init__(settings, num_embeddings, code_dim, trainable=trainable)
        self.shift = nn.Parameter(torch.zeros(code_dim))
        self.scale = nn.Parameter(torch.ones(code_dim))

    @override
    @torch.no_grad()
    def reset_parameters(self) -> None:
        super().reset_parameters()
        if "scale" in self._parameters:  # not while the table itself is being made
            self.shift.zero_()
            self.scale.fill_(1)

    @override
    def forward(self) -> Tensor:
        return self.shift + self.scale * self.weight

    @override
    def table_for(self, codes: Tensor) -> Tensor:
        least = math.sqrt(torch.finfo(self.scale.dtype).tiny)
        return (codes - self.shift) / torch.where(self.scale.abs() < least, least, self.scale)
