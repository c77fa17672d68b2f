"""Quantizers that were trained elsewhere, as Lexel's: the same indices and vectors for the same inputs.

    from lexel import migrate

    vq = migrate.load("vqgan.ckpt", metric="euclidean", commitment_cost=0.25)

A state dict holds numbers and no settings. What it does not say is an argument here, and `load` asks for it by name.
"""

from __future__ import annotations

import inspect
import pickle
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lexel.codebook import Codebook, CosineCodebook, FactorisedCodebook, FreeCodebook, SimVQ
from lexel.estimators import StraightThrough
from lexel.learning import EMA, Gradient, Learning
from lexel.quantizers.base import Quantizer
from lexel.quantizers.finite_scalar import FiniteScalarQuantizer
from lexel.quantizers.lookup_free import BinarySphericalQuantizer, LookupFreeQuantizer
from lexel.quantizers.product import ProductQuantizer
from lexel.quantizers.projected import ProjectedQuantizer
from lexel.quantizers.residual import ResidualQuantizer
from lexel.quantizers.vector import VectorQuantizer
from lexel.upkeep import Revival

__all__ = ["load"]

# How to find out what a state dict does not say, for the error that asks for it.
QUESTIONS = {
    "commitment_cost": "the weight of the commitment term (commitment_cost, beta, commitment_weight)",
    "learning": "lexel.EMA(decay), or lexel.Gradient() if the codes are parameters (learnable_codebook)",
    "levels": "the levels of finite scalar quantization, as [8, 5, 5, 5]",
    "metric": "'euclidean', or 'cosine' if codes and inputs are normalised (use_cosine_sim, codebook_l2_norm)",
    "spherical": "whether inputs are projected to the sphere (spherical)",
}
VECTOR_PARTS = ("estimator", "regularisers", "upkeep")


def load(
    source: str | PathLike[str] | Mapping[str, Any],
    *,
    prefix: str | None = None,
    channel_dim: int = 1,
    **settings: Any,
) -> Quantizer:
    """Return the Lexel quantizer that a state dict of another package describes, in eval mode.

    It gives the same indices and quantized values for the same inputs, but for rounding. Statistics of moving averages
    come along, so that after `.train()` the codes go on from where they were. Known are, by the keys they have:

    - the classic module, `_embedding.weight`: asks for `commitment_cost`; its sibling with `_ema_w` and
      `_ema_cluster_size` also for `learning`;
    - vector-quantize-pytorch's `VectorQuantize` and `ResidualVQ`: `metric`, `commitment_cost`, `learning`, and `heads`
      where several share a table without projections; `SimVQ`: `commitment_cost`; `LFQ`: `commitment_cost`,
      `spherical`, and `heads` for its `num_codebooks`; `FSQ`, which has no keys but its projections: `levels`, `heads`;
    - `quantize.embedding.weight` of taming-transformers, LlamaGen and diffusers' `VQModel`: `metric` and
      `commitment_cost`;
    - EnCodec and the Descript Audio Codec, from their own packages or from transformers: nothing.

    Optional are `estimator`, `regularisers` and `upkeep` of every table, as for `VectorQuantizer`; `dropout` of
    residual quantizers; `commitment_cost` of the codecs and EnCodec's `learning`, by default the published ones; and
    `entropy_weight`, `diversity_gamma` and `temperature` of `LFQ`.

    `LFQ` numbers its bits from the other end than `LookupFreeQuantizer`. Where it has no projections of its own, the
    indices stay the same through a frozen `ProjectedQuantizer` that turns the channels around.

    Args:
        source: a safetensors file; a file that `torch.load(weights_only=True)` reads; or the state dict itself. Of a
            checkpoint with `"state_dict"` or `"model"` in it, that is taken.
        prefix: where the quantizer stands within a model, as `"quantize."`; needed where there are several, and for
            `FSQ`. Everything else in the model is left aside, and a warning says what that was.
        channel_dim: which axis of the input holds the channels.
        **settings: what the state dict does not say.

    Raises:
        FileNotFoundError: `source` does not exist.
        ImportError: `source` is a safetensors file, and safetensors is not installed.
        TypeError: a setting is missing, or there is one that such a quantizer does not have.
        ValueError: nothing that is known is found, or several; a key of the quantizer is unknown or missing, or has an
            unexpected shape; a k-means start has not happened yet.

    Example:
        >>> import torch, lexel
        >>> theirs = {"_embedding.weight": torch.tensor([[0.0, 0.0], [1.0, 1.0]])}
        >>> vq = load(theirs, commitment_cost=0.25)
        >>> vq(torch.tensor([[0.9, 0.8]])).indices
        tensor([1])
    """
    state = _tensors(_read(source) if isinstance(source, (str, PathLike)) else source)
    if prefix is not None and prefix and not prefix.endswith("."):
        prefix += "."
    found, at = (_FSQ, prefix or "") if "levels" in settings else _recognise(state, prefix)
    _check_settings(found, settings)
    keys = _Keys({key: value for key, value in state.items() if key.startswith(at)}, at)
    aside = state.keys() - keys.tensors.keys()
    quantizer = found.build(keys, **settings)
    if keys.tensors:
        raise ValueError(
            f"migrate.load: took {found.name} at prefix={at!r}, which does not have the keys {_listed(keys.tensors)}"
        )
    if aside:
        warnings.warn(f"migrate.load: took {found.name} at {at!r}; left aside {_summary(aside)}", stacklevel=2)
    quantizer.channel_dim = channel_dim
    return quantizer.eval()


def _read(path: str | PathLike[str]) -> Mapping[str, Any]:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    if path.suffix == ".safetensors":
        try:
            from safetensors import SafetensorError
            from safetensors.torch import load_file
        except ImportError as error:
            raise ImportError("migrate.load reads safetensors with: pip install 'lexel[models]'") from error
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is not a sound safetensors file: {error}") from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{path} holds more than tensors, or is damaged; nothing in it was run. Save its state dict alone, where "
            f"you trust it. torch says: {error}"
        ) from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, expected a state dict")
    return content


def _tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    for name in ("state_dict", "model"):
        if isinstance(state.get(name), Mapping):
            state = state[name]
            break
    others = [str(key) for key, value in state.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if others:
        raise ValueError(f"migrate.load: not a state dict, for these are no tensors: {_listed(others)}")
    return dict(state)


class _Keys:
    """The tensors of a quantizer that nobody has taken yet, by their full names, seen from a prefix."""

    def __init__(self, tensors: dict[str, Tensor], prefix: str) -> None:
        self.tensors = tensors
        self.prefix = prefix

    def under(self, name: str) -> _Keys:
        return _Keys(self.tensors, self.prefix + name)

    def __contains__(self, name: str) -> bool:
        return self.prefix + name in self.tensors

    def take(self, name: str, *shape: int | None) -> Tensor:
        """Return a tensor, which then counts as known. `shape` is what it must be; None for any number."""
        key = self.prefix + name
        if key not in self.tensors:
            raise ValueError(f"migrate.load: {key} is missing")
        value = self.tensors.pop(key)
        if len(shape) != value.ndim or any(
            want not in (None, got) for want, got in zip(shape, value.shape, strict=True)
        ):
            expected = ", ".join("any" if size is None else str(size) for size in shape)
            raise ValueError(f"migrate.load: {key} must have shape ({expected}), got {tuple(value.shape)}")
        return value.detach().to(torch.promote_types(value.dtype, torch.float32))

    def stages(self, name: str, marker: str) -> list[_Keys]:
        """Views of `name.0.`, `name.1.` and so on, as long as they have the marker."""
        views: list[_Keys] = []
        while marker in (view := self.under(f"{name}.{len(views)}.")):
            views.append(view)
        return views


def _classic(keys: _Keys, *, commitment_cost: float, **parts: Any) -> Quantizer:
    return _vector(keys.take("_embedding.weight", None, None), commitment_cost, **parts)


def _classic_ema(keys: _Keys, *, commitment_cost: float, learning: Learning, **parts: Any) -> Quantizer:
    codes = keys.take("_embedding.weight", None, None)
    count, total = keys.take("_ema_cluster_size", len(codes)), keys.take("_ema_w", *codes.shape)
    return _vector(codes, commitment_cost, learning=learning, averages=(count, total), **parts)


def _vqgan(keys: _Keys, *, metric: str, commitment_cost: float, **parts: Any) -> Quantizer:
    if "codebook_used" in keys:  # LlamaGen's record of the last indices, for its perplexity
        keys.take("codebook_used", None)
    codes = keys.take("embedding.weight", None, None)
    return _vector(codes, commitment_cost, codebook=_codebook_of(metric), **parts)


def _vector_quantize(
    keys: _Keys, *, metric: str, commitment_cost: float, learning: Learning, heads: int = 1, **parts: Any
) -> Quantizer:
    tables = _tables(keys.under("_codebook."), None, metric, commitment_cost, learning, parts)
    if "project_in.weight" in keys and len(tables) == 1:
        heads = keys.tensors[keys.prefix + "project_in.weight"].shape[0] // tables[0].embedding_dim
    several = len(tables) > 1 or heads > 1
    quantizer = ProductQuantizer(tables, heads=1 if len(tables) > 1 else heads) if several else tables[0]
    return _projected(keys, quantizer)


def _residual_vq(
    keys: _Keys, *, metric: str, commitment_cost: float, learning: Learning, dropout: float = 0.0, **parts: Any
) -> Quantizer:
    stages = [
        _tables(stage.under("_codebook."), 1, metric, commitment_cost, learning, parts)[0]
        for stage in keys.stages("layers", "_codebook.embed")
    ]
    # A shared codebook is written down once for each stage.
    first, *others = [stage.codebook.weight for stage in stages]
    shared = bool(others) and all(torch.equal(first, other) for other in others)
    depth = len(stages) if shared else None
    return _projected(keys, ResidualQuantizer(stages[:1] if shared else stages, depth=depth, dropout=dropout))


def _tables(
    keys: _Keys, heads: int | None, metric: str, commitment_cost: float, learning: Learning, parts: Mapping[str, Any]
) -> list[VectorQuantizer]:
    """The tables of a vector-quantize-pytorch `Codebook`."""
    _require_started(keys, keys.take("initted"))
    embed = keys.take("embed", heads, None, None)
    counts, sums = keys.take("cluster_size", *embed.shape[:2]), keys.take("embed_avg", *embed.shape)
    return [
        _vector(codes, commitment_cost, codebook=_codebook_of(metric), learning=learning, averages=averages, **parts)
        for codes, *averages in zip(embed, counts, sums, strict=True)
    ]


def _sim_vq(keys: _Keys, *, commitment_cost: float, **parts: Any) -> Quantizer:
    table = keys.take("frozen_codebook", None, None)
    vq = _vector(table, commitment_cost, codebook=SimVQ(), **parts)
    return _filled(vq, {"codebook.map.weight": keys.take("code_transform.weight", table.shape[1], table.shape[1])})


def _lfq(
    keys: _Keys,
    *,
    commitment_cost: float,
    spherical: bool,
    heads: int = 1,
    entropy_weight: float = 0.1,
    diversity_gamma: float = 1.0,
    temperature: float = 0.01,
) -> Quantizer:
    bits = len(keys.take("mask", None))
    kind = BinarySphericalQuantizer if spherical else LookupFreeQuantizer
    each = kind(
        bits,
        commitment_cost,
        entropy_weight=entropy_weight,
        diversity_gamma=diversity_gamma,
        temperature=temperature,
    )
    if "project_in.weight" in keys:
        heads = keys.tensors[keys.prefix + "project_in.weight"].shape[0] // bits
    # Its first channel is the most significant bit.
    turned = torch.arange(heads * bits).reshape(heads, bits).flip(1).flatten()
    projected = _projected(keys, _in_heads(each, heads), turned)
    if isinstance(projected, ProjectedQuantizer):
        return projected
    turn = torch.eye(heads * bits)[turned]
    projected = ProjectedQuantizer(projected, heads * bits, bias=False)
    _filled(projected, {"down.weight": turn, "up.weight": turn.T})
    return projected.requires_grad_(False)


def _fsq(keys: _Keys, *, levels: Sequence[int], heads: int = 1) -> Quantizer:
    each = FiniteScalarQuantizer(levels, bound="artanh")
    if "project_in.weight" in keys:
        heads = keys.tensors[keys.prefix + "project_in.weight"].shape[0] // each.embedding_dim
    return _projected(keys, _in_heads(each, heads))


def _encodec(
    keys: _Keys, *, commitment_cost: float = 1.0, learning: Learning | None = None, dropout: float = 1.0, **parts: Any
) -> Quantizer:
    parts = {"learning": learning or EMA(0.99), "upkeep": Revival(), **parts}
    stages: list[Quantizer] = []
    name = "_codebook." if "layers.0._codebook.embed" in keys else "codebook."
    for stage in keys.stages("layers", f"{name}embed"):
        table = stage.under(name)
        _require_started(table, table.take("inited", 1))
        codes = table.take("embed", None, None)
        averages = table.take("cluster_size", len(codes)), table.take("embed_avg", *codes.shape)
        stages.append(_projected(stage, _vector(codes, commitment_cost, averages=averages, **parts)))
    return ResidualQuantizer(stages, dropout=dropout)


def _dac(keys: _Keys, *, commitment_cost: float = 0.25, dropout: float = 0.5, **parts: Any) -> Quantizer:
    stages: list[Quantizer] = []
    for stage in keys.stages("quantizers", "codebook.weight"):
        codes = stage.take("codebook.weight", None, None)
        down, up = (_convolution(stage.under(f"{name}.")) for name in ("in_proj", "out_proj"))
        vq = _vector(
            codes,
            commitment_cost,
            codebook=FactorisedCodebook(codes.shape[1]),
            embedding_dim=down["weight"].shape[1],
            **{"estimator": StraightThrough(metric="cosine"), **parts},
        )
        maps = {"down": down, "up": up}
        stages.append(
            _filled(vq, {f"codebook.{way}.{name}": value for way in maps for name, value in maps[way].items()})
        )
    return ResidualQuantizer(stages, dropout=dropout)


def _convolution(keys: _Keys) -> dict[str, Tensor]:
    """Weight and bias of a convolution of width 1 as those of a linear map, with or without weight normalisation."""
    for length, direction in (
        ("weight_g", "weight_v"),
        ("parametrizations.weight.original0", "parametrizations.weight.original1"),
    ):
        if direction in keys:
            v = keys.take(direction, None, None, 1)
            weight = F.normalize(v, dim=1) * keys.take(length, len(v), 1, 1)
            break
    else:
        weight = keys.take("weight", None, None, 1)
    return {"weight": weight.squeeze(2), "bias": keys.take("bias", len(weight))}


def _vector(
    codes: Tensor,
    commitment_cost: float,
    *,
    codebook: Codebook = FreeCodebook(),
    learning: Learning = Gradient(),
    averages: Sequence[Tensor] = (),
    embedding_dim: int | None = None,
    **parts: Any,
) -> VectorQuantizer:
    """A vector quantizer with these codes and, where it learns by EMA, these running counts and sums."""
    dim = codes.shape[1] if embedding_dim is None else embedding_dim
    vq = VectorQuantizer(len(codes), dim, commitment_cost, codebook=codebook, learning=learning, **parts)
    vq.load_codes(codes, **dict(zip(("count", "sum"), averages, strict=False)) if isinstance(learning, EMA) else {})
    return vq


def _in_heads(quantizer: Quantizer, heads: int) -> Quantizer:
    return ProductQuantizer([quantizer], heads=heads) if heads > 1 else quantizer


def _projected(keys: _Keys, quantizer: Quantizer, order: Tensor | None = None) -> Quantizer:
    """The quantizer between `project_in` and `project_out`, if there are any, with its channels in another order."""
    if "project_in.weight" not in keys:
        return quantizer
    inner = quantizer.embedding_dim
    order = torch.arange(inner) if order is None else order
    down = keys.take("project_in.weight", inner, None)
    up = keys.take("project_out.weight", down.shape[1], inner)
    maps = {"down.weight": down[order], "up.weight": up[:, order]}
    bias = "project_in.bias" in keys
    if bias:
        maps["down.bias"] = keys.take("project_in.bias", inner)[order]
        maps["up.bias"] = keys.take("project_out.bias", len(up))
    return _filled(ProjectedQuantizer(quantizer, len(up), bias=bias), maps)


def _filled(quantizer: Quantizer, values: Mapping[str, Tensor]) -> Quantizer:
    quantizer.load_state_dict({**quantizer.state_dict(), **values})
    return quantizer


def _codebook_of(metric: Literal["euclidean", "cosine"] | str) -> Codebook:
    if metric not in ("euclidean", "cosine"):
        raise ValueError(f"migrate.load: metric must be 'euclidean' or 'cosine', got {metric!r}")
    return CosineCodebook() if metric == "cosine" else FreeCodebook()


def _require_started(keys: _Keys, started: Tensor) -> None:
    if not started.all():
        raise ValueError(f"migrate.load: the codes of {keys.prefix!r} wait for their k-means start: there are none yet")


@dataclass(frozen=True)
class _Format:
    """A package's quantizer.

    Attributes:
        name: for messages.
        marker: pattern of a key that it has and others have not, relative to its prefix.
        build: takes its keys; its arguments without a default are what `load` asks for.
        within: pattern of the prefixes under which the marker alone is believed.
    """

    name: str
    marker: str
    build: Callable[..., Quantizer]
    within: str = ".*"


_FORMATS = (
    _Format("EnCodec's residual quantizer", r"layers\.0\._?codebook\.inited", _encodec),
    _Format("vector-quantize-pytorch's ResidualVQ", r"layers\.0\._codebook\.initted", _residual_vq),
    _Format("vector-quantize-pytorch's VectorQuantize", r"_codebook\.initted", _vector_quantize),
    _Format("vector-quantize-pytorch's SimVQ", r"frozen_codebook", _sim_vq),
    _Format("vector-quantize-pytorch's LFQ", r"mask", _lfq),
    _Format("DAC's residual quantizer", r"quantizers\.0\.in_proj\.bias", _dac),
    _Format("the classic module with EMA", r"_ema_cluster_size", _classic_ema),
    _Format("the classic module", r"_embedding\.weight", _classic),
    _Format("a VQGAN's quantizer", r"embedding\.weight", _vqgan, r"((.*\.)?quantize\.)?"),
)
_FSQ = _Format("vector-quantize-pytorch's FSQ", "", _fsq)  # nothing in its state tells; the levels do


def _recognise(state: Mapping[str, Tensor], prefix: str | None) -> tuple[_Format, str]:
    """Say which quantizer the state dict is of, and where it stands within the model."""
    found: dict[str, _Format] = {}
    for known in _FORMATS:
        for key, value in state.items():
            match = re.fullmatch(rf"((?:.*\.)?){known.marker}", key)
            if match is None or (known.build is _lfq and not _are_places(value)):
                continue
            at = match.group(1)
            believed = re.fullmatch(known.within, at) if prefix is None else at == prefix
            # A part of what was found before, or the same in less detail, is no other.
            if believed and not any(at == other or at.startswith(f"{other}layers.") for other in found):
                found[at] = known
    if not found:
        where = "" if prefix is None else f" at prefix={prefix!r}"
        raise ValueError(
            f"migrate.load: no quantizer that is known{where}. Known are {', '.join(each.name for each in _FORMATS)}, "
            f"and FSQ if levels are given; the state dict has {_listed(state) if state else 'no keys'}"
        )
    if len(found) > 1:
        places = ", ".join(f"{at!r} ({known.name})" for at, known in found.items())
        raise ValueError(f"migrate.load: there are several quantizers; give the prefix of one: {places}")
    ((at, known),) = found.items()
    return known, at


def _are_places(value: Tensor) -> bool:
    """Whether these are the powers of two that LFQ keeps, largest first."""
    return value.dtype == torch.int64 and value.ndim == 1 and value.tolist() == [2**i for i in range(len(value))][::-1]


def _check_settings(found: _Format, settings: Mapping[str, Any]) -> None:
    arguments = [each for each in inspect.signature(found.build).parameters.values() if each.name != "keys"]
    named = {each.name: each for each in arguments if each.kind is each.KEYWORD_ONLY}
    known = {*named, *(VECTOR_PARTS if len(named) < len(arguments) else ())}
    missing = [name for name, each in named.items() if each.default is each.empty and name not in settings]
    if missing:
        asked = "; ".join(f"{name}=, {QUESTIONS[name]}" for name in missing)
        raise TypeError(f"migrate.load: found {found.name}, whose state does not say everything. Give {asked}")
    if unknown := settings.keys() - known:
        raise TypeError(
            f"migrate.load: {found.name} has no setting {', '.join(sorted(unknown))}; it has {', '.join(sorted(known))}"
        )


def _listed(keys: Iterable[str]) -> str:
    names = sorted(keys)
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _summary(keys: Iterable[str]) -> str:
    """How many keys each part of a model has."""
    parts = Counter(key.split(".")[0] for key in keys)
    return ", ".join(f"{part} ({count})" for part, count in sorted(parts.items()))
