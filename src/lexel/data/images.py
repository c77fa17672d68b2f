"""Images from anywhere local: folders, arrays, and what `datasets` opens."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

try:
    import numpy as np
    from PIL import Image, ImageOps
except ImportError as error:
    raise ImportError("lexel.data.images needs Pillow and numpy: pip install 'lexel[train]'") from error

__all__ = ["Images", "listed", "open_images", "psnr", "save_image", "to_pixels"]

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
# Decoded pixels are kept up to this many bytes: a small set is decoded once, a large one does not fill the memory.
KEPT_BYTES = 1 << 30


@dataclass
class Images:
    """A set of images: uint8 `(C, H, W)` each, with its own name and size, read when asked for.

    Attributes:
        names: the images' relative paths, with forward slashes.
        channels: C.
        read: gives the image of an index; raises `OSError`, `ValueError` or `SyntaxError` when it cannot be read.
        skipped: what could not be read so far, by name, with the reason.
    """

    names: list[str]
    channels: int
    read: Callable[[int], Tensor]
    skipped: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)

    def readable(self, indices: Iterable[int], *, strict: bool = False) -> Iterator[tuple[int, Tensor]]:
        """Read the images of `indices` in turn, leaving out those that cannot be read.

        Args:
            indices: which; a progress bar may be wrapped around them.
            strict: raise on the first image that cannot be read instead of skipping it.

        Raises:
            ValueError: none was readable, or one was not and `strict` is set.
        """
        found = False
        for index in indices:
            try:
                pixels = self.read(index)
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
                if strict:
                    raise ValueError(f"{self.names[index]} cannot be read: {error}") from error
                self.skipped[self.names[index]] = str(error)
                continue
            found = True
            yield index, pixels
        if not found:
            raise ValueError(f"no readable image among {len(self)} files")

    def checked(self, indices: Iterable[int], *, strict: bool = False) -> Images:
        """Return those images of `indices` that can be read; small sets stay decoded from then on.

        Raises:
            ValueError: as `readable`.
        """
        names: list[str] = []
        kept: list[Tensor | None] = []
        originals: list[int] = []
        space = KEPT_BYTES
        for index, pixels in self.readable(indices, strict=strict):
            space -= pixels.numel()
            names.append(self.names[index])
            kept.append(pixels if space >= 0 else None)
            originals.append(index)

        def read(index: int) -> Tensor:
            pixels = kept[index]
            return self.read(originals[index]) if pixels is None else pixels

        return Images(names, self.channels, read, self.skipped)


def open_images(data: str | os.PathLike[str], channels: int | None = None) -> Images:
    """Open a set of images.

    Args:
        data: a folder of images at any depth; one image; a `.npy` or `.npz` array, `(N, H, W)`, `(N, H, W, C)` or
            `(N, C, H, W)`, uint8 or floating in [0, 1]; or anything local that `datasets.load_dataset` opens (a folder
            or file of Parquet, Arrow, JSON, …), of which the first column of images is taken, from all splits.
        channels: 1, 3 or 4 to convert to grey, colour, or colour and transparency; as the data has them when None
            (files count as colour).

    Raises:
        FileNotFoundError: nothing stands at `data`.
        ValueError: there is no image in it, or an array is of another shape.
    """
    path = Path(data)
    if not path.exists():
        raise FileNotFoundError(f"no such file or folder: {path}")
    if path.suffix in (".npy", ".npz"):
        return _open_array(path, channels)
    extensions = Image.registered_extensions()
    if path.is_file() and path.suffix.lower() in extensions:
        return _open_files(path.parent, [path], channels)
    if path.is_dir():
        next(os.scandir(path), None)  # rglob is silent about a folder that may not be read
        files = sorted(file for file in path.rglob("*") if file.is_file() and not _hidden(file.relative_to(path)))
        if any(file.suffix.lower() in extensions for file in files):
            return _open_files(path, files, channels)
    return _open_dataset(path, channels)


def to_pixels(images: Tensor) -> Tensor:
    """Turn floating images in [0, 1], of any shape, into uint8, rounded."""
    return (images.detach().clamp(0, 1) * 255).round().to(torch.uint8)


def psnr(image: Tensor, copy: Tensor) -> float:
    """Return the peak signal-to-noise ratio of two images in [0, 1], in dB; at most 100, for equal ones.

    Example:
        >>> round(psnr(torch.zeros(3, 4, 4), torch.full((3, 4, 4), 0.1)), 4)
        20.0
    """
    return -10 * math.log10(max(float((copy - image).square().mean()), 1e-10))


def save_image(pixels: Tensor, path: Path) -> None:
    """Write uint8 `(C, H, W)` as an image file, in the format of the path's extension; C is 1, 3 or 4.

    Raises:
        ValueError: there is no image file of C channels.
    """
    if len(pixels) not in MODES:
        raise ValueError(f"an image file has 1, 3 or 4 channels, not {len(pixels)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    array = pixels.movedim(0, -1).cpu().numpy()
    Image.fromarray(array[..., 0] if len(pixels) == 1 else array).save(path)


def listed(skipped: Mapping[str, str], most: int = 5) -> str:
    """Name the files that could not be read: ``2 unreadable files: a.png (truncated), b.txt (not an image)``."""
    named = ", ".join(f"{name} ({reason})" for name, reason in list(skipped.items())[:most])
    more = f" and {len(skipped) - most} more" if len(skipped) > most else ""
    return f"{len(skipped)} unreadable file{'s' * (len(skipped) > 1)}: {named}{more}"


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _pixels(image: Image.Image, channels: int) -> Tensor:
    if channels not in MODES:
        raise ValueError(f"image files have 1, 3 or 4 channels, not {channels}")
    if image.mode.startswith("I;16"):  # Pillow clips 16-bit grey to 255 instead of scaling it
        image = Image.fromarray((np.asarray(image, dtype=np.uint16) >> 8).astype(np.uint8))
    upright = ImageOps.exif_transpose(image).convert(MODES[channels])
    array = np.array(upright, dtype=np.uint8)
    return torch.from_numpy(array.reshape(*array.shape[:2], channels)).movedim(-1, 0).contiguous()


def _open_files(root: Path, files: list[Path], channels: int | None) -> Images:
    channels = channels or 3

    def read(index: int) -> Tensor:
        with Image.open(files[index]) as image:
            return _pixels(image, channels)

    return Images([file.relative_to(root).as_posix() for file in files], channels, read)


def _open_array(path: Path, channels: int | None) -> Images:
    loaded = np.load(path, mmap_mode="r", allow_pickle=False)
    if path.suffix == ".npz":
        if len(loaded.files) != 1:
            raise ValueError(f"{path} must hold one array, it holds {len(loaded.files)}: {', '.join(loaded.files)}")
        loaded = loaded[loaded.files[0]]
    shape = loaded.shape
    if loaded.ndim == 3:
        loaded = loaded[:, None]
    elif loaded.ndim == 4 and shape[-1] in MODES:
        loaded = np.moveaxis(loaded, -1, 1)
    elif loaded.ndim != 4:
        raise ValueError(f"{path} has shape {shape}, expected (N, H, W), (N, H, W, C) or (N, C, H, W)")
    if 0 in shape:
        raise ValueError(f"{path} holds no image, its shape is {shape}")
    if channels not in (None, loaded.shape[1]):
        raise ValueError(f"{path} has {loaded.shape[1]} channels, expected {channels}")
    floating = np.issubdtype(loaded.dtype, np.floating)
    if not floating and loaded.dtype != np.uint8:
        raise ValueError(f"{path} holds {loaded.dtype}, expected uint8 or floating in [0, 1]")

    def read(index: int) -> Tensor:
        pixels = torch.from_numpy(np.array(loaded[index]))
        if not floating:
            return pixels
        if not (pixels.min() >= 0 and pixels.max() <= 1):
            raise ValueError(f"floating images must be in [0, 1], this one reaches {pixels.min()} to {pixels.max()}")
        return to_pixels(pixels)

    digits = len(str(len(loaded) - 1))
    return Images([f"{index:0{digits}d}.png" for index in range(len(loaded))], loaded.shape[1], read)


def _open_dataset(path: Path, channels: int | None) -> Images:
    try:
        import datasets
    except ImportError as error:
        raise ImportError(f"{path} needs the package datasets to open: pip install 'lexel[train]'") from error

    builders = {".parquet": "parquet", ".arrow": "arrow", ".json": "json", ".jsonl": "json", ".csv": "csv"}
    try:
        if path.is_dir() and ((path / "dataset_dict.json").exists() or (path / "state.json").exists()):
            loaded = datasets.load_from_disk(str(path))
        elif path.is_dir():
            loaded = datasets.load_dataset(str(path))
        elif path.suffix in builders:
            loaded = datasets.load_dataset(builders[path.suffix], data_files=str(path))
        else:
            raise ValueError("not an image, an array or a data set")
    except Exception as error:  # the package raises many kinds; all mean that there is nothing to read here
        raise ValueError(f"no images found in {path}: {error}") from error
    table = datasets.concatenate_datasets(list(loaded.values())) if isinstance(loaded, dict) else loaded
    columns = [name for name, feature in table.features.items() if isinstance(feature, datasets.Image)]
    if not columns:
        raise ValueError(f"no images found in {path}: its columns are {', '.join(table.features) or 'none'}")
    channels = channels or 3
    digits = len(str(max(len(table) - 1, 0)))
    names = [f"{index:0{digits}d}.png" for index in range(len(table))]
    return Images(names, channels, lambda index: _pixels(table[index][columns[0]], channels))
