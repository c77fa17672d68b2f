"""Examples as files of a folder: which name each gets."""

from __future__ import annotations

import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from torch import Tensor

from lexel._core.files import inside, refuse_existing, require_inside, written_beside

__all__ = ["file_names", "files_writer"]

LONGEST_NAME = 255  # bytes, of a file or folder, on nearly every file system


@contextmanager
def files_writer(
    out: Path, names: Sequence[str], suffix: str, save: Callable[[Tensor, Path], None], *, overwrite: bool
) -> Iterator[Callable[[int, Tensor], None]]:
    """Write each example into a file of its own, in the tree that the names describe (`file_names`).

    Args:
        out: the folder.
        names: of all examples of a set.
        suffix: of the files.
        save: writes an example into a file at a path.
        overwrite: replace files that exist.

    Raises:
        FileExistsError: the folder exists, and `overwrite` is not set.
        ValueError: a name leads out of the folder.
    """
    refuse_existing(out, overwrite=overwrite, folder=True)
    require_inside(names)
    out.mkdir(parents=True, exist_ok=True)
    targets = file_names(names, suffix, same=same_name(out))

    def write(number: int, example: Tensor) -> None:
        with written_beside(inside(out, targets[names[number]])) as temporary:
            save(example, temporary)

    yield write


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


def same_name(folder: Path) -> Callable[[str], str]:
    """Find out whether names that differ in case or in the encoding of accents are different files in a folder.

    On some systems they are not, and two examples must not become one file there.
    """
    with tempfile.TemporaryDirectory(prefix=".lexel.É.", dir=folder) as probe:
        name = Path(probe).name
        alike = name.lower(), unicodedata.normalize("NFD", name)
        if any((folder / other).exists() for other in alike):
            return lambda name: unicodedata.normalize("NFC", name.casefold())
    return str
