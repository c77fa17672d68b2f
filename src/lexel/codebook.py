"""Codebooks: what the codes of a quantizer are a function of.

The settings, such as `SimVQ()`, say which function; the quantizer builds the `Table` that holds its numbers, and keeps
it as `vq.codebook`. Calling that gives the codes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lexel._core.collectives import all_sum
from lexel._core.config import Configurable, Stateful

__all__ = [
    "AffineCodebook",
    "Codebook",
    "CosineCodebook",
    "FactorisedCodebook",
    "FreeCodebook",
    "NormalisedCodebook",
    "SimVQ",
    "Table",
    "VQBridge",
    "apply_layer",
]


class Codebook(Configurable, abstract=True):
    """What the codes are a function of: settings only.

    Attributes:
        averages: a code can be an average of its inputs, as EMA makes it.
        places: a single code can be put where upkeep wants it.
        unit: codes and inputs have length 1.
    """

    averages: ClassVar[bool] = True
    places: ClassVar[bool] = True
    unit: ClassVar[bool] = False

    def build(self, num_embeddings: int, embedding_dim: int, *, trainable: bool = True) -> Table:
        """Make the table for K codes and inputs of D numbers, as parameters or, if not `trainable`, as buffers."""
        raise NotImplementedError


class Table(Stateful[Codebook], abstract=True):
    """A free table of codes: each row is learned on its own. Other tables derive from it.

    Attributes:
        weight: the table, `(K, d)`; a parameter when it learns by gradient, else a buffer.
    """

    weight: Tensor

    def __init__(self, settings: Codebook, num_embeddings: int, code_dim: int, *, trainable: bool = True) -> None:
        super().__init__(settings)
        weight = torch.empty(num_embeddings, code_dim)
        if trainable:
            self.weight = nn.Parameter(weight)
        else:
            self.register_buffer("weight", weight)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Start the codes uniform in [−1/K, 1/K]."""
        self.weight.uniform_(-1 / len(self.weight), 1 / len(self.weight))

    def forward(self) -> Tensor:
        """Return the codes, `(K, d)`."""
        return self.weight

    def begin(self, z: Tensor, valid: Tensor | None) -> None:
        """Learn, at the beginning of a training step, what is to be known of the inputs `(N, D)`.

        Every rank must call it. Rows for which `valid`, bool `(N,)`, is False do not count.
        """

    def project(self, z: Tensor) -> Tensor:
        """Bring inputs `(N, D)` into the space of the codes, `(N, d)`."""
        return z

    def expand(self, e: Tensor) -> Tensor:
        """Bring codes `(N, d)` back into the space of the inputs, `(N, D)`."""
        return e

    def place(self, codes: Tensor) -> Tensor:
        """Return the table, `(K, d)`, that makes the codes these."""
        return codes


@dataclass(frozen=True)
class FreeCodebook(Codebook):
    """The codes are the table itself (van den Oord et al. 2017, arXiv 1711.00937).

    Example:
        >>> FreeCodebook().build(512, 64)()[:2].shape
        torch.Size([2, 64])
    """

    def build(self, num_embeddings: int, embedding_dim: int, *, trainable: bool = True) -> Table:  # noqa: D102
        return Table(self, num_embeddings, embedding_dim, trainable=trainable)


@dataclass(frozen=True)
class CosineCodebook(Codebook):
    """Codes and inputs are divided by their lengths, so that the angle decides (ViT-VQGAN, arXiv 2110.04627, §3.2).

    Losses and estimator see unit vectors, and the quantized output has length 1. Codes start uniform on the sphere.
    With EMA they are the directions of the mean of their unit inputs (spherical k-means).

    Example:
        >>> import lexel
        >>> vq = lexel.VectorQuantizer(512, 64, codebook=CosineCodebook())
        >>> vq(10 * torch.randn(1, 64, 3)).quantized.detach().norm(dim=1).round(decimals=4)
        tensor([[1., 1., 1.]])
    """

    unit: ClassVar[bool] = True

    def build(self, num_embeddings: int, embedding_dim: int, *, trainable: bool = True) -> Table:  # noqa: D102
        return _CosineTable(self, num_embeddings, embedding_dim, trainable=trainable)


class _CosineTable(Table, abstract=True):
    @torch.no_grad()
    def reset_parameters(self) -> None:
        self.weight.copy_(F.normalize(self.weight.normal_(), dim=1))

    def forward(self) -> Tensor:
        return F.normalize(self.weight, dim=1)

    def project(self, z: Tensor) -> Tensor:
        return F.normalize(z, dim=1)


class _TableBehind(Table, abstract=True):
    """Another table, whose codes these are, behind something that is done to the inputs."""

    def __init__(self, settings: Codebook, codes: Table) -> None:
        Stateful.__init__(self, settings)
        self.codes = codes

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        return self.codes.weight

    def forward(self) -> Tensor:
        codes: Tensor = self.codes()
        return codes

    def expand(self, e: Tensor) -> Tensor:
        return self.codes.expand(e)

    def place(self, codes: Tensor) -> Tensor:
        return self.codes.place(codes)


def _behave_as(settings: Codebook, codes: Codebook) -> None:
    for name in ("averages", "places", "unit"):
        object.__setattr__(settings, name, getattr(codes, name))


@dataclass(frozen=True)
class FactorisedCodebook(Codebook):
    """The search happens in few dimensions, between two learned linear maps (ViT-VQGAN, arXiv 2110.04627, §3.2).

    Losses and estimator work in the space of the codes.

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
        if self.dim < 1:
            raise ValueError(f"FactorisedCodebook: dim must be at least 1, got {self.dim}")
        _behave_as(self, self.codes)

    def build(self, num_embeddings: int, embedding_dim: int, *, trainable: bool = True) -> Table:  # noqa: D102
        return _FactorisedTable(self, self.codes.build(num_embeddings, self.dim, trainable=trainable), embedding_dim)


class _FactorisedTable(_TableBehind, abstract=True):
    def __init__(self, settings: FactorisedCodebook, codes: Table, embedding_dim: int) -> None:
        super().__init__(settings, codes)
        self.down = nn.Linear(embedding_dim, settings.dim)
        self.up = nn.Linear(settings.dim, embedding_dim)

    def begin(self, z: Tensor, valid: Tensor | None) -> None:
        self.codes.begin(apply_layer(self.down, z), valid)

    def project(self, z: Tensor) -> Tensor:
        return self.codes.project(apply_layer(self.down, z))

    def expand(self, e: Tensor) -> Tensor:
        return apply_layer(self.up, super().expand(e))


@dataclass(frozen=True)
class NormalisedCodebook(Codebook):
    """Inputs are shifted and scaled, so that their mean is 0 and their spread `std` when training begins.

    The vectors of an encoder whose weights are fresh differ little: nearly all of their length is a mean that they
    share, and their spread about it may have any size. Then the decoder sees next to nothing of what differs, and both
    learn slowly. The mean of each channel, and one scale for all channels, are found in the first training step that
    has different inputs, over all ranks, and stay (a data-dependent start, as ActNorm's in Glow, arXiv 1807.03039,
    §3.1, but with one scale, since channels that hardly vary are hardly worth coding). Losses, estimator and codes work
    with the inputs so changed, and the quantized output is made of these codes: it is not scaled back.

    Attributes:
        codes: the codebook of the changed inputs.
        std: the standard deviation of the changed inputs, over all channels; positive.

    Raises:
        ValueError: `std` is not a positive number.

    Example:
        >>> import lexel
        >>> vq = lexel.VectorQuantizer(512, 64, codebook=NormalisedCodebook(std=1), upkeep=lexel.KMeansStart())
        >>> _ = vq(7 + 0.01 * torch.randn(8, 64, 16, 16))
        >>> vq.codebook.shift.mean().round(), vq.codebook.scale.round(decimals=-1)
        (tensor(7.), tensor(100.))
    """

    codes: Codebook = FreeCodebook()
    std: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.std < math.inf:
            raise ValueError(f"NormalisedCodebook: std must be positive and finite, got {self.std}")
        _behave_as(self, self.codes)

    def build(self, num_embeddings: int, embedding_dim: int, *, trainable: bool = True) -> Table:  # noqa: D102
        codes = self.codes.build(num_embeddings, embedding_dim, trainable=trainable)
        return _NormalisedTable(self, codes, embedding_dim)


class _NormalisedTable(_TableBehind, abstract=True):
    shift: Tensor
    scale: Tensor
    begun: Tensor

    def __init__(self, settings: NormalisedCodebook, codes: Table, embedding_dim: int) -> None:
        super().__init__(settings, codes)
        self.std = settings.std
        self.register_buffer("shift", torch.zeros(embedding_dim))
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("begun", torch.zeros((), dtype=torch.bool))

    @torch.no_grad()
    def begin(self, z: Tensor, valid: Tensor | None) -> None:
        if torch.compiler.is_compiling() or not bool(self.begun):
            counted = z.new_ones(len(z), 1) if valid is None else valid.unsqueeze(1).to(z.dtype)
            sums, count = all_sum(torch.where(counted > 0, z, 0).sum(0), counted.sum())
            mean = sums / count.clamp_min(1)
            (squares,) = all_sum(torch.where(counted > 0, z - mean, 0).square().sum())
            now = ~self.begun & (squares > 0)
            self.shift.copy_(torch.where(now, mean, self.shift))
            self.scale.copy_(torch.where(now, self.std * torch.rsqrt(squares / (count * z.shape[1])), self.scale))
            self.begun |= now
        self.codes.begin(self._change(z), valid)

    def project(self, z: Tensor) -> Tensor:
        return self.codes.project(self._change(z))

    def _change(self, z: Tensor) -> Tensor:
        return (z - self.shift.to(z.dtype)) * self.scale.to(z.dtype)


def apply_layer(layer: nn.Linear, rows: Tensor) -> Tensor:
    """Apply a layer in its own dtype, so that a code that is looked up takes the same way as one that was quantized."""
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

    averages: ClassVar[bool] = False
    places: ClassVar[bool] = False

    def build(self, num_embeddings: int, embedding_dim: int, *, trainable: bool = True) -> Table:  # noqa: D102
        return _SimTable(self, num_embeddings, embedding_dim, trainable=False)


class _SimTable(Table, abstract=True):
    def __init__(self, settings: SimVQ, num_embeddings: int, code_dim: int, *, trainable: bool) -> None:
        super().__init__(settings, num_embeddings, code_dim, trainable=trainable)
        self.map = nn.Linear(code_dim, code_dim, bias=False)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        self.weight.normal_(std=self.weight.shape[1] ** -0.5)

    def forward(self) -> Tensor:
        codes: Tensor = self.map(self.weight)
        return codes


@dataclass(frozen=True)
class VQBridge(Codebook):
    """A learned table behind a small transformer, so that each step moves all codes (FVQ, arXiv 2509.10140, §3).

    Compress: `codes_per_token` neighbouring rows become a token. Process: `depth` pre-norm transformer blocks.
    Recover: each token becomes its rows again. Here the result is added to the table and starts at zero, so that the
    codes start as the table. No (tokens, tokens) matrix is kept.

    Attributes:
        depth: how many blocks.
        width: of a token; a multiple of `heads`.
        heads: of the attention.
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
    averages: ClassVar[bool] = False
    places: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name in ("depth", "width", "heads", "codes_per_token"):
            if getattr(self, name) < 1:
                raise ValueError(f"VQBridge: {name} must be at least 1, got {getattr(self, name)}")
        if self.width % self.heads:
            raise ValueError(f"VQBridge: width must be a multiple of heads={self.heads}, got {self.width}")

    def build(self, num_embeddings: int, embedding_dim: int, *, trainable: bool = True) -> Table:  # noqa: D102
        return _BridgeTable(self, num_embeddings, embedding_dim, trainable=trainable)


class _BridgeTable(Table, abstract=True):
    def __init__(self, settings: VQBridge, num_embeddings: int, code_dim: int, *, trainable: bool) -> None:
        super().__init__(settings, num_embeddings, code_dim, trainable=trainable)
        self.patch = settings.codes_per_token
        self.compress = nn.Linear(self.patch * code_dim, settings.width)
        self.process = nn.Sequential(*(_Block(settings.width, settings.heads) for _ in range(settings.depth)))
        recover = nn.Linear(settings.width, self.patch * code_dim)
        nn.init.zeros_(recover.weight)
        nn.init.zeros_(recover.bias)
        self.recover = nn.Sequential(nn.LayerNorm(settings.width), recover)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        self.weight.normal_(std=self.weight.shape[1] ** -0.5)

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

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        result: Tensor = x + self.mlp(x)
        return result


@dataclass(frozen=True)
class AffineCodebook(Codebook):
    """All codes share a learned shift and scale, so that unused codes follow the others (Huh et al. 2023, §4.1).

        e_i = shift + scale · table_i

    with a shift and a scale for each dimension, learned by gradient as everything else.

    Example:
        >>> import lexel
        >>> vq = lexel.VectorQuantizer(512, 64, codebook=AffineCodebook())
        >>> [name for name, _ in vq.named_parameters()]
        ['codebook.weight', 'codebook.shift', 'codebook.scale']
    """

    averages: ClassVar[bool] = False

    def build(self, num_embeddings: int, embedding_dim: int, *, trainable: bool = True) -> Table:  # noqa: D102
        return _AffineTable(self, num_embeddings, embedding_dim, trainable=trainable)


class _AffineTable(Table, abstract=True):
    def __init__(self, settings: AffineCodebook, num_embeddings: int, code_dim: int, *, trainable: bool) -> None:
        super().__init__(settings, num_embeddings, code_dim, trainable=trainable)
        self.shift = nn.Parameter(torch.zeros(code_dim))
        self.scale = nn.Parameter(torch.ones(code_dim))

    def forward(self) -> Tensor:
        return self.shift + self.scale * self.weight

    def place(self, codes: Tensor) -> Tensor:
        least = math.sqrt(torch.finfo(self.scale.dtype).tiny)
        return (codes - self.shift) / torch.where(self.scale.abs() < least, least, self.scale)
