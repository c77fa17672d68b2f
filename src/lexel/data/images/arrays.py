"""Images in a numpy array."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lexel._core.errors import reason_of
from lexel._core.files import refuse_bomb
from lexel.data.images.decode import MODES, in_channels
from lexel.data.images.write import to_pixels

__all__ = ["ImageArray", "open_array"]

MOST_CHANNELS = 4  # a longer axis does not count as the channel axis, unless the layout is given


class ImageArray:
    """Reads the images of an array file; it can be pickled, and then opens the file anew.

    Args:
        path: of a `.npy` or `.npz` file.
        layout: names of its axes: H, W, and N or C or both.
        channels: how many to convert the images to, as files are; its own when None.

    Raises:
        ValueError: it is damaged, or not one array of images.
    """

    def __init__(self, path: Path, layout: str, channels: int | None = None) -> None:
        self.path, self.layout = path, layout
        array = _load(path)
        array = array.transpose([layout.index(axis) for axis in "NCHW" if axis in layout])
        for position, axis in enumerate("NC"):
            array = array if axis in layout else np.expand_dims(array, position)
        self.array = array
        self.channels: int = channels or array.shape[1]

    def __len__(self) -> int:
        return len(self.array)

    def __reduce__(self) -> Any:
        return ImageArray, (self.path, self.layout, self.channels)

    def __call__(self, index: int) -> Tensor:
        """Return an image.

        Raises:
            ValueError: it is floating, and not in [0, 1].
        """
        values = self.array[index]
        if self.array.dtype == np.uint8:
            return in_channels(torch.from_numpy(np.array(values, order="C")), self.channels)
        pixels = torch.from_numpy(np.array(values, dtype=np.float32, order="C"))  # of whichever byte order
        if not (pixels.min() >= 0 and pixels.max() <= 1):  # NaN is neither
            raise ValueError(f"floating images must be in [0, 1], this one reaches {pixels.min()} to {pixels.max()}")
        return in_channels(to_pixels(pixels), self.channels)


def open_array(path: Path, channels: int | None, layout: str | None) -> ImageArray:
    """Open an array of images.

    Args:
        path: of a `.npy` or `.npz` file.
        channels: the number of channels to convert the images to, as files are; their own when None.
        layout: names of its axes; inferred from the shape when None.

    Raises:
        ValueError: it is damaged, of a wrong type or shape, or it can be read in two ways.
    """
    array = _load(path)
    shape, dtype = array.shape, array.dtype
    del array  # one of an archive fills the memory, and `ImageArray` loads it again
    if dtype not in (np.uint8, np.bool_) and not np.issubdtype(dtype, np.floating):
        raise ValueError(
            f"{path} holds {dtype}, expected uint8, bool or floating in [0, 1]; divide it by its white value"
        )
    if 0 in shape:
        raise ValueError(f"{path} holds no image, its shape is {shape}")
    if layout is None:
        layout = _layout(path, shape, channels)
    elif set(layout) | {"C", "N"} != set("NCHW") or not len(set(layout)) == len(layout) == len(shape):
        raise ValueError(f"layout must name the axes of {shape} as in 'NHWC', got {layout!r}")
    own = shape[layout.index("C")] if "C" in layout else 1
    if channels not in (None, own) and not {own, channels} <= MODES.keys():
        raise ValueError(
            f"{path} has {own} channels, expected {channels} (--model.image-channels); only 1, 3 and 4 are "
            "converted into each other"
        )
    return ImageArray(path, layout, channels)


def _layout(path: Path, shape: tuple[int, ...], channels: int | None) -> str:
    """Infer the axes from the shape.

    Raises:
        ValueError: the shape can be read in two ways, or in none.
    """
    if len(shape) == 3:
        # A request for grey rules out one colour image as CHW; HWC would mean many images of three columns: in doubt.
        others = ("HWC",) if channels == 1 else ("HWC", "CHW")
        one = [layout for layout in others if _plausible(shape, layout) and shape[0] != 1]
        if not one:
            return "NHW"
        raise ValueError(
            f"{path} has shape {shape}: {shape[0]} grey images (layout NHW), or one image of "
            f"{shape[one[0].index('C')]} channels ({one[0]})? "
            f"Give layout=, or save it with four axes, as {(*shape, 1)} or {(1, *shape)}"
        )
    if len(shape) == 4:
        several = [layout for layout in ("NHWC", "NCHW") if _plausible(shape, layout)]
        if len(several) == 1:
            return several[0]
        raise ValueError(
            f"{path} has shape {shape}: {shape[0]} images of {shape[1]} channels (layout NCHW), "
            f"or of {shape[-1]} (NHWC)? Give layout="
        )
    raise ValueError(f"{path} has shape {shape}, expected (N, H, W), (N, H, W, C) or (N, C, H, W)")


def _plausible(shape: tuple[int, ...], layout: str) -> bool:
    """Return whether the channel axis is short enough for channels, and no longer than a side."""
    height, width, channels = (shape[layout.index(axis)] for axis in "HWC")
    return channels <= min(MOST_CHANNELS, height, width) and (len(shape) == 4 or channels != 2)


def _load(path: Path) -> np.ndarray[Any, Any]:
    try:
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(loaded, np.ndarray):
            with loaded:
                if len(loaded.files) != 1:
                    held = f": {', '.join(loaded.files)}" if loaded.files else ""
                    raise ValueError(f"it holds {len(loaded.files)} arrays{held}")
                refuse_bomb(loaded.zip)
                loaded = loaded[loaded.files[0]]
    except Exception as error:  # a damaged file fails in many ways
        raise ValueError(f"{path} cannot be read as one array: {reason_of(error)}") from error
    return np.asarray(loaded)
