"""Finite scalar quantizers: vector-quantize-pytorch's, XCodec2's and NeuCodec's, CosyVoice 2's.

What they have in a state dict is their projections, if they have any; so they must be named.
"""

from __future__ import annotations

from collections.abc import Sequence

from lexel.migrate._assemble import in_heads, linear_map, projected, with_values
from lexel.migrate._formats import Format
from lexel.migrate._keys import Keys
from lexel.quantizers.base import Quantizer
from lexel.quantizers.finite_scalar import FiniteScalarQuantizer
from lexel.quantizers.product import ProductQuantizer
from lexel.quantizers.projected import ProjectedQuantizer
from lexel.quantizers.residual_finite_scalar import ResidualFiniteScalarQuantizer

__all__ = ["FORMATS"]


def _fsq(keys: Keys, *, levels: Sequence[int], symmetric: bool, hard_clamp: bool = False, heads: int = 1) -> Quantizer:
    if hard_clamp and not symmetric:
        raise ValueError("migrate.load: with hard_clamp=True and symmetric=False there is no such quantizer here")
    each = FiniteScalarQuantizer(levels, bound="clamp" if hard_clamp else "symmetric" if symmetric else "artanh")
    if "project_in.weight" in keys:
        heads = max(1, keys.size("project_in.weight", 0) // each.embedding_dim)
    return projected(keys, in_heads(each, heads))


def _residual_fsq(keys: Keys, *, levels: Sequence[int], depth: int, hard_clamp: bool = True) -> Quantizer:
    if not hard_clamp:
        raise ValueError("migrate.load: with hard_clamp=False there is no such residual quantizer here")
    return projected(keys, ResidualFiniteScalarQuantizer(levels, depth))


def _grouped_residual_fsq(keys: Keys, *, levels: Sequence[int], depth: int, hard_clamp: bool = True) -> Quantizer:
    groups = keys.stages("rvqs", "project_in.weight")
    return ProductQuantizer(
        [_residual_fsq(group, levels=levels, depth=depth, hard_clamp=hard_clamp) for group in groups]
    )


def _older_residual_fsq(keys: Keys, *, levels: Sequence[int], depth: int = 1) -> Quantizer:
    return projected(keys, ResidualFiniteScalarQuantizer(levels, depth, bound="artanh"))


def _cosyvoice(keys: Keys) -> Quantizer:
    down = linear_map(keys.under("_codebook.project_down."))
    fsq = FiniteScalarQuantizer([3] * len(down["weight"]))
    quantizer = ProjectedQuantizer(fsq, down["weight"].shape[1], back=False)
    return with_values(quantizer, {f"down.{name}": value for name, value in down.items()})


PROJECTIONS = r"project_(in|out)\.(weight|bias)"
FORMATS = (
    Format(
        "vqp-fsq",
        "vector-quantize-pytorch's FSQ",
        marker=r"project_in\.weight",
        keys=PROJECTIONS,
        build=_fsq,
        needs="levels",
        may_be_empty=True,
    ),
    Format(
        "vqp-residual-fsq",
        "vector-quantize-pytorch's ResidualFSQ",
        marker=r"project_in\.weight",
        keys=PROJECTIONS,
        build=_residual_fsq,
        needs="levels",
        may_be_empty=True,
    ),
    Format(
        "vqp-grouped-residual-fsq",
        "vector-quantize-pytorch's GroupedResidualFSQ",
        marker=r"rvqs\.0\.project_in\.weight",
        keys=rf"rvqs\.\d+\.{PROJECTIONS}",
        build=_grouped_residual_fsq,
        parts=r"rvqs\.",
        needs="levels",
    ),
    Format(
        "xcodec2",
        "XCodec2's or NeuCodec's FSQ, vector-quantize-pytorch's ResidualFSQ before its levels were symmetric",
        marker=r"project_in\.weight",
        keys=PROJECTIONS,
        build=_older_residual_fsq,
        needs="levels",
        may_be_empty=True,
    ),
    Format(
        "cosyvoice2",
        "CosyVoice 2's FSQ",
        marker=r"_codebook\.project_down\.weight",
        keys=r"_codebook\.project_down\.(weight|bias)",
        build=_cosyvoice,
    ),
)
