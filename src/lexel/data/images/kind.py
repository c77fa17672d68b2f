"""Images as a kind of data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from typing_extensions import override

from lexel.data.images.decode import decode, pixels_of
from lexel.data.images.measure import SSIM_WINDOW, psnr, ssim
from lexel.data.images.open import Images, open_images
from lexel.data.images.write import save_image, to_pixels
from lexel.data.kind import Figure, Kind
from lexel.data.names import files_writer
from lexel.data.pictures import columns as drawn
from lexel.data.tables import USUAL, Columns

__all__ = ["KIND"]


class ImageKind(Kind):
    """Images: uint8 `(C, H, W)` each."""

    name = "images"
    noun = "image"
    unit = "pixel"
    suffix = ".png"
    extents = ("height", "width")
    batch_size = 1  # so that the tokens of an image do not depend on its neighbours
    figures = MappingProxyType(
        {"psnr": Figure("PSNR", "{:.2f} dB"), "ssim": Figure("SSIM", "{:.4f}"), "l1": Figure("L1", "{:.4f}")}
    )

    @override
    def open(self, data: str | Path, model: Any, columns: Columns = USUAL) -> Images:
        return open_images(data, model.image_channels, columns=columns)

    @override
    def decode(self, content: Any, model: Any) -> Tensor:
        channels = int(model.image_channels)
        if isinstance(content, Mapping):  # as `datasets` holds an image that it has not decoded
            content = content.get("bytes") or content.get("path")
        if isinstance(content, Image.Image):
            return pixels_of(content, channels)
        if isinstance(content, (bytes, bytearray, memoryview)):
            return decode(BytesIO(content), channels)
        if isinstance(content, (str, Path)):
            return decode(Path(content), channels)
        pixels = np.asarray(content)
        if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3):
            raise ValueError(
                f"an image must be bytes of a file, a path, a Pillow image or a uint8 array (H, W) or (H, W, C), "
                f"got {type(content).__name__} of {pixels.dtype} and shape {pixels.shape}"
            )
        found = torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1).copy()).movedim(-1, 0)
        if len(found) != channels:
            raise ValueError(f"an image has {len(found)} channels, the model takes {channels}")
        return found.contiguous()

    @override
    def extent(self, example: Tensor) -> dict[str, int]:
        return dict(zip(self.extents, example.shape[1:], strict=True))

    @override
    def inputs(self, examples: Tensor) -> Tensor:
        return examples.float() / 255

    @override
    def examples(self, outputs: Tensor) -> Tensor:
        return to_pixels(outputs)

    @override
    def writer(
        self, out: Path, names: Sequence[str], numbers: Sequence[int], *, overwrite: bool = False
    ) -> AbstractContextManager[Callable[[int, Tensor], None]]:
        return files_writer(out, names, self.suffix, save_image, overwrite=overwrite)

    @override
    def measure(self, original: Tensor, copy: Tensor) -> dict[str, float]:
        """Return PSNR in dB, the mean absolute error of a pixel in [0, 1], and SSIM if a window fits."""
        one, other = original.float() / 255, copy.float() / 255
        figures = {"psnr": psnr(one, other), "l1": float((other - one).abs().mean())}
        if min(one.shape[1:]) >= SSIM_WINDOW:
            figures["ssim"] = ssim(one, other)
        return figures

    @override
    def show(self, columns: Sequence[Sequence[Tensor]]) -> Tensor:
        return to_pixels(drawn([[example.float() / 255 for example in column] for column in columns]))


KIND = ImageKind()
