"""Commands about one image as one small file: `lexel compress`, `lexel decompress` and `lexel bench`."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace
from rich.table import Table

from lexel._core.arguments import Parser
from lexel._core.console import messages, results
from lexel._core.files import refuse_existing, require_file, written_beside
from lexel._core.places import instead
from lexel.cli.common import (
    IMAGES,
    Command,
    add_device,
    add_model,
    add_overwrite,
    add_plugin,
    add_strict,
    command_parser,
    loaded,
)
from lexel.data.images import listed, open_images, save_image
from lexel.models import require_images

if TYPE_CHECKING:
    from lexel.tokens.bench import Bench


def compress_parser() -> Parser:
    """Parse `lexel compress`."""
    parser = command_parser("Turn one image into one small file.")
    add_model(parser)
    parser.add_argument("image", type=str, help="the image")
    parser.add_argument("--out", type=str, required=True, help="file to write, .lxl")
    add_device(parser)
    add_overwrite(parser)
    add_plugin(parser)
    return parser


def compress(settings: Namespace) -> int:
    """Compress an image."""
    from lexel.tokens import compress

    out = Path(settings.out)
    refuse_existing(out, overwrite=settings.overwrite)
    model = require_images(loaded(settings), "lexel compress")
    images = open_images(settings.image, model.image_channels)
    if len(images) != 1:
        raise ValueError(f"{settings.image} holds {len(images)} images, give one; lexel encode takes many")
    image = images.read(0)
    data = compress(model, image)
    with written_beside(out) as temporary:
        temporary.write_bytes(data)
    bits = 8 * len(data) / (image.shape[1] * image.shape[2])
    results.print(f"{len(data):,} bytes, {bits:.4f} bits per pixel, in {out}", soft_wrap=True)
    return 0


def decompress_parser() -> Parser:
    """Parse `lexel decompress`."""
    parser = command_parser("Turn a file that lexel compress wrote back into an image.")
    add_model(parser)
    parser.add_argument("file", type=str, help="the file, .lxl")
    parser.add_argument("--out", type=str, required=True, help="image to write, such as .png")
    add_device(parser)
    add_overwrite(parser)
    add_plugin(parser)
    return parser


def decompress(settings: Namespace) -> int:
    """Decompress a file."""
    from lexel.tokens import decompress

    out, file = Path(settings.out), Path(settings.file)
    refuse_existing(out, overwrite=settings.overwrite)
    if file.is_dir():
        raise ValueError(f"{file} is not a file that lexel compress wrote{instead(file)}")
    require_file(file)
    model = require_images(loaded(settings), "lexel decompress")
    try:
        image = decompress(model, file.read_bytes())
    except ValueError as error:
        raise ValueError(f"{file}: {error}{instead(file)}") from error
    with written_beside(out) as temporary:
        save_image(image, temporary)
    results.print(f"{image.shape[2]} × {image.shape[1]} pixels in {out}", soft_wrap=True)
    return 0


def bench_parser() -> Parser:
    """Parse `lexel bench`."""
    parser = command_parser("Compare compressed files with JPEG, WebP and AVIF: bits per pixel, PSNR and MS-SSIM.")
    add_model(parser)
    parser.add_argument("data", type=str, help=IMAGES)
    parser.add_argument("--json", action="store_true", help="print CompressAI's JSON, a list of codecs, not a table")
    parser.add_argument("--plot", type=str, help="picture to write, such as .png or .svg")
    add_device(parser)
    add_strict(parser)
    add_overwrite(parser)
    add_plugin(parser)
    return parser


def bench(settings: Namespace) -> int:
    """Measure rate and distortion."""
    from lexel.tokens.bench import bench, draw

    plot = None if settings.plot is None else Path(settings.plot)
    if plot is not None:
        refuse_existing(plot, overwrite=settings.overwrite)
    found = bench(require_images(loaded(settings), "lexel bench"), settings.data, strict=settings.strict)
    if plot is not None:
        with written_beside(plot) as temporary:
            draw(found, temporary)
    if settings.json:
        results.print_json(json.dumps([dataclasses.asdict(curve) for curve in found.curves]))
    else:
        _print_bench(found)
    if found.skipped:
        messages.print(f"skipped {listed(found.skipped)}", style="yellow", soft_wrap=True)
    return 0


def _print_bench(found: Bench) -> None:
    """Print each codec's points, and how each compares at Lexel's rate and quality."""
    table = Table("codec", "quality", "bits per pixel", "PSNR", "MS-SSIM")
    for column in table.columns[1:]:
        column.justify = "right"
    for curve in found.curves:
        own = curve.results
        for place, bits in enumerate(own["bpp"]):
            quality = f"{own['quality'][place]:.0f}" if "quality" in own else ""
            figures = _shown(own["psnr-rgb"][place], ".2f"), _shown(own["ms-ssim-rgb"][place], ".4f")
            table.add_row("" if place else curve.name, quality, f"{bits:.4f}", *figures)
        table.add_section()
    results.print(table)
    lexel, *others = found.curves
    bits, ratio = lexel.results["bpp"][0], lexel.results["psnr-rgb"][0]
    similarity = lexel.results["ms-ssim-rgb"][0]
    table = Table("codec", "PSNR at Lexel's bits", "Lexel's bits / its, same PSNR", "same MS-SSIM")
    for column in table.columns[1:]:
        column.justify = "right"
    for curve in others:
        same = curve.at("bpp", bits, "psnr-rgb")
        table.add_row(
            curve.name,
            _shown(same, ".2f"),
            _shown(bits / curve.at("psnr-rgb", ratio, "bpp"), ".2f"),
            "–" if math.isnan(similarity) else _shown(bits / curve.at("ms-ssim-rgb", similarity, "bpp"), ".2f"),
        )
    results.print(table)
    parts = {name: lexel.results[f"bpp-{name}"][0] for name in ("uniform", "unigram", "indices")}
    frame = bits - parts["indices"]
    results.print(
        f"Indices, bits per pixel: {parts['uniform']:.4f} as they are, {parts['unigram']:.4f} with an ideal code for "
        f"how often each occurs in the image, {parts['indices']:.4f} in the file.",
        soft_wrap=True,
    )
    results.print(
        f"{found.images} images. Header and checksum: {frame:.4f} of Lexel's {bits:.4f} bits per pixel. "
        f"The model, which is in no file: {found.model_bytes:,} bytes.",
        soft_wrap=True,
    )


def _shown(value: float, form: str) -> str:
    return "–" if math.isnan(value) else f"{value:{form}}"


COMMANDS = {
    "compress": Command(compress_parser, compress),
    "decompress": Command(decompress_parser, decompress),
    "bench": Command(bench_parser, bench),
}
