"""Tokens to examples, as the model remembers them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, islice
from pathlib import Path

import torch

from lexel._core.console import track
from lexel._core.errors import require_within
from lexel.data.batches import MOST_BATCH
from lexel.data.kind import kind_of
from lexel.models import Autoencoder
from lexel.tokens.facts import fingerprint
from lexel.tokens.token_set import TokenSet

__all__ = ["check_model", "decode"]


@torch.no_grad()
def decode(
    model: Autoencoder,
    tokens: TokenSet,
    out: Path,
    *,
    batch_size: int = 1,
    names: Sequence[str] | None = None,
    overwrite: bool = True,
) -> int:
    """Write the example of every entry of a token set, as its kind of data does: images as files of a folder.

    A file replaces one of the same name, whole or not at all; other files in `out` stay.

    Args:
        model: the model that made the tokens, in eval mode, on any device.
        tokens: what to decode.
        out: the folder or the file to write into; created if it is missing.
        batch_size: how many examples of one size are decoded at once; a pixel may then differ by 1/255.
        names: which examples to decode; all by default.
        overwrite: replace what exists.

    Returns:
        How many examples it has written.

    Raises:
        FileExistsError: `out` exists, and `overwrite` is not set.
        ValueError: `batch_size` is out of range, the tokens do not fit the model, another model made them, or no
            example has one of `names`.
    """
    require_within("batch_size", batch_size, 1, MOST_BATCH)
    check_model(tokens, model)
    kind, device = kind_of(model), model.device
    # Examples of one size have grids of one shape, but grids of one shape may come from examples of several sizes.
    by_size = sorted(_numbers(tokens, names), key=tokens.extent)
    with kind.writer(out, tokens.names, by_size, overwrite=overwrite) as write:
        for size, group in groupby(track(by_size, "decoding"), key=tokens.extent):
            while numbers := list(islice(group, batch_size)):
                try:
                    outputs = model.decode(tokens.batch(numbers)["indices"].to(device), size)
                except (ValueError, RuntimeError) as error:
                    raise ValueError(
                        f"the tokens of {tokens.names[numbers[0]]!r} do not fit this model: {error}"
                    ) from error
                for number, example in zip(numbers, kind.examples(outputs).cpu(), strict=True):
                    write(number, example)
    return len(by_size)


def check_model(tokens: TokenSet, model: Autoencoder) -> None:
    """Refuse tokens that another model has made.

    Raises:
        ValueError: they come from another model.
    """
    if tokens.kind != model.kind:
        raise ValueError(f"the tokens are those of {tokens.kind}, this model takes {model.kind}")
    if tokens.num_embeddings != model.num_embeddings:
        raise ValueError(
            f"the tokens come from a quantizer with {tokens.num_embeddings} codes, "
            f"this model has {model.num_embeddings}"
        )
    own = fingerprint(model)
    if tokens.model != own:
        raise ValueError(
            f"the tokens come from the model with the fingerprint {tokens.model}, this model has {own}: "
            "decode them with the model that made them"
        )


def _numbers(tokens: TokenSet, names: Sequence[str] | None) -> list[int]:
    """Return the numbers of the examples of these names."""
    if names is None:
        return list(range(len(tokens)))
    numbers = {name: number for number, name in enumerate(tokens.names)}
    if unknown := [name for name in names if name not in numbers]:
        raise ValueError(f"names: the tokens have no example {unknown[0]!r}")
    return [numbers[name] for name in dict.fromkeys(names)]
