"""Quantizers that were trained elsewhere, as Lexel's: the same indices and vectors for the same inputs.

    from lexel import migrate

    vq = migrate.load("vqgan.ckpt", metric="euclidean", commitment_cost=0.25)

A state dict holds numbers and no settings. What it does not say is an argument here, and `load` asks for it by name.
To add a format, write a file in `origins/` and a line in the table of `origins/__init__.py`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from os import PathLike
from typing import Any

from lexel._core.checks import check_integer
from lexel.migrate._files import read, tensors_in
from lexel.migrate._formats import check_settings, not_sure, parts_with_counts, recognise
from lexel.migrate._keys import Keys
from lexel.migrate.origins import FORMATS
from lexel.quantizers.base import Quantizer

__all__ = ["load"]


def load(
    source: str | PathLike[str] | Mapping[str, Any],
    *,
    prefix: str | None = None,
    format: str | None = None,  # noqa: A002 (the word that everybody looks for)
    channel_dim: int = 1,
    **settings: Any,
) -> Quantizer:
    """Return the Lexel quantizer that a state dict of another package describes, in eval mode.

    It gives the same indices and quantized values for the same inputs, but for rounding. Statistics of moving averages
    come along, so that after `.train()` the codes go on from where they were. `load` recognises a format by its keys.
    Where these fit two formats, or leave open what the quantizer does, it loads nothing and says what to add.

    Known are, by the names that `format` takes:

    - codecs: `encodec` and `encodec-single` (also X-Codec, Higgs Audio, WavTokenizer), `mimi`, `mimi-half`, `dac`,
      `snac` (`strides`), `bigcodec`, `xcodec2` (also NeuCodec: `levels`), `cosyvoice2`, `wav2vec2` (`groups`);
    - tokenizers of images: `vqgan` (taming-transformers, LlamaGen, diffusers, Chameleon, Janus: `metric`,
      `commitment_cost`), `var` (`scales`, `metric`, `commitment_cost`, `convolution_weight`), `infinity` (`scales`),
      `rq-vae`; and of items: `rq-vae-recommender` (`commitment_cost`, `normalised`);
    - the classic module: `classic` (`commitment_cost`), `classic-ema` (also `learning`);
    - vector-quantize-pytorch: `vqp`, `vqp-residual`, `vqp-grouped-residual` (`metric`, `commitment_cost`, `learning`),
      `vqp-sim`, `vqp-residual-sim` (`commitment_cost`), `vqp-lfq`, `vqp-residual-lfq`, `vqp-grouped-residual-lfq`
      (`commitment_cost`, `spherical`), `vqp-fsq` (`levels`, `symmetric`), `vqp-residual-fsq` and
      `vqp-grouped-residual-fsq` (`levels`, `depth`).

    In brackets stand the settings that a format asks for. Optional are others, which `docs/migrate.md` lists, and
    `estimator`, `regularisers` and `upkeep` of every table, as for `VectorQuantizer`.

    Args:
        source: a safetensors file; a file that `torch.save` wrote, of which nothing but tensors is used and nothing is
            run; or the state dict itself. Of a checkpoint with `"state_dict"` or `"model"` in it, that is taken.
        prefix: where the quantizer stands within a model, as `"quantize."`; needed where there are several, and to load
            one part of a larger quantizer. The rest of the model is left aside, and a warning says what that was.
        format: one of the names above, where the keys fit several formats, or are none at all, as FSQ's may be.
        channel_dim: which axis of the input holds the channels.
        **settings: what the state dict does not say.

    Raises:
        FileNotFoundError: `source` does not exist.
        ImportError: `source` is a safetensors file, and safetensors is not installed.
        TypeError: a setting is missing, or there is one that such a quantizer does not have; `source` is neither;
            `channel_dim` is no int.
        ValueError: no known quantizer is found, or several; its keys fit several formats; it is part of a larger one; a
            key of the quantizer is unknown or missing, has an unexpected shape, or holds NaN or Inf; a k-means start
            has not happened yet.

    Example:
        >>> import torch, lexel
        >>> theirs = {"_embedding.weight": torch.tensor([[0.0, 0.0], [1.0, 1.0]])}
        >>> vq = load(theirs, commitment_cost=0.25)
        >>> vq(torch.tensor([[0.9, 0.8]])).indices
        tensor([1])
    """
    if not isinstance(source, (str, PathLike, Mapping)):
        raise TypeError(f"migrate.load: source must be a path or a state dict, got {type(source).__name__}")
    channel_dim = check_integer("migrate.load", "channel_dim", channel_dim)
    if isinstance(source, Mapping):
        return _load(source, prefix, format, channel_dim, settings)
    content = read(source)
    try:
        return _load(content, prefix, format, channel_dim, settings)
    except ValueError as error:
        raise ValueError(f"{os.fspath(source)}: {error}") from error


def _load(
    content: Mapping[str, Any],
    prefix: str | None,
    format: str | None,  # noqa: A002
    channel_dim: int,
    settings: dict[str, Any],
) -> Quantizer:
    state = tensors_in(content)
    if prefix and not prefix.endswith("."):
        prefix += "."
    found, place = recognise(FORMATS, state, prefix, format, settings)
    check_settings(found, settings)
    keys = Keys({key: state[key] for key in found.own_keys(state, place)}, place)
    aside = state.keys() - keys.tensors.keys()
    quantizer = found.build(keys, **settings)
    if keys.tensors:
        raise ValueError(not_sure(found, place, keys.tensors))
    if aside:
        warnings.warn(
            f"migrate.load: took {found.title} at {place!r}; left aside {parts_with_counts(aside)}", stacklevel=3
        )
    quantizer.channel_dim = channel_dim
    return quantizer.eval()
