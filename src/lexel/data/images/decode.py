"""One image file to pixels."""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import torch
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

__all__ = ["MAX_PIXELS", "MODES", "decode", "glance", "is_image", "most_pixels"]

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
MAX_PIXELS = "LEXEL_MAX_PIXELS"  # the environment's, so that workers and ranks that are started anew know it too

# Opening one of these would start another program, Ghostscript.
REFUSED = {"EPS"}
# Where Pillow's 16-bit grey says for certain that 65535 is white.
WHITE_IS_65535 = {"PNG", "PPM", "JPEG2000"}
# Where more than one image in a file means frames or pages, and not a preview.
FRAMES = {"AVIF", "FLI", "GIF", "PNG", "TIFF", "WEBP"}
BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339  # TIFF 6.0, section 8 and 19
WHITE_IS_ZERO, UNSIGNED, SHORT = 0, 1, 3

# A damaged file is read or skipped with its reason; its decoder's warnings would only break the line of progress.
warnings.filterwarnings("ignore", module=r"PIL\.")


def decode(file: Path | IO[bytes], channels: int) -> Tensor:
    """Read an image file as uint8 `(C, H, W)`, upright.

    Grey of more than 8 bits is scaled, where its white is known: the greatest value of an unsigned depth of at most
    16 bits, and 1 for floats. What lies under transparency is not shown: such an image is laid on white, unless
    C is 4. Of an animation or of several pages the first is read. EXIF is read for the orientation alone.

    Args:
        file: its path, or its bytes.
        channels: C: 1, 3 or 4.

    Raises:
        ValueError: it is not an image, it has too many pixels (`most_pixels`), or its white is not known.
        Exception: whatever the decoder of a damaged file raises.
    """
    if channels not in MODES:
        raise ValueError(f"image files have 1, 3 or 4 channels, not {channels}")
    with _opened(file) as image:
        _scale_transparency(image)
        image.load()
        array = np.asarray(_flattened(_eight_bits(image), channels))
        pixels = torch.from_numpy(array.reshape(*array.shape[:2], channels).copy()).movedim(-1, 0)
        return _upright(pixels, _orientation(image)).contiguous()


def glance(file: Path | IO[bytes]) -> str | None:
    """Read an image file's header; return what `decode` will leave out of it.

    Raises:
        ValueError: it is not an image, or it has too many pixels.
    """
    with _opened(file) as image:
        try:
            several = image.format in FRAMES and getattr(image, "is_animated", False)
        except Exception:  # what follows the first frame is damaged, and not wanted
            return None
        return "only its first frame is read" if several else None


def is_image(file: Path) -> bool:
    """Say whether a file begins as an image does, whatever its name."""
    try:
        glance(file)
    except ValueError as error:
        return "pixels" in str(error)
    except Exception:
        return False
    return True


def most_pixels() -> int | None:
    """Return how many pixels an image may have, so that a small file cannot fill the memory.

    Pillow's own limit, `PIL.Image.MAX_IMAGE_PIXELS`, 89,478,485 at first, which takes at most 1.4 GB to decode; the
    environment variable `LEXEL_MAX_PIXELS` sets another.

    Raises:
        ValueError: the variable is not a number of pixels.
    """
    given = os.environ.get(MAX_PIXELS)
    if given is not None:
        if not given.isdecimal() or int(given) < 1:
            raise ValueError(f"{MAX_PIXELS} must be a whole number of pixels above 0, got {given!r}")
        Image.MAX_IMAGE_PIXELS = int(given)
    return Image.MAX_IMAGE_PIXELS


@contextmanager
def _opened(file: Path | IO[bytes]) -> Iterator[Image.Image]:
    Image.init()
    limit = most_pixels()
    try:
        image = Image.open(file, formats=[name for name in Image.ID if name not in REFUSED])
    except UnidentifiedImageError:
        raise ValueError("not an image") from None  # the message would name the path, or a place in memory
    except Image.DecompressionBombError as error:
        raise ValueError(f"{error}; {MAX_PIXELS} can be set higher") from None
    with image:
        if limit is not None and image.width * image.height > limit:
            raise ValueError(
                f"{image.width} × {image.height} pixels are more than {limit:,}; {MAX_PIXELS} can be set higher"
            )
        yield image


def _scale_transparency(image: Image.Image) -> None:
    """Bring the one value that stands for what is not there to eight bits, as the pixels will be.

    Pillow leaves it at the depth of the file, where no pixel has it: what is hidden would appear.
    """
    transparent, tiles = image.info.get("transparency"), getattr(image, "tile", None)
    rawmode = tiles[0][3] if image.format == "PNG" and tiles else None
    if isinstance(transparent, int) and rawmode in ("L;2", "L;4"):
        image.info["transparency"] = transparent * (85 if rawmode == "L;2" else 17)
    elif isinstance(transparent, tuple) and rawmode == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in transparent)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale grey of more than 8 bits; images of other modes are returned as they are."""
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    if image.mode == "F":
        if not (values.min() >= 0 and values.max() <= 1):  # NaN is neither
            raise ValueError(f"floating grey must be in [0, 1], this reaches {values.min():g} to {values.max():g}")
        levels = (values * np.float32(255)).round().astype(np.uint8)
    else:
        white = _white(image)
        if values.min() < 0 or values.max() > white:
            raise ValueError(f"grey must be in [0, {white}], this reaches {values.min()} to {values.max()}")
        levels = ((values.astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8)
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        levels = 255 - levels
    scaled = Image.fromarray(levels)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):  # one value of all stands for what is not there
        scaled.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return scaled


def _white(image: Image.Image) -> int:
    if image.format in WHITE_IS_65535:
        return 65535
    if image.format == "TIFF":
        tags = getattr(image, "tag_v2", {})
        bits, kind = tags.get(BITS_PER_SAMPLE, (1,)), tags.get(SAMPLE_FORMAT, (UNSIGNED,))
        if bits[0] <= 16 and kind[0] == UNSIGNED:
            return (1 << int(bits[0])) - 1
        raise ValueError(f"which value is white is not known for {bits[0]}-bit grey; save it as 16-bit grey or float")
    raise ValueError(f"which value is white is not known for {image.format} of mode {image.mode}")


def _flattened(image: Image.Image, channels: int) -> Image.Image:
    """Convert to the mode of `channels`, laid on white where the image has transparency and the mode has none."""
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        if image.mode == "La":  # Pillow converts it to LA only
            image = image.convert("LA")
        image = image.convert("RGBA")
        if channels < 4:
            paper = Image.new("RGB", image.size, "white")
            paper.paste(image, mask=image.getchannel("A"))
            image = paper
    return image if image.mode == MODES[channels] else image.convert(MODES[channels])


def _orientation(image: Image.Image) -> int:
    exif = image.info.get("exif", b"")
    try:
        return _orientation_in(exif) or int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a block so malformed says nothing of how to turn the pixels, which are whole
        return 1


def _orientation_in(exif: bytes) -> int | None:
    """Find the orientation in an EXIF block, whatever is wrong with its other entries (TIFF 6.0, section 2)."""
    block = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None:
        return None
    (start,) = struct.unpack_from(f"{order}4xI", block)
    (count,) = struct.unpack_from(f"{order}H", block, start)
    for entry in range(start + 2, min(start + 2 + 12 * count, len(block) - 11), 12):
        tag, kind, _, value = struct.unpack_from(f"{order}HHIH", block, entry)
        if (tag, kind) == (ExifTags.Base.Orientation, SHORT):
            return int(value)
    return None


def _upright(pixels: Tensor, orientation: int) -> Tensor:
    """Turn `(C, H, W)` by the orientation of EXIF 2.3, tag 0x0112."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.mT
    if orientation in (2, 3, 6, 7):
        pixels = pixels.flip(2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels.flip(1)
    return pixels
