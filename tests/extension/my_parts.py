"""Parts and a quantizer as somebody outside of Lexel writes them, with nothing but its public names."""

from dataclasses import dataclass

import torch
from torch import nn

import lexel


@dataclass(frozen=True)
class ScaledCodebook(lexel.Codebook):
    """All codes share a learned scale."""

    accepts_averages = False

    def build(self, num_embeddings, embedding_dim, *, trainable=True):
        return Scaled(self, num_embeddings, embedding_dim, trainable=trainable)


class Scaled(lexel.CodebookModule):
    def __init__(self, settings, num_embeddings, code_dim, *, trainable):
        super().__init__(settings, num_embeddings, code_dim, trainable=trainable)
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self):
        return self.weight * self.log_scale.exp()

    def table_for(self, codes):
        return codes / self.log_scale.exp()


@dataclass(frozen=True)
class Approach(lexel.Learning):
    """Each code goes a share of the way to the mean of its inputs."""

    share: float = 0.1

    def build(self, num_embeddings, embedding_dim):
        return ApproachModule(self)


class ApproachModule(lexel.LearningModule):
    def statistics(self, z, indices, num_embeddings):
        # On a GPU too this adds in the same order in each run, as index_add_ does not.
        return (z.new_zeros(num_embeddings, z.shape[1]).index_put_((indices,), z, accumulate=True),)

    @torch.no_grad()
    def update(self, codes, counts, sums):
        means = sums / counts.clamp_min(1).unsqueeze(1)
        codes.lerp_(means.to(codes.dtype), self.settings.share * (counts > 0).to(codes.dtype).unsqueeze(1))


@dataclass(frozen=True)
class Attenuated(lexel.StraightThrough):
    """The encoder gets a share of the decoder's gradient."""

    share: float = 0.5

    def build(self, num_embeddings, embedding_dim):
        return lexel.NearestCode(self, self.quantize)

    def quantize(self, z, e):
        return e.detach() + self.share * (z - z.detach())


@dataclass(frozen=True)
class Recycling(lexel.Upkeep):
    """The code that has been used least moves to the first input of each batch."""

    def build(self, num_embeddings, embedding_dim):
        return RecyclingModule(self, num_embeddings)


class RecyclingModule(lexel.UpkeepModule):
    def __init__(self, settings, num_embeddings):
        super().__init__(settings)
        self.register_buffer("uses", torch.zeros(num_embeddings))

    def prepare(self, codes, rows, *, unit_length=False):
        least = torch.arange(len(codes), device=codes.device) == self.uses.argmin()
        anchors = rows.take(torch.zeros(len(codes), dtype=torch.int64, device=codes.device))
        return anchors, (least & (rows.total > 0)).to(codes.dtype)

    def observe(self, counts):
        self.uses += counts


@dataclass(frozen=True)
class Smallness(lexel.Regulariser):
    """Keeps codes near the origin."""

    weight: float = 0.01
    name = "smallness"

    def build(self, num_embeddings, embedding_dim):
        return SmallnessModule(self)


class SmallnessModule(lexel.RegulariserModule):
    def forward(self, z, codes, valid=None):
        return codes.square().mean()


class TernaryQuantizer(lexel.RowQuantizer):
    """Each channel becomes −1, 0 or 1."""

    def __init__(self, embedding_dim, *, channel_dim=1):
        super().__init__(3**embedding_dim, embedding_dim, channel_dim)

    def quantize_rows(self, z, valid):
        digits = z.detach().round().clamp(-1, 1).long() + 1
        indices = (digits * 3 ** torch.arange(self.embedding_dim, device=z.device)).sum(1)
        (error,) = self.means((z - (digits - 1)).square().mean(1), valid=valid)
        quantized = lexel.straight_through(z, self.lookup_rows(indices).to(z.dtype))
        return lexel.Choice(indices, quantized, 0.25 * error, {"commitment": error})

    def lookup_rows(self, indices):
        places = 3 ** torch.arange(self.embedding_dim, device=indices.device)
        return (indices.unsqueeze(1) // places % 3 - 1).float()
