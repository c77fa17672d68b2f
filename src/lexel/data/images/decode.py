"""Decoding an image file into pixels."""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO

import numpy as np
import torch
from PIL import ExifTags, Image, TiffImagePlugin, UnidentifiedImageError
from torch import Tensor

from lexel._core.files import require_file

__all__ = ["MAX_PIXELS", "MODES", "decode", "glance", "in_channels", "is_image", "most_pixels", "pixels_of"]

NOT_AN_IMAGE = "not an image"

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
MAX_PIXELS = "LEXEL_MAX_PIXELS"  # an environment variable, so that newly started workers and ranks know it too

# Formats that Pillow opens by starting another program, Ghostscript.
REFUSED = {"EPS"}
# Formats in which 65535 is certainly white in Pillow's 16-bit grey.
WHITE_IS_65535 = {"PNG", "PPM", "JPEG2000"}
# Formats in which further images of a file are frames or pages, not previews.
FRAMES = {"AVIF", "FLI", "GIF", "PNG", "TIFF", "WEBP"}
BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLES_PER_PIXEL, SAMPLE_FORMAT = 258, 262, 277, 339  # TIFF 6.0, section 8 and 19
WHITE_IS_ZERO, UNSIGNED, SIGNED, SHORT = 0, 1, 2, 3
# How HEIC begins, what telephones write, from the fifth byte on (ISO/IEC 23008-12, annex B.4).
HEIC = tuple(b"ftyp" + brand for brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))
KINDS = {1: "unsigned", 2: "signed", 3: "float", 5: "complex signed", 6: "complex float"}  # of a sample

# A damaged file is read, or skipped with a reason; the decoder's warnings would only break the progress bar.
warnings.filterwarnings("ignore", module=r"PIL\.")


def decode(file: Path | IO[bytes], channels: int) -> Tensor:
    """Read an image file as uint8 `(C, H, W)`, upright.

    Grey of more than 8 bits is scaled if its white is known: the greatest value of an unsigned depth of at most 16
    bits, and 1 for floats. An image with transparency is laid on white, unless C is 4, so that hidden colours do not
    show. Of an animation or of several pages the first is read. EXIF is read for the orientation alone.

    Args:
        file: its path, or its bytes.
        channels: C: 1, 3 or 4.

    Raises:
        ValueError: it is not an image, it has too many pixels (`most_pixels`), or its white is not known.
        Exception: anything that a decoder raises for a damaged file.
    """
    with _opened(file) as image:
        return pixels_of(image, channels)


def pixels_of(image: Image.Image, channels: int) -> Tensor:
    """Return the pixels of a Pillow image, as `decode` returns those of a file, and with its errors."""
    if channels not in MODES:
        raise ValueError(f"image files have 1, 3 or 4 channels, not {channels}")
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
        except Exception:  # a later frame is damaged, but only the first is read
            return None
        return "only its first frame is read" if several else None


def in_channels(pixels: Tensor, channels: int) -> Tensor:
    """Convert uint8 `(C, H, W)` to another C, both 1, 3 or 4, as `decode` converts files."""
    if len(pixels) == channels:
        return pixels
    array = pixels.movedim(0, -1).numpy()
    image = _flattened(Image.fromarray(array[..., 0] if len(pixels) == 1 else array), channels)
    converted = np.asarray(image).reshape(*array.shape[:2], channels)
    return torch.from_numpy(converted.copy()).movedim(-1, 0).contiguous()


def is_image(file: Path) -> bool:
    """Return whether a file begins like an image, whatever its name."""
    try:
        glance(file)
    except ValueError as error:
        return str(error) != NOT_AN_IMAGE
    except Exception:
        return False
    return True


def most_pixels() -> int | None:
    """Return how many pixels an image may have, so that a small file cannot fill the memory.

    The default is Pillow's own limit, `PIL.Image.MAX_IMAGE_PIXELS`, 89,478,485, which takes at most 1.4 GB to decode;
    the environment variable `LEXEL_MAX_PIXELS` sets another.

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
    if isinstance(file, Path) and file.exists():
        require_file(file)
    try:
        image = Image.open(file, formats=[name for name in Image.ID if name not in REFUSED])
    except UnidentifiedImageError:
        raise ValueError(_unknown(file)) from None  # Pillow's message names the path, or an address in memory
    except Image.DecompressionBombError as error:
        raise ValueError(f"{error}; {MAX_PIXELS} can be set higher") from None
    with image:
        if limit is not None and image.width * image.height > limit:
            raise ValueError(
                f"{image.width} × {image.height} pixels are more than {limit:,}; {MAX_PIXELS} can be set higher"
            )
        yield image


def _unknown(file: Path | IO[bytes]) -> str:
    """Say what a file is that Pillow does not know: of TIFF, it knows few kinds of samples, of HEIC nothing."""
    try:
        with file.open("rb") if isinstance(file, Path) else nullcontext(file) as opened:
            opened.seek(4)
            if opened.read(8) in HEIC:
                return "HEIC, which cannot be read; save it as JPEG or PNG"
            opened.seek(0)
            tags = TiffImagePlugin.ImageFileDirectory_v2(opened.read(8))
            opened.seek(tags.next)
            tags.load(opened)
            kind, bits = KINDS[tags.get(SAMPLE_FORMAT, (UNSIGNED,))[0]], int(tags[BITS_PER_SAMPLE][0])
            return (
                f"a TIFF, channels: {tags.get(SAMPLES_PER_PIXEL, 1)}, each {bits}-bit {kind}, which cannot be read; "
                "save it as grey or colour of 8 bits, or as grey of 16 bits or of 32-bit floats"
            )
    except Exception:  # it is no TIFF, or a damaged one
        return NOT_AN_IMAGE


def _scale_transparency(image: Image.Image) -> None:
    """Scale the value that marks transparent pixels to eight bits, like the pixels themselves.

    Pillow leaves it at the depth of the file, so that no decoded pixel has it and hidden pixels would appear.
    """
    transparent, tiles = image.info.get("transparency"), getattr(image, "tile", None)
    rawmode = tiles[0][3] if image.format == "PNG" and tiles else None
    if isinstance(transparent, int) and rawmode in ("L;2", "L;4"):
        image.info["transparency"] = transparent * (85 if rawmode == "L;2" else 17)
    elif isinstance(transparent, tuple) and rawmode == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in transparent)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale grey of more than 8 bits; images of other modes are returned as they are."""
    tags = getattr(image, "tag_v2", {})
    if not image.mode.startswith(("I", "F")):
        if image.mode == "L" and tags.get(SAMPLE_FORMAT, (UNSIGNED,))[0] == SIGNED:
            signed = np.asarray(image).view(np.int8)  # Pillow takes the bytes as unsigned
            if signed.min() < 0:
                raise ValueError(f"grey must not be negative, this reaches {signed.min()} to {signed.max()}")
        return image
    values = np.asarray(image)
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
    if isinstance(transparent, int):  # pixels of this value are transparent
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
    raise ValueError(f"which value is white is not known for {image.format or 'an image'} of mode {image.mode}")


def _flattened(image: Image.Image, channels: int) -> Image.Image:
    """Convert to the mode of `channels`; lay transparent images on white if that mode has no transparency."""
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
    except Exception:  # the pixels are whole even if a malformed block does not say how to turn them
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
    """Turn `(C, H, W)` upright by its EXIF orientation (EXIF 2.3, tag 0x0112)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.mT
    if orientation in (2, 3, 6, 7):
        pixels = pixels.flip(2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels.flip(1)
    return pixels
