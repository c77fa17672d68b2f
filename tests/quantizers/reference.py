"""The classic module and its EMA sibling, written from their formulas, to compare with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def classic(inputs: Tensor, codebook: Tensor, commitment_cost: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Loss, quantized (BCHW), perplexity and one-hot encodings for BCHW `inputs` and a `(K, D)` codebook."""
    batch, dim, height, width = inputs.shape
    z = torch.stack([inputs[b, :, h, w] for b in range(batch) for h in range(height) for w in range(width)])
    distances = z.square().sum(1)[:, None] - 2 * z @ codebook.T + codebook.square().sum(1)[None]
    encodings = F.one_hot(distances.min(1).indices, len(codebook)).to(z)
    e = encodings @ codebook
    e_latent_loss = ((e.detach() - z) ** 2).mean()
    q_latent_loss = ((e - z.detach()) ** 2).mean()
    p = encodings.mean(0)
    perplexity = torch.exp(-(p * (p + 1e-10).log()).sum())
    straight_through = z + (e - z).detach()
    quantized = straight_through.reshape(batch, height, width, dim).permute(0, 3, 1, 2)
    return q_latent_loss + commitment_cost * e_latent_loss, quantized, perplexity, encodings


def ema_update(
    count: Tensor, total: Tensor, encodings: Tensor, z: Tensor, decay: float, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Running counts, running sums and codes after one step with one-hot `encodings` of the rows `z`."""
    count = decay * count + (1 - decay) * encodings.sum(0)
    total = decay * total + (1 - decay) * encodings.T @ z
    n = count.sum()
    smoothed = (count + epsilon) / (n + len(count) * epsilon) * n
    return count, total, total / smoothed[:, None]
