"""The quantizers of known systems, by name: plain functions that return a composition of Lexel's quantizers.

Each takes the sizes that users change and `channel_dim`; everything else is as in the system. The rest of a system
(encoder, decoder, other losses) is not here. To change more, copy the composition from the function. The command line
takes presets like classes: `lexel train DATA --quantizer lexel.presets.magvit2`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from lexel._core.config import register
from lexel.codebook import CosineCodebook, FactorisedCodebook, FreeCodebook, SimVQ
from lexel.estimators import IndexBackpropagation, StraightThrough
from lexel.learning import EMA, Gradient
from lexel.quantizers.dropout import QuantizationDropout
from lexel.quantizers.finite_scalar import FiniteScalarQuantizer
from lexel.quantizers.lookup_free import BinarySphericalQuantizer, LookupFreeQuantizer
from lexel.quantizers.multi_scale import MultiScaleResidualQuantizer
from lexel.quantizers.normalised import NormalisedQuantizer
from lexel.quantizers.product import ProductQuantizer
from lexel.quantizers.random_projection import RandomProjectionQuantizer
from lexel.quantizers.residual import ResidualQuantizer
from lexel.quantizers.vector import VectorQuantizer
from lexel.regularisers import Entropy
from lexel.upkeep import KMeansStart, Revival

__all__ = [
    "best_rq",
    "bsq_vit",
    "cosmos",
    "dac",
    "default",
    "encodec",
    "hificodec",
    "ibq",
    "llamagen",
    "magvit2",
    "rq_vae",
    "simvq",
    "soundstream",
    "var",
    "vit_vqgan",
    "vqgan",
    "vqvae",
]


@register
def default(num_embeddings: int = 512, embedding_dim: int = 64, *, channel_dim: int = 1) -> NormalisedQuantizer:
    """Lexel's own recipe, for any K, any D and any length of training, with nothing to tune.

    In `python -m benchmarks.lengths` it did best up to 2,000 steps. From 8,000 on `EMA(0.8)`, `KMeansStart()` and
    `Revival()` on the inputs as they are, with β = 1, do as well.

    The inputs are shifted and scaled to a range in which encoder and decoder learn well, and not scaled back. Codes
    start by k-means, are moving averages of their inputs, and are revived when no input chooses them; the gradient is
    passed straight through, and in training a tenth of the examples pass unquantized.

    The spread of the inputs is 1.6 / √D and the commitment cost D / 128, so that channels that are always 0 change
    nothing: whatever D is, the inputs have the same length, and a vector's commitment the same weight.

    The average must follow an encoder that moves, yet cover enough inputs of each code: with few codes it can be short,
    with many it must be long, since each code gets fewer inputs in a step. The decay is 0.9 up to K = 512, and beyond
    that 1 − 0.1 · (512 / K)^⅓: 0.97 for 16,384, 0.99 for 262,144. A code that no input chooses is revived after 9 K
    inputs. Beyond K = 16,384, where a training run has few inputs for each code, it is revived earlier: the decay of
    the revival is 0.6 · (16384 / K)^¼, which means 4 K inputs for K = 262,144.

    Example:
        >>> default(16384, 256).quantizer.quantizer.learning.settings.decay
        0.9685
    """
    decay = round(1 - 0.1 * (512 / max(num_embeddings, 512)) ** (1 / 3), 4)
    revival = round(0.6 * (16384 / max(num_embeddings, 16384)) ** (1 / 4), 4)
    quantizer = VectorQuantizer(
        num_embeddings,
        embedding_dim,
        commitment_cost=embedding_dim / 128,
        learning=EMA(decay),
        upkeep=(KMeansStart(), Revival(decay=revival)),
    )
    std = 1.6 / math.sqrt(embedding_dim)
    return NormalisedQuantizer(QuantizationDropout(quantizer), std, scale_back=False, channel_dim=channel_dim)


@register
def vqvae(num_embeddings: int = 512, *, embedding_dim: int = 64, channel_dim: int = 1) -> VectorQuantizer:
    """VQ-VAE (arXiv 1711.00937, §4.1): 512 codes for ImageNet, β = 0.25 in all experiments, codes by gradient.

    The paper does not state D; 64 is what the authors' public example has.

    Example:
        >>> vqvae().bits
        9.0
    """
    return VectorQuantizer(num_embeddings, embedding_dim, 0.25, channel_dim=channel_dim)


@register
def vqgan(num_embeddings: int = 16384, *, embedding_dim: int = 256, channel_dim: int = 1) -> VectorQuantizer:
    """VQGAN (arXiv 2012.09841): 1,024 or 16,384 codes of 256 dimensions for ImageNet; β = 0.25 in its configurations.

    Its package multiplies the codebook term by β instead of the commitment term, unless `legacy` is off; here β weighs
    the commitment term, as in VQ-VAE.

    Example:
        >>> vqgan().bits
        14.0
    """
    return VectorQuantizer(num_embeddings, embedding_dim, 0.25, channel_dim=channel_dim)


@register
def vit_vqgan(num_embeddings: int = 8192, *, embedding_dim: int = 768, channel_dim: int = -1) -> VectorQuantizer:
    """ViT-VQGAN (arXiv 2110.04627, §3.2): 8,192 factorised cosine codes, 768 dimensions in and 32 for the search.

    Example:
        >>> vit_vqgan().codebook().shape
        torch.Size([8192, 32])
    """
    codebook = FactorisedCodebook(32, CosineCodebook())
    return VectorQuantizer(num_embeddings, embedding_dim, 0.25, codebook=codebook, channel_dim=channel_dim)


@register
def llamagen(num_embeddings: int = 16384, *, embedding_dim: int = 8, channel_dim: int = 1) -> VectorQuantizer:
    """LlamaGen's image tokenizer (arXiv 2406.06525): 16,384 cosine codes of 8 dimensions, β = 0.25, no entropy term.

    Example:
        >>> llamagen().bits
        14.0
    """
    return VectorQuantizer(num_embeddings, embedding_dim, 0.25, codebook=CosineCodebook(), channel_dim=channel_dim)


@register
def simvq(num_embeddings: int = 65536, *, embedding_dim: int = 128, channel_dim: int = 1) -> VectorQuantizer:
    """SimVQ (arXiv 2411.02038): a frozen table behind a linear map; the paper goes up to 262,144 codes.

    128 dimensions and β = 0.25 are those of the authors' configuration for ImageNet.

    Example:
        >>> simvq().bits
        16.0
    """
    return VectorQuantizer(num_embeddings, embedding_dim, 0.25, codebook=SimVQ(), channel_dim=channel_dim)


@register
def ibq(num_embeddings: int = 16384, *, embedding_dim: int = 256, channel_dim: int = 1) -> VectorQuantizer:
    """IBQ (arXiv 2412.02692), with the settings of the authors' configurations for ImageNet.

    β = 0.25 weighs the codebook's term and 1 the commitment, codes start as unit normal vectors, and the entropy term
    has a weight of 0.05 and a temperature of 0.01. With less of it codes fall out of use: see `IndexBackpropagation`.

    Example:
        >>> ibq().bits
        14.0
    """
    return VectorQuantizer(
        num_embeddings,
        embedding_dim,
        commitment_cost=1.0,
        codebook=FreeCodebook(std=1.0),
        learning=Gradient(weight=0.25),
        estimator=IndexBackpropagation(),
        regularisers=Entropy(weight=0.05, temperature=0.01, metric="dot"),
        channel_dim=channel_dim,
    )


@register
def soundstream(num_quantizers: int = 8, *, embedding_dim: int = 256, channel_dim: int = 1) -> ResidualQuantizer:
    """SoundStream (arXiv 2107.03312): 1,024 codes a stage, k-means start, EMA, revival, dropout by example.

    Example:
        >>> soundstream(8).bits
        80.0
    """
    stages = [_audio_stage(embedding_dim) for _ in range(num_quantizers)]
    return ResidualQuantizer(stages, dropout=1.0, channel_dim=channel_dim)


@register
def encodec(num_quantizers: int = 8, *, embedding_dim: int = 128, channel_dim: int = 1) -> ResidualQuantizer:
    """EnCodec (arXiv 2210.13438): as SoundStream, with 128 channels; 8 stages are 6 kbps at 75 frames a second.

    EnCodec draws one number of stages for each batch, among those of its bandwidths; here each example draws its own,
    among all.

    Example:
        >>> encodec(8).bits * 75
        6000.0
    """
    return soundstream(num_quantizers, embedding_dim=embedding_dim, channel_dim=channel_dim)


@register
def dac(num_quantizers: int = 9, *, embedding_dim: int = 1024, channel_dim: int = 1) -> ResidualQuantizer:
    """DAC (arXiv 2306.06546): factorised codes of 8 dimensions, chosen by angle alone; dropout for half the examples.

    Example:
        >>> dac().bits
        90.0
    """
    stages = [
        VectorQuantizer(
            1024, embedding_dim, 0.25, codebook=FactorisedCodebook(8), estimator=StraightThrough(metric="cosine")
        )
        for _ in range(num_quantizers)
    ]
    return ResidualQuantizer(stages, dropout=0.5, channel_dim=channel_dim)


@register
def hificodec(
    groups: int = 2, num_quantizers: int = 2, *, embedding_dim: int = 512, channel_dim: int = 1
) -> ProductQuantizer:
    """HiFi-Codec (arXiv 2305.02765): group-residual quantization, a residual quantizer for each group.

    Example:
        >>> hificodec().bits
        40.0
    """
    parts = [
        ResidualQuantizer([_audio_stage(embedding_dim // groups) for _ in range(num_quantizers)]) for _ in range(groups)
    ]
    return ProductQuantizer(parts, channel_dim=channel_dim)


@register
def rq_vae(depth: int = 4, *, embedding_dim: int = 256, channel_dim: int = 1) -> ResidualQuantizer:
    """RQ-VAE (arXiv 2203.01941): one table of 16,384 codes for all depths, by EMA, with revival.

    Example:
        >>> rq_vae().lookup(rq_vae().eval()(__import__("torch").zeros(1, 256)).indices).shape
        torch.Size([1, 256])
    """
    shared = VectorQuantizer(16384, embedding_dim, 0.25, learning=EMA(0.99), upkeep=Revival())
    return ResidualQuantizer([shared], depth=depth, channel_dim=channel_dim)


@register
def magvit2(bits: int = 18, *, channel_dim: int = 1) -> LookupFreeQuantizer:
    """MAGVIT-v2 (arXiv 2310.05737): lookup-free, 2^18 codes.

    Example:
        >>> magvit2().num_embeddings
        262144
    """
    return LookupFreeQuantizer(bits, 0.25, entropy_weight=0.1, channel_dim=channel_dim)


@register
def bsq_vit(bits: int = 36, *, channel_dim: int = 1) -> BinarySphericalQuantizer:
    """BSQ-ViT (arXiv 2406.07548): binary spherical, 36 bits for a patch; 18 in its smaller model.

    Example:
        >>> bsq_vit().bits
        36.0
    """
    return BinarySphericalQuantizer(bits, channel_dim=channel_dim)


@register
def cosmos(levels: Sequence[int] = (8, 8, 8, 5, 5, 5), *, channel_dim: int = 1) -> FiniteScalarQuantizer:
    """Cosmos's discrete tokenizers (arXiv 2501.03575): finite scalar quantization of 6 channels, 64,000 codes.

    Example:
        >>> cosmos().num_embeddings
        64000
    """
    return FiniteScalarQuantizer(levels, channel_dim=channel_dim)


@register
def var(
    scales: Sequence[int] = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16), *, embedding_dim: int = 32, channel_dim: int = 1
) -> MultiScaleResidualQuantizer:
    """VAR's tokenizer (arXiv 2404.02905): 4,096 codes at ten scales, 680 tokens for an image of 256×256.

    Example:
        >>> sum(var().tokens)
        680
    """
    return MultiScaleResidualQuantizer(VectorQuantizer(4096, embedding_dim), list(scales), channel_dim=channel_dim)


@register
def best_rq(embedding_dim: int = 320, *, channel_dim: int = -1) -> RandomProjectionQuantizer:
    """BEST-RQ (arXiv 2202.01855): 8,192 random codes of 16 dimensions; 4 stacked frames of 80 log-mel features.

    Example:
        >>> best_rq().bits
        13.0
    """
    return RandomProjectionQuantizer(8192, embedding_dim, 16, channel_dim=channel_dim)


def _audio_stage(embedding_dim: int) -> VectorQuantizer:
    return VectorQuantizer(1024, embedding_dim, 1.0, learning=EMA(0.99), upkeep=(KMeansStart(), Revival()))
