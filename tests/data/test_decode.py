"""One image file to pixels: right, or refused with a reason."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile, ImageOps

from lexel.data.images import open_images
from lexel.data.images.decode import MAX_PIXELS, decode, glance, is_image
from lexel.data.images.kind import KIND

# Pillow says of damaged files what is wrong with them; pytest puts its own filters over Lexel's.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")

RAMP = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
LEVELS = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16)


def stored(image: Image.Image, kind: str, **options: object) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return file


def tensor(image: Image.Image) -> torch.Tensor:
    array = np.array(image)
    return torch.from_numpy(array.reshape(*array.shape[:2], -1)).movedim(-1, 0)


@pytest.fixture
def photograph(photographs: Path) -> Image.Image:
    with Image.open(photographs / "people/astronaut.png") as image:
        return image.convert("RGB")


class TestOrientation:
    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
    @pytest.mark.parametrize("order", ["little", "big"])
    def test_is_that_of_pillow(self, photograph: Image.Image, orientation: int, kind: str, order: str) -> None:
        exif = Image.Exif()
        exif.endian = "<" if order == "little" else ">"
        exif[0x0112] = orientation
        file = stored(photograph, kind, exif=exif)
        with Image.open(file) as image:
            expected = tensor(ImageOps.exif_transpose(image))
        file.seek(0)
        assert torch.equal(decode(file, 3), expected)

    # Tag, type, count, value: each is wrong in another way.
    @pytest.mark.parametrize(
        "entry",
        [
            (0x010F, 2, 40, 99999),
            (0x010F, 2, 0xFFFFFFFF, 26),
            (0x010F, 99, 1, 0),
            (0x010F, 0, 1, 0),
            (0x011A, 2, 4, 0x6261),
            (0x011A, 5, 1, 99999),
            (0x011A, 5, 1, 8),
            (0x8769, 4, 1, 99999),
            (0x8769, 4, 1, 8),
            (0x8769, 2, 4, 0),
            (0x8825, 4, 1, 99999),
            (0x0128, 2, 4, 0x68636E69),
            (0x9286, 7, 4, 0xFCFDFEFF),
        ],
    )
    @pytest.mark.parametrize("first", [True, False])
    @pytest.mark.parametrize("count", [2, 500])
    def test_is_found_in_a_malformed_block(
        self, photograph: Image.Image, entry: tuple[int, ...], first: bool, count: int
    ) -> None:
        turned = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
        other = struct.pack("<HHII", *entry)
        block = b"Exif\0\0II*\0" + struct.pack("<IH", 8, count)
        block += (turned + other if first else other + turned) + bytes(4)
        pixels = decode(stored(photograph, "JPEG", exif=block), 3)
        assert torch.equal(pixels, decode(stored(photograph, "JPEG"), 3).mT.flip(2))

    @pytest.mark.parametrize("length", range(0, 38, 3))
    def test_a_block_cut_short_leaves_the_pixels(self, photograph: Image.Image, length: int) -> None:
        block = b"Exif\0\0II*\0" + struct.pack("<IHHHIHH", 8, 1, 0x0112, 3, 1, 1, 0)
        assert decode(stored(photograph, "JPEG", exif=block[:length]), 3).shape == (3, *photograph.size[::-1])


class TestDepth:
    @pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM", "JPEG2000"])
    def test_sixteen_bits_are_scaled(self, kind: str) -> None:
        assert torch.equal(decode(stored(Image.fromarray(RAMP), kind), 1), LEVELS)
        assert torch.equal(decode(stored(Image.fromarray(RAMP), kind), 3), LEVELS.expand(3, -1, -1))

    @pytest.mark.parametrize("white", [1, 15, 255, 256, 1000, 4095, 65535])
    @pytest.mark.parametrize("plain", [True, False])
    def test_a_portable_grey_map_says_what_is_white(self, white: int, plain: bool) -> None:
        values = (white, white // 2, 0)
        packed = struct.pack(">3B" if white < 256 else ">3H", *values)
        body = " ".join(map(str, values)).encode() if plain else packed
        found = decode(io.BytesIO(b"P%d 3 1 %d\n" % (2 if plain else 5, white) + body), 1).flatten().tolist()
        assert found == pytest.approx([255, 255 * (white // 2) / white, 0], abs=0.51)

    @pytest.mark.parametrize(("bits", "mode"), [(1, "1"), (2, "L"), (4, "L"), (8, "L")])
    def test_few_bits_are_scaled(self, bits: int, mode: str) -> None:
        file = png(struct.pack("B", 0xFF), width=8 // bits, bits=bits)
        assert Image.open(io.BytesIO(file)).mode == mode
        assert (decode(io.BytesIO(file), 1) == 255).all()

    def test_twelve_bits_of_tiff_are_scaled(self) -> None:
        file = tiff(struct.pack("BBB", 0xFF, 0xF8, 0x00), width=2, bits=12)
        assert decode(file, 1).flatten().tolist() == [255, 128]

    def test_white_is_zero(self) -> None:
        file = tiff(struct.pack("<HH", 0, 65535), width=2, bits=16, photometric=0)
        assert decode(file, 1).flatten().tolist() == [255, 0]

    def test_floats_are_grey_from_0_to_1(self) -> None:
        file = stored(Image.fromarray((RAMP / 65535).astype(np.float32)), "TIFF")
        assert torch.equal(decode(file, 1), LEVELS)

    @pytest.mark.parametrize(
        "array",
        [
            RAMP.astype(np.float32),
            np.full((2, 2), np.nan, np.float32),
            np.full((2, 2), -0.1, np.float32),
            RAMP.astype(np.int32),
        ],
        ids=["above 1", "not a number", "below 0", "32 bits"],
    )
    def test_grey_whose_white_is_not_known_is_refused(self, array: np.ndarray) -> None:
        with pytest.raises(ValueError, match=r"white is not known|must be in \[0, 1\]"):
            decode(stored(Image.fromarray(array), "TIFF"), 1)

    def test_signed_grey_is_refused(self) -> None:
        with pytest.raises(ValueError, match="white is not known"):
            decode(tiff(struct.pack("<hh", -5, 5), width=2, bits=16, sample_format=2), 1)

    def test_signed_bytes_are_not_taken_for_unsigned_ones(self) -> None:
        with pytest.raises(ValueError, match="negative, this reaches -5 to 5"):
            decode(tiff(struct.pack("<bb", -5, 5), width=2, bits=8, sample_format=2), 1)
        assert decode(tiff(struct.pack("<bb", 0, 5), width=2, bits=8, sample_format=2), 1).flatten().tolist() == [0, 5]

    @pytest.mark.parametrize(
        ("bits", "channels", "sample_format", "said"),
        [(16, 1, 3, "channels: 1, each 16-bit float"), (64, 1, 3, "64-bit float"), (8, 5, 1, "channels: 5")],
    )
    def test_a_tiff_that_pillow_does_not_know_is_named(
        self, bits: int, channels: int, sample_format: int, said: str, tmp_path: Path
    ) -> None:
        body = bytes(2 * channels * bits // 8)
        file = tiff(body, width=2, bits=bits, sample_format=sample_format, channels=channels)
        with pytest.raises(ValueError, match=said):
            decode(file, 1)
        (tmp_path / "image").write_bytes(file.getvalue())
        assert is_image(tmp_path / "image")


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ValueError, match="pipe"):
        decode(tmp_path / "pipe.png", 3)


def tiff(
    body: bytes, *, width: int, bits: int, photometric: int = 1, sample_format: int = 1, channels: int = 1
) -> io.BytesIO:
    """A TIFF file of one row, written by hand."""
    entries = (
        *((256, 4, width), (257, 4, 1), (258, 3, bits), (259, 3, 1), (262, 3, photometric)),
        *((273, 4, 8), (277, 3, channels), (278, 4, 1), (279, 4, len(body)), (339, 3, sample_format)),
    )
    padded = body + bytes(-len(body) % 2)
    directory = struct.pack("<H", len(entries)) + b"".join(
        struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries
    )
    return io.BytesIO(b"II*\0" + struct.pack("<I", 8 + len(padded)) + padded + directory + bytes(4))


def png(row: bytes, *, width: int, bits: int, colour: int = 0, transparent: bytes = b"") -> bytes:
    """A PNG file of one row, written by hand."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, bits, colour, 0, 0, 0))
    hidden = chunk(b"tRNS", transparent) if transparent else b""
    return b"\x89PNG\r\n\x1a\n" + header + hidden + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")


class TestColour:
    @pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
    def test_a_hidden_grey_is_hidden_at_every_depth(self, bits: int) -> None:
        shown, hidden = 0, (1 << bits) // 2
        row = struct.pack(">H", (shown << 16 - bits) + (hidden << 16 - 2 * bits)) if bits < 16 else b"\0\0\x80\0"
        file = png(row, width=2, bits=bits, transparent=struct.pack(">H", hidden))
        assert decode(io.BytesIO(file), 1).tolist() == [[[0, 255]]]
        assert decode(io.BytesIO(file), 4)[3].tolist() == [[255, 0]]

    @pytest.mark.parametrize("bits", [8, 16])
    def test_a_hidden_colour_is_hidden_at_every_depth(self, bits: int) -> None:
        values = [0, 0, 0, 18 << bits - 8, 0, 0]
        row, transparent = struct.pack(">6B" if bits == 8 else ">6H", *values), struct.pack(">3H", *values[3:])
        file = png(row, width=2, bits=bits, colour=2, transparent=transparent)
        assert decode(io.BytesIO(file), 3).tolist() == [[[0, 255]]] * 3

    @pytest.mark.parametrize("mode", ["RGBA", "LA", "GIF", "palette", "one grey", "one deep grey", "one colour"])
    def test_what_lies_under_transparency_does_not_appear(self, mode: str) -> None:
        """Black that is not there, beside black that is: white and black on paper."""
        if mode in ("RGBA", "LA"):
            image = Image.new(mode, (2, 1), (0,) * len(mode))
            image.putpixel((1, 0), (*(0,) * (len(mode) - 1), 255))
            file = stored(image, "PNG")
        elif mode in ("palette", "GIF"):
            image = Image.new("P", (2, 1))
            image.putpalette([0, 0, 0, 0, 0, 0])
            image.putpixel((1, 0), 1)
            gif, png = ("GIF", 0), ("PNG", b"\0\xff")
            name, transparency = gif if mode == "GIF" else png
            file = stored(image, name, transparency=transparency)
        elif mode == "one colour":
            image = Image.new("RGB", (2, 1), (0, 0, 1))
            image.putpixel((1, 0), (0, 0, 0))
            file = stored(image, "PNG", transparency=(0, 0, 1))
        else:
            array = np.array([[7, 0]], dtype=np.uint8 if mode == "one grey" else np.uint16)
            file = stored(Image.fromarray(array), "PNG", transparency=7)
        contents = file.getvalue()
        for channels in (1, 3):
            assert decode(io.BytesIO(contents), channels).tolist() == [[[255, 0]]] * channels
        assert decode(io.BytesIO(contents), 4)[3].tolist() == [[0, 255]]

    def test_half_transparent_is_half_white(self) -> None:
        assert decode(stored(Image.new("RGBA", (1, 1), (0, 100, 200, 51)), "PNG"), 3).flatten().tolist() == [
            204,
            224,
            244,
        ]

    @pytest.mark.parametrize("channels", [1, 3, 4])
    @pytest.mark.parametrize(
        ("mode", "kind"),
        [("L", "PNG"), ("P", "PNG"), ("CMYK", "TIFF"), ("YCbCr", "TIFF"), ("1", "PNG"), ("RGBA", "WEBP")],
    )
    def test_opaque_images_are_converted_as_pillow_does(
        self, photograph: Image.Image, mode: str, kind: str, channels: int
    ) -> None:
        options = {"lossless": True} if kind == "WEBP" else {}
        file = stored(photograph.convert(mode), kind, **options)
        with Image.open(file) as image:
            expected = tensor(image.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels]))
        file.seek(0)
        assert (decode(file, channels).int() - expected.int()).abs().max() <= (
            1 if (mode, channels) == ("RGBA", 1) else 0
        )

    @pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
    def test_the_first_frame_is_read_and_that_is_said(self, kind: str) -> None:
        frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime")]
        several = stored(frames[0], kind, save_all=True, append_images=frames[1:])
        assert glance(io.BytesIO(several.getvalue())) == "only its first frame is read"
        red, green, blue = decode(several, 3).flatten(1).float().mean(1)
        assert red > 240
        assert max(green, blue) < 15
        assert glance(stored(frames[0], kind)) is None


class TestPillow:
    """An image that is open already is its file, whoever has opened it, and however often it is asked."""

    @pytest.mark.parametrize("channels", [1, 3, 4])
    @pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "deep grey", "deep grey, one hidden", "turned"])
    def test_has_the_pixels_of_its_file(self, photograph: Image.Image, mode: str, channels: int) -> None:
        options: dict[str, object] = {}
        if mode in ("RGBA", "LA"):
            image = photograph.convert(mode)
            image.putalpha(photograph.convert("L"))
        elif mode == "P":
            image, options = photograph.quantize(256), {"transparency": bytes(range(256))}
        elif mode == "turned":
            image, options = photograph, {"exif": Image.Exif()}
            options["exif"][0x0112] = 6
        else:
            image, options = Image.fromarray(RAMP), {"transparency": 257} if "hidden" in mode else {}
        file = stored(image, "PNG", **options).getvalue()
        expected = decode(io.BytesIO(file), channels)
        model = SimpleNamespace(image_channels=channels)
        opened, loaded = Image.open(io.BytesIO(file)), Image.open(io.BytesIO(file))
        loaded.load()
        for given in (opened, opened, loaded):
            assert torch.equal(KIND.decode(given, model), expected)

    def test_grey_of_no_file_is_refused_where_its_white_is_not_known(self) -> None:
        with pytest.raises(ValueError, match="which value is white is not known for an image of mode I;16"):
            KIND.decode(Image.fromarray(RAMP), SimpleNamespace(image_channels=1))


class TestSize:
    def test_more_pixels_than_the_limit_are_refused_before_they_are_decoded(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = stored(Image.new("1", (20000, 8000)), "PNG")
        assert len(file.getvalue()) < 30000
        for look in (glance, lambda file: decode(file, 1)):
            with pytest.raises(ValueError, match=r"20000 × 8000 pixels are more than 89,478,485; LEXEL_MAX_PIXELS"):
                look(io.BytesIO(file.getvalue()))
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1 << 20)  # restored after the test
        monkeypatch.setenv(MAX_PIXELS, "160000000")
        assert glance(io.BytesIO(file.getvalue())) is None

    def test_the_limit_is_pillows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        file = stored(Image.new("1", (30, 10)), "PNG").getvalue()
        for limit, refused in ((299, True), (100, True), (300, False), (None, False)):
            monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
            if refused:
                with pytest.raises(ValueError, match="pixels"):
                    decode(io.BytesIO(file), 1)
            else:
                assert decode(io.BytesIO(file), 1).shape == (1, 10, 30)

    @pytest.mark.parametrize("value", ["many", "-1", "0", ""])
    def test_a_limit_that_is_no_number_is_refused(
        self, value: str, photographs: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(MAX_PIXELS, value)
        with pytest.raises(ValueError, match="LEXEL_MAX_PIXELS must be a whole number"):
            open_images(photographs)


class Stubborn(ImageFile.ImageFile):
    """A format whose decoder fails as its file says."""

    format = "STUBBORN"
    error: Exception = EOFError()
    late = True

    def _open(self) -> None:
        self._mode, self._size = "RGB", (4, 4)
        if not self.late:
            raise self.error

    def load(self) -> None:
        raise self.error


@pytest.fixture
def stubborn() -> Iterator[type[Stubborn]]:
    Image.init()
    Image.register_open("STUBBORN", Stubborn, lambda head: head.startswith(b"STUBBORN"))
    yield Stubborn
    Image.ID.remove("STUBBORN")
    del Image.OPEN["STUBBORN"]


@pytest.mark.parametrize(
    "error",
    [
        *(struct.error("unpack"), EOFError(), OverflowError("too large"), zlib.error("Error -3"), MemoryError()),
        *(SyntaxError("broken"), TypeError("None"), KeyError(5), IndexError(), AttributeError("x"), AssertionError()),
        *(
            RecursionError("deep"),
            ZeroDivisionError(),
            RuntimeError("a\nb"),
            UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"),
        ),
        *(NotImplementedError(), OSError(5, "Input/output error"), Image.DecompressionBombError("bomb"), Exception()),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("late", [True, False])
def test_whatever_a_decoder_raises_is_a_reason_to_skip_one_file(
    tmp_path: Path, photographs: Path, stubborn: type[Stubborn], error: Exception, late: bool
) -> None:
    stubborn.error, stubborn.late = error, late
    (tmp_path / "a.png").write_bytes(b"STUBBORN")
    (tmp_path / "b.webp").write_bytes((photographs / "coffee.webp").read_bytes())
    images = open_images(tmp_path)
    assert [index for index, _ in images.readable(range(2))] == [1]
    (reason,) = images.skipped.values()
    assert reason
    assert "\n" not in reason
    with pytest.raises(ValueError, match=r"a\.png cannot be read: "):
        images.read(0)


def test_heic_is_named_with_what_to_do(tmp_path: Path) -> None:
    """What telephones write is an image, whatever its reader knows."""
    file = tmp_path / "IMG_1.JPG"
    file.write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    with pytest.raises(ValueError, match="HEIC, which cannot be read; save it as JPEG or PNG"):
        decode(file, 3)
    with pytest.raises(ValueError, match="HEIC"):
        decode(io.BytesIO(file.read_bytes()), 3)
    assert is_image(file)


def test_no_other_program_is_started(tmp_path: Path) -> None:
    (tmp_path / "a.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n")
    with pytest.raises(ValueError, match="not an image"):
        open_images(tmp_path / "a.eps").read(0)
