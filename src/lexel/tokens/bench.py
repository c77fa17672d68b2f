"""Rate and distortion of a model's compressed files beside JPEG, WebP and AVIF."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from PIL import Image, features
from torch import Tensor

from lexel._core.console import track
from lexel.data.images import open_images, psnr
from lexel.models import ImageAutoencoder
from lexel.tokens.compressed import compress, decompress, decompress_indices, header_bytes

__all__ = ["Bench", "Curve", "bench", "draw"]

QUALITIES = (1, 5, 10, 20, 30, 50, 70, 90)
CODECS = {"JPEG": ("JPEG", None), "WebP": ("WEBP", "webp"), "AVIF": ("AVIF", "avif")}
MODES = {1: "L", 3: "RGB"}
# MS-SSIM halves an image four times and lays windows of 11 × 11 on the smallest.
MS_SSIM_SIDE = 161


@dataclass(frozen=True)
class Curve:
    """Rate and distortion of one codec, in the form of CompressAI's results.

    Attributes:
        name: the codec.
        description: its version or file.
        results: lists of the same length, a value for each quality, each the mean over images: `bpp` bits per pixel of
            whole files, `psnr-rgb` in dB, `ms-ssim-rgb` over the images of at least 161 × 161 pixels, NaN without any;
            and `quality`. For Lexel instead: `bpp-indices`, bits per pixel without header and checksum; `bpp-uniform`,
            those of indices as they are; `bpp-unigram`, those of an ideal code that knows beforehand how often each
            index occurs in this very image.
    """

    name: str
    description: str
    results: dict[str, list[float]]

    def at(self, figure: str, value: float, wanted: str) -> float:
        """Return `wanted` where `figure` has a value, between points that were measured; NaN beyond them.

        Bits per pixel are interpolated in their logarithm.
        """
        scale = [(math.log if name == "bpp" else float) for name in (figure, wanted)]
        points = sorted(
            (scale[0](x), scale[1](y)) for x, y in zip(self.results[figure], self.results[wanted], strict=True)
        )
        xs, ys = zip(*points, strict=True)
        found = float(np.interp(scale[0](value), xs, ys, left=math.nan, right=math.nan))
        return math.exp(found) if wanted == "bpp" else found


@dataclass(frozen=True)
class Bench:
    """What `bench` measured.

    Attributes:
        curves: Lexel first.
        images: how many images were read.
        model_bytes: size of the model's weights in memory, which who decompresses must have.
        skipped: files that could not be read, with the reason.
    """

    curves: list[Curve]
    images: int
    model_bytes: int
    skipped: dict[str, str]


def bench(model: ImageAutoencoder, data: str | Path, *, strict: bool = False) -> Bench:
    """Compress images with a model and with the codecs of Pillow, and measure the files and what comes out of them.

    Args:
        model: in eval mode, on any device, for grey or colour.
        data: as `lexel.data.images.open_images` takes it.
        strict: refuse data with unreadable files instead of skipping them.

    Raises:
        FileNotFoundError: `data` does not exist.
        ValueError: there is no readable image in `data`, or the model's images are neither grey nor in colour.
    """
    if model.image_channels not in MODES:
        raise ValueError(f"bench: images must have 1 or 3 channels, those of this model have {model.image_channels}")
    codecs = {name: code for name, (code, needs) in CODECS.items() if needs is None or features.check(needs)}
    rows: dict[str, list[list[dict[str, float]]]] = {name: [] for name in ("Lexel", *codecs)}
    images = open_images(data, model.image_channels)
    for _, image in images.readable(track(range(len(images)), "compressing"), strict=strict):
        pixels = image.shape[1] * image.shape[2]
        packed = compress(model, image)
        own = _figures(image, decompress(model, packed), len(packed))
        indices, size = decompress_indices(model, packed)
        bits = {"indices": 8.0 * (len(packed) - header_bytes(size)), **_static_bits(model, indices, size)}
        own.update({f"bpp-{name}": each / pixels for name, each in bits.items()})
        rows["Lexel"].append([own])
        for name, code in codecs.items():
            copies = [_through(image, code, quality) for quality in QUALITIES]
            rows[name].append([_figures(image, copy, size) for copy, size in copies])
    curves = []
    for name, found in rows.items():
        results = {
            figure: [_mean([row[place][figure] for row in found]) for place in range(len(found[0]))]
            for figure in found[0][0]
        }
        if name != "Lexel":
            results["quality"] = list(map(float, QUALITIES))
        description = f"Lexel, {model.num_embeddings} codes" if name == "Lexel" else f"{name}. Pillow {PIL.__version__}"
        curves.append(Curve(name, description, results))
    weights = sum(value.nbytes for value in model.state_dict().values())
    return Bench(curves, len(rows["Lexel"]), weights, images.skipped)


def draw(result: Bench, path: Path) -> None:
    """Draw bits per pixel against PSNR and MS-SSIM, in the format of the path's extension.

    Raises:
        ImportError: matplotlib is missing.
        ValueError: matplotlib does not write this format.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("a plot needs matplotlib: pip install 'lexel[plot]'") from error

    figures = {"psnr-rgb": "PSNR, dB", "ms-ssim-rgb": "MS-SSIM"}
    shown = [name for name in figures if not all(map(math.isnan, result.curves[0].results[name]))]
    page = Figure(figsize=(5.5 * len(shown), 4.2), layout="constrained")
    for axes, figure in zip(page.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        for curve in result.curves:
            style = (
                {"marker": "*", "markersize": 14, "linestyle": "", "color": "black"} if curve.name == "Lexel" else {}
            )
            axes.plot(curve.results["bpp"], curve.results[figure], **{"marker": ".", **style}, label=curve.name)
        axes.set(xscale="log", xlabel="bits per pixel", ylabel=figures[figure])
        axes.grid(alpha=0.3)
        axes.legend()
    page.savefig(path, dpi=120, format=path.suffix.lstrip(".") or "png")


def _through(image: Tensor, code: str, quality: int) -> tuple[Tensor, int]:
    """Return an image after a codec of Pillow, and the size of the file in bytes."""
    mode = MODES[len(image)]
    array = image.movedim(0, -1).numpy()
    file = io.BytesIO()
    Image.fromarray(array[..., 0] if mode == "L" else array).save(file, code, quality=quality)
    with Image.open(file) as opened:
        copy = torch.from_numpy(np.array(opened.convert(mode)))
    return (copy[None] if mode == "L" else copy.movedim(-1, 0)), file.tell()


def _static_bits(model: ImageAutoencoder, indices: Tensor, extent: tuple[int, int]) -> dict[str, float]:
    """Return the bits of indices as they are, and of an ideal code for how often each occurs among them."""
    found = {"uniform": 0.0, "unigram": 0.0}
    sizes = [size for quantizer in model.quantizers for size in quantizer.codebook_sizes]
    for own, size in zip(model.by_codebook(indices[None], extent), sizes, strict=True):
        counts = np.unique(own.numpy(), return_counts=True)[1]
        found["uniform"] += own.numel() * math.log2(size)
        found["unigram"] += float((counts * np.log2(own.numel() / counts)).sum())
    return found


def _figures(image: Tensor, copy: Tensor, size: int) -> dict[str, float]:
    original, other = image.float() / 255, copy.float() / 255
    return {
        "bpp": 8 * size / (image.shape[1] * image.shape[2]),
        "psnr-rgb": psnr(original, other),
        "ms-ssim-rgb": _ms_ssim(original, other) if min(image.shape[1:]) >= MS_SSIM_SIDE else math.nan,
    }


def _ms_ssim(image: Tensor, copy: Tensor) -> float:
    try:
        from torchmetrics.functional.image import multiscale_structural_similarity_index_measure
    except ImportError as error:
        raise ImportError("MS-SSIM needs torchmetrics: pip install 'lexel[train]'") from error
    measure: Callable[..., Any] = multiscale_structural_similarity_index_measure
    return float(measure(copy[None], image[None], data_range=1.0, normalize="relu"))


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
