"""Tokens to examples: the files that they came from, as the model remembers them."""

from __future__ import annotations

import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby, islice
from pathlib import Path, PurePosixPath

import torch

from lexel._core.console import track
from lexel._core.errors import require_within
from lexel._core.files import inside, require_inside, written_beside
from lexel.data.batches import MOST_BATCH
from lexel.data.kind import kind_of
from lexel.models import Autoencoder
from lexel.tokens.facts import fingerprint
from lexel.tokens.token_set import TokenSet

__all__ = ["check_model", "decode", "file_names"]

LONGEST_NAME = 255  # bytes, of a file or folder, on nearly every file system


@torch.no_grad()
def decode(
    model: Autoencoder, tokens: TokenSet, out: Path, *, batch_size: int = 1, names: Sequence[str] | None = None
) -> int:
    """Write the example of every entry of a token set as a file, in the tree that their names describe (`file_names`).

    A file replaces one of the same name, whole or not at all; other files in `out` stay.

    Args:
        model: the model that made the tokens, in eval mode, on any device.
        tokens: what to decode.
        out: the folder to write into; created if it is missing.
        batch_size: how many examples of one size are decoded at once; a pixel may then differ by 1/255.
        names: which examples to decode; all by default.

    Returns:
        How many files it has written.

    Raises:
        ValueError: `batch_size` is out of range, the tokens do not fit the model, another model made them, or no
            example has one of `names`.
    """
    require_within("batch_size", batch_size, 1, MOST_BATCH)
    check_model(tokens, model)
    require_inside(tokens.names)
    kind, device = kind_of(model), next(model.parameters()).device
    chosen = _numbers(tokens, names)
    out.mkdir(parents=True, exist_ok=True)
    targets = file_names(tokens.names, kind.suffix, same=_same_name(out))
    # Examples of one size have grids of one shape, but grids of one shape may come from examples of several sizes.
    by_size = sorted(chosen, key=tokens.extent)
    for size, group in groupby(track(by_size, "decoding"), key=tokens.extent):
        while numbers := list(islice(group, batch_size)):
            try:
                outputs = model.decode(tokens.batch(numbers)["indices"].to(device), size)  # type: ignore[arg-type]
            except (ValueError, RuntimeError) as error:
                raise ValueError(
                    f"the tokens of {tokens.names[numbers[0]]!r} do not fit this model: {error}"
                ) from error
            for number, example in zip(numbers, kind.examples(outputs).cpu(), strict=True):
                with written_beside(inside(out, targets[tokens.names[number]])) as temporary:
                    kind.save(example, temporary)
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


def file_names(names: Iterable[str], suffix: str, same: Callable[[str], str] = str) -> dict[str, str]:
    """Give each example the name of a file: all different, and at most 255 bytes long between slashes.

    The suffix replaces the extension. Examples that would then have the same name keep their extension before the
    suffix, and a number comes before it if even that name is taken.

    Args:
        names: relative paths of the examples.
        suffix: of every file, such as `.png`.
        same: a function that returns the same text for names that mean the same file.

    Example:
        >>> file_names(["a.jpg", "b.jpg", "b.webp"], ".png")
        {'a.jpg': 'a.png', 'b.jpg': 'b.jpg.png', 'b.webp': 'b.webp.png'}
    """
    paths = {name: PurePosixPath(name) for name in names}
    wanted = {name: _shortened(path, path.suffix, suffix) for name, path in paths.items()}
    claims = Counter(same(target) for target in wanted.values())
    # A folder may have the name that an example would get.
    taken = {same(str(folder)) for path in paths.values() for folder in path.parents}
    targets = {}
    for name in sorted(paths, key=lambda name: claims[same(wanted[name])] > 1):  # those without a rival choose first
        target, number = wanted[name], 1
        if claims[same(target)] > 1:
            target = _shortened(paths[name], "", suffix)
        while same(target) in taken:
            number += 1
            target = _shortened(paths[name], "", f".{number}{suffix}")
        taken.add(same(target))
        targets[name] = target
    return targets


def _shortened(path: PurePosixPath, suffix: str, ending: str) -> str:
    """Replace `suffix` by `ending`, and cut the part before it if the name would be too long."""
    stem = path.name[: len(path.name) - len(suffix)]
    room = LONGEST_NAME - len(ending)
    return str(path.parent / (stem.encode("utf-8", "replace")[:room].decode("utf-8", "ignore") + ending))


def _same_name(folder: Path) -> Callable[[str], str]:
    """Find out whether names that differ in case or in the encoding of accents are different files in a folder.

    On some systems they are not, and two examples must not become one file there.
    """
    with tempfile.TemporaryDirectory(prefix=".lexel.É.", dir=folder) as probe:
        name = Path(probe).name
        alike = name.lower(), unicodedata.normalize("NFD", name)
        if any((folder / other).exists() for other in alike):
            return lambda name: unicodedata.normalize("NFC", name.casefold())
    return str
