"""Damage real pictures, arrays and tables, and see what becomes of them: `python -m tests.data.damage 2000`."""

from __future__ import annotations

import io
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import skimage
import torch
from PIL import Image

from lexel.data.images import open_images

PHOTOGRAPH = Path(skimage.__file__).parent / "data/chelsea.png"
# Damage may hit the numbers that say how large an image is: it then is refused, and not decoded for seconds.
MOST_PIXELS = 1 << 20


def whole_files() -> dict[str, bytes]:
    """One photograph in every format that is of use, by file name."""
    with Image.open(PHOTOGRAPH) as image:
        photograph = image.convert("RGB").resize((64, 48))
    array = np.array(photograph)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x011A] = 6, "a maker", 72.0
    grey = Image.fromarray(array[..., 0].astype(np.uint16) * 257)
    drawings: dict[str, tuple[Image.Image, dict[str, object]]] = {
        "a.png": (photograph, {"exif": exif}),
        "palette.png": (photograph.quantize(32), {"transparency": 3}),
        "deep.png": (grey, {}),
        "frames.png": (photograph, {"save_all": True, "append_images": [photograph.rotate(90)]}),
        "a.jpg": (photograph, {"exif": exif}),
        "progressive.jpg": (photograph.convert("CMYK"), {"progressive": True}),
        "a.webp": (photograph, {"exif": exif}),
        "frames.webp": (photograph, {"save_all": True, "append_images": [photograph.rotate(90)]}),
        "a.gif": (photograph.quantize(32), {"save_all": True, "append_images": [photograph.rotate(90).quantize(32)]}),
        "a.tiff": (photograph, {"compression": "tiff_lzw", "exif": exif}),
        "deep.tiff": (grey, {}),
        "a.bmp": (photograph, {}),
        "a.tga": (photograph, {"compression": "tga_rle"}),
        "a.pgm": (grey, {}),
        "a.jp2": (photograph, {}),
        "a.ico": (photograph, {}),
        "a.avif": (photograph, {}),
    }
    found = {}
    for name, (image, options) in drawings.items():
        file = io.BytesIO()
        try:
            image.save(file, Image.registered_extensions()[Path(name).suffix], **options)
        except (KeyError, OSError):  # Pillow was built without it
            continue
        found[name] = file.getvalue()
    for name, save in (("a.npy", np.save), ("a.npz", np.savez), ("packed.npz", np.savez_compressed)):
        file = io.BytesIO()
        save(file, array[None] if name != "a.npy" else array[None] / 255)
        found[name] = file.getvalue()
    file = io.BytesIO()
    pq.write_table(pa.table({"image": pa.array([found["a.png"], found["a.jpg"]])}), file)
    found["a.parquet"] = file.getvalue()
    return found


def damaged(content: bytes, other: bytes, chance: random.Random) -> bytes:
    """Cut, flip, splice, repeat or erase a part of a file; one to three times."""
    data = bytearray(content)
    for _ in range(chance.randint(1, 3)):
        # Headers are short and matter most: every other blow falls there.
        end = min(len(data), 200) if chance.random() < 0.5 else len(data)
        start, length = chance.randrange(end + 1), chance.choice([1, 2, 4, 16, 300])
        kind = chance.choice(["cut", "bits", "bytes", "splice", "repeat", "erase", "zero", "ones"])
        if kind == "cut":
            del data[start:]
        elif kind == "bits" and start < len(data):
            data[start] ^= 1 << chance.randrange(8)
        elif kind == "bytes":
            data[start : start + length] = chance.randbytes(length)
        elif kind == "splice":
            place = chance.randrange(len(other))
            data[start : start + length] = other[place : place + length]
        elif kind == "repeat":
            data[start:start] = data[start : start + length]
        elif kind == "erase":
            del data[start : start + length]
        else:
            data[start : start + length] = (b"\0" if kind == "zero" else b"\xff") * length
    return bytes(data)


def outcome(path: Path, expected: list[torch.Tensor]) -> str:
    """What becomes of a file: an error in a line, the right pixels, others that it may hold now, or a traceback."""
    try:
        images = open_images(path, 3)
        found = [pixels for _, pixels in images.readable(range(len(images)))]
    except (OSError, ValueError) as error:
        return "error" if str(error) and "\n" not in str(error) else f"traceback: {error!r}"
    except Exception as error:
        return f"traceback: {error!r}"
    if any(pixels.dtype != torch.uint8 or pixels.shape[0] != 3 or not pixels.numel() for pixels in found):
        return "traceback: not an image"
    if any("\n" in reason for reason in images.skipped.values()):
        return "traceback: a reason of several lines"
    if images.skipped:
        return "error"
    same = len(found) == len(expected) and all(torch.equal(one, two) for one, two in zip(found, expected, strict=True))
    return "right" if same else "other pixels"


def outcomes(count: int, seed: int, *, slow: bool) -> Iterator[tuple[str, str, float]]:
    """Damage so many files; give each name, what became of it, and the seconds that it took."""
    chance = random.Random(seed)
    files = whole_files()
    if not slow:
        del files["a.parquet"]
    names = list(files)
    before = os.environ.get("LEXEL_MAX_PIXELS"), Image.MAX_IMAGE_PIXELS
    os.environ["LEXEL_MAX_PIXELS"] = str(MOST_PIXELS)
    try:
        with tempfile.TemporaryDirectory() as folder:
            expected = {}
            for name, content in files.items():
                (Path(folder) / name).write_bytes(content)
                images = open_images(Path(folder) / name, 3)
                expected[name] = [images.read(index) for index in range(len(images))]
            for _ in range(count):
                name = chance.choice(names)
                path = Path(folder) / name
                path.write_bytes(damaged(files[name], files[chance.choice(names)], chance))
                start = time.perf_counter()
                found = outcome(path, expected[name])
                yield name, found, time.perf_counter() - start
    finally:
        os.environ.pop("LEXEL_MAX_PIXELS")
        if before[0] is not None:
            os.environ["LEXEL_MAX_PIXELS"] = before[0]
        Image.MAX_IMAGE_PIXELS = before[1]


def main() -> None:
    """Damage as many files as the first argument says, with the second as the seed, and print what became of them."""
    count, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    by_kind: dict[str, Counter[str]] = {}
    slowest = 0.0
    for name, found, seconds in outcomes(count, seed, slow=True):
        by_kind.setdefault(name, Counter())[found] += 1
        slowest = max(slowest, seconds)
    for name, counts in sorted(by_kind.items()):
        sys.stdout.write(f"{name:16} {dict(counts)}\n")
    sys.stdout.write(f"all {count}: {dict(sum(by_kind.values(), Counter()))}; the slowest took {slowest:.2f} s\n")


if __name__ == "__main__":
    main()
