"""One page that shows a trained model: how good it is, what its codes are, and how they came to be."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import math
import platform
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import lexel
from lexel._core.console import track
from lexel._core.files import refuse_existing, written_beside
from lexel.data.images import Images, open_images, psnr, to_pixels
from lexel.data.pictures import centre, coloured, heat_map
from lexel.metrics import CodeUsage, Usage
from lexel.models import VQVAE
from lexel.quantizers import MultiScaleResidualQuantizer, VectorQuantizer
from lexel.report.codes import choices, code_table, on_a_plane, ordinary, reach, swaps
from lexel.runs import CONFIG, ENVIRONMENT, METRICS, MODEL, REPORT, load_model

try:
    import yaml
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from PIL import Image
except ImportError as error:
    raise ImportError("lexel.report needs more than the library: pip install 'lexel[train]'") from error

__all__ = ["write_report"]

MARK = '<meta name="generator" content="Lexel">'  # by which a report is known, and may be replaced
SIDE = 384  # of the part of each image that is looked at
POSITIONS = 1 << 18  # so many codes say enough about their frequencies
SHOWN = 4  # images, and three times as many small ones
BOOKS = 8  # codebooks that are shown
MOST_CODES, UNUSED = 16384, 48  # of all of them
PATCHES = 2_000_000  # pixels of all their patches: from there on they are made smaller
MOST_ROWS = 1000
SMALL = 128  # pixels: sides of small images
SIMILAR, FREQUENT, NEIGHBOURS = 4, 4, 8
BOARD = 16  # side of the grid on which codes can be changed
# What the changes may cost: positions decoded for them, and pixels kept.
DECODED, KEPT = 600_000, 8_000_000
HEALTHY = 0.9  # of the codes in use
COLLAPSED = 0.1  # of the possible perplexity, as in lexel.audit


@dataclass
class _Looked:
    """What the model makes of images: pictures of the first few, figures over all.

    Attributes:
        usages: of each codebook.
        originals: of the first few, float32 `(C, H, W)`.
        grids: their indices.
        decoded: their reconstructions.
        ratios: the PSNR of every image.
        positions: how many were encoded.
        pixels: how many the images have.
    """

    usages: list[Usage]
    originals: list[Tensor] = field(default_factory=list)
    grids: list[Tensor] = field(default_factory=list)
    decoded: list[Tensor] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    positions: int = 0
    pixels: int = 0

    def error(self, number: int) -> Tensor:
        """Absolute error of each pixel of an image, over its channels."""
        return (self.originals[number] - self.decoded[number]).abs().mean(0)


@torch.no_grad()
def write_report(
    run: Path, out: Path | None = None, data: str | Path | None = None, *, overwrite: bool = False
) -> Path:
    """Write a self-contained HTML page about a run, or about a saved model.

    Args:
        run: folder of a run, or of a saved model.
        out: the file to write; report.html in `run` by default.
        data: images to show the model on, as `lexel.data.images.open_images` takes it; by default those of training.
        overwrite: replace `out` even if it is something else than a report.

    Returns:
        The file.

    Raises:
        FileNotFoundError: there is no model in `run`, or no images at `data`.
        FileExistsError: `out` exists, is no report, and `overwrite` is not set.
        ValueError: there is no readable image, no data is known, or a file of the run is malformed.
    """
    out = run / REPORT if out is None else out
    if not _is_report(out):
        refuse_existing(out, overwrite=overwrite)
    model = load_model(run)
    text, config = _config(run)
    rows, facts = _metrics(run), _facts(run)
    trained_on = config.get("data")
    if data is None and trained_on is None:
        raise ValueError(f"{run} does not say which images it was trained on; give some with --data")
    source = Path(str(trained_on if data is None else data))
    images = open_images(source, model.image_channels)
    looked = _look(model, images)
    codes = [usage.compute() for usage in looked.usages]

    # Not the very highest: a single bright edge would leave everything else black.
    errors = torch.cat([looked.error(number).flatten() for number in range(len(looked.grids))])
    highest = max(float(errors.kthvalue(math.ceil(0.998 * len(errors))).values), 1 / 255)
    every = max(1, -(-len(rows) // MOST_ROWS))
    kept_rows = rows[(len(rows) - 1) % every :: every]
    single = model.quantizer.positionwise
    data_of_page: dict[str, Any] = {
        "metrics": {name: [row.get(name) for row in kept_rows] for name in (rows[0] if rows else ())},
        "books": _books(model, looked) if single else [],
    }
    html = _render(
        mark=MARK,
        title=run.resolve().name,
        model=model,
        single=single,
        codebooks=codes,
        health=_health(model, codes, looked.positions, rows),
        tiles=_tiles(model, looked, codes, rows, config),
        source=source.name,
        trained_on_these=trained_on is not None and source.resolve() == Path(str(trained_on)).resolve(),
        looked_at=len(looked.ratios),
        images=len(images),
        positions=looked.positions,
        highest=highest,
        gallery=[
            {
                "psnr": looked.ratios[number],
                "small": max(looked.originals[number].shape[1:]) <= SMALL,
                "original": _data_uri(to_pixels(looked.originals[number])),
                "reconstruction": _data_uri(to_pixels(looked.decoded[number])),
                "error": _data_uri(heat_map(looked.error(number), highest)),
            }
            for number in range(len(looked.grids))
        ],
        data=data_of_page,
        rows=len(rows),
        every=every,
        config=text,
        facts=facts,
    )
    with written_beside(out) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return out


def _render(**page: Any) -> str:
    here = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(here), autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    environment.filters["count_of"] = _many
    script = (here / "page.js").read_text(encoding="utf-8")
    # The page's own policy: this script and no other, images and styles of the page itself, no network.
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("page.html").render(
        **page, script=script, digest=digest, style=(here / "page.css").read_text(encoding="utf-8")
    )


def _is_report(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return MARK.encode() in file.read(1000)


def _config(run: Path) -> tuple[str, dict[str, Any]]:
    """Return the text of a run's configuration and what it says; nothing for a model alone."""
    path = run / CONFIG
    if not path.is_file():
        return "", {}
    text = path.read_text(encoding="utf-8")
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    return text, config if isinstance(config, dict) else {}


def _metrics(run: Path) -> list[dict[str, float | None]]:
    """Return the rows of a run's metrics; none for a model alone. None stands for what is missing or not finite."""
    path = run / METRICS
    if not path.is_file():
        return []

    def number(cell: str | None) -> float | None:
        value = float(cell) if cell else math.nan
        return value if math.isfinite(value) else None

    with path.open(newline="", encoding="utf-8") as file:
        try:
            rows = [{name: number(cell) for name, cell in row.items()} for row in csv.DictReader(file)]
        except (TypeError, ValueError, csv.Error) as error:
            raise ValueError(f"{path} is malformed: {error}") from error
    if any(row.get("step") is None for row in rows):
        raise ValueError(f"{path} is malformed: a row has no step")
    return rows


def _facts(run: Path) -> dict[str, str]:
    """Return with what and when a run was made."""
    path = run / ENVIRONMENT
    facts: dict[str, str] = {}
    if path.is_file():
        try:
            facts = {str(name): str(value) for name, value in json.loads(path.read_text(encoding="utf-8")).items()}
        except (AttributeError, ValueError) as error:
            raise ValueError(f"{path} cannot be read: {error}") from error
    saved = (run / MODEL if (run / MODEL).is_dir() else run).stat().st_mtime
    facts["model saved"] = f"{datetime.fromtimestamp(saved, timezone.utc):%Y-%m-%d %H:%M} UTC"
    here = f"{platform.python_version()}, {platform.system()} {platform.machine()}"
    facts["this page"] = f"Lexel {lexel.__version__}, PyTorch {torch.__version__}, Python {here}"
    return facts


def _look(model: VQVAE, images: Images) -> _Looked:
    """Encode and decode the middle of images, evenly spread over all, until there are codes enough."""
    quantizer, f = model.quantizer, model.downsampling
    height, width = SIDE, SIDE
    if isinstance(quantizer, MultiScaleResidualQuantizer):  # takes maps of one size only
        height, width = (f * side for side in quantizer.sizes[-1])
    looked = _Looked([Usage(size) for size in quantizer.codebook_sizes])
    _, first = next(images.readable(range(len(images))))
    count = min(len(images), max(SHOWN, POSITIONS * f**2 // centre(first, height, width)[0].numel()))
    indices = [number * len(images) // count for number in range(count)]
    for _, image in images.readable(track(indices, "looking at images")):
        original = centre(image, height, width).float() / 255
        grid = model.encode(original[None])
        decoded = model.decode(grid, (original.shape[1], original.shape[2]))[0]
        looked.ratios.append(psnr(original, to_pixels(decoded).float() / 255))
        for usage, own in zip(looked.usages, grid.reshape(-1, len(looked.usages)).unbind(1), strict=True):
            usage.update(own)
        if len(looked.grids) < (3 * SHOWN if max(original.shape[1:]) <= SMALL else SHOWN):
            looked.originals.append(original)
            looked.grids.append(grid[0])
            looked.decoded.append(decoded)
        looked.positions += -(-original.shape[1] // f) * -(-original.shape[2] // f)
        looked.pixels += original[0].numel()
        if looked.positions > 2 * POSITIONS:  # the first image was a small one
            break
    return looked


def _tiles(
    model: VQVAE, looked: _Looked, codes: list[CodeUsage], rows: list[dict[str, float | None]], config: dict[str, Any]
) -> list[tuple[str, str, str]]:
    """Return the figures of the headline: name, value, and what it means."""
    several = len(codes) > 1
    used, size = sum(each.used for each in codes), sum(each.num_embeddings for each in codes)
    entropy = sum(each.entropy for each in codes) / len(codes)
    per_pixel = looked.positions / looked.pixels
    coded = sum(each.total * each.bits_per_code for each in codes) / looked.pixels
    perplexity = math.exp(entropy)
    of = f"of {_many(size)}, {_share(used / size)}"
    tiles = [
        ("PSNR", f"{sum(looked.ratios) / len(looked.ratios):.1f} dB", _counted(len(looked.ratios), "image") + ", mean"),
        ("codes in use", f"{used:,}", of + (f" in {len(codes)} codebooks" if several else "")),
        (
            "perplexity",
            f"{perplexity:,.0f}" if perplexity >= 100 else f"{perplexity:.1f}",
            "geometric mean over codebooks" if several else "codes used alike would carry as much",
        ),
        ("bits per pixel", f"{per_pixel * model.quantizer.bits:.2f}", f"{coded:.2f} with an entropy coder"),
    ]
    if rows:
        steps = int(rows[-1]["step"] or 0) + 1
        batch = config.get("batch_size")
        tiles.append(("steps", f"{steps:,}", f"batches of {batch}" if isinstance(batch, int) else "of training"))
    return tiles


def _health(
    model: VQVAE, codes: list[CodeUsage], positions: int, rows: list[dict[str, float | None]]
) -> tuple[str, str, str]:
    """Return how the codebooks are: a word for the style, one to read, and a sentence or two."""
    several = len(codes) > 1
    collapsed = [
        number
        for number, each in enumerate(codes)
        if each.perplexity < COLLAPSED * min(each.num_embeddings, each.total) and each.num_embeddings > 2
    ]
    if collapsed:
        worst = codes[collapsed[0]]
        which = f"Codebook {collapsed[0] + 1}" if several else "The codebook"
        sentence = f"{which} has collapsed: only {worst.used:,} of {_many(worst.num_embeddings)} codes in use, "
        sentence += f"worth no more than {math.ceil(worst.perplexity):,} used alike."
        if any(isinstance(part, VectorQuantizer) for part in model.modules()):
            sentence += (
                " Codes that start where the data is (KMeansStart) and come back to life (Revival) prevent that."
            )
        return "bad", "Collapsed", sentence
    used, size = sum(each.used for each in codes), sum(each.num_embeddings for each in codes)
    whole = f"all {len(codes)} codebooks" if several else "the codebook"
    if used == size:
        return "good", "Healthy", f"All {size:,} codes{f' of {whole}' if several else ''} are in use."
    if any(each.num_embeddings > each.total for each in codes):
        return (
            "good",
            "Too many codes to judge by use",
            f"{used:,} different codes of {_many(size)} occur; {positions:,} positions could not use them all.",
        )
    sentence = f"{used:,} of {size:,} codes of {whole} are in use on these images ({_share(used / size)})."
    trained = rows[-1].get("usage") if rows else None
    if trained is not None:
        first, last = [-1, *(int(row["step"] or 0) for row in rows)][-2:]
        sentence += f" Over the last {_counted(last - first, 'step')} of training, {_share(trained)} were."
    healthy = max(used / size, trained or 0) >= HEALTHY
    return ("good", "Healthy", sentence) if healthy else ("fair", "Worth a look", sentence)


def _books(model: VQVAE, looked: _Looked) -> list[dict[str, Any]]:
    """Return what the page shows of each codebook."""
    others = ordinary(model, looked.grids) if model.quantizer.index_shape else None
    books = min(len(looked.usages), BOOKS)
    board = _board(model, looked.grids[0], books)
    return [_codes(model, looked, board, others, book, books) for book in range(books)]


def _board(model: VQVAE, grid: Tensor, books: int) -> dict[str, Any]:
    """Return the part of the first image whose tokens can be changed, as large as `books` codebooks can afford."""
    radius, f, shape = reach(model), model.downsampling, grid.shape[:2]
    window = math.prod(min(side, 4 * radius + 1) for side in shape)
    affordable = min(DECODED // window, KEPT // ((2 * radius + 1) * f) ** 2) // books
    side = min(BOARD, *shape, max(1, math.isqrt(affordable // (SIMILAR + FREQUENT))))
    whole = to_pixels(model.decode(grid[None]))[0]
    top, left = _liveliest(whole, side, f)
    picture = whole[:, top * f : (top + side) * f, left * f : (left + side) * f]
    return {"side": side, "top": top, "left": left, "factor": f, "reach": radius, "picture": _data_uri(picture)}


def _codes(
    model: VQVAE, looked: _Looked, board: dict[str, Any], others: Tensor | None, book: int, books: int
) -> dict[str, Any]:
    """Return what the page shows of one of `books` codebooks, and of putting a code in another's place."""
    grids = [grid if others is None else grid[..., book] for grid in looked.grids]
    side, top, left, f = (board[name] for name in ("side", "top", "left", "factor"))
    own = grids[0][top : top + side, left : left + side].flatten()
    chosen, counts = looked.usages[book].counts()

    most = MOST_CODES // books
    table = code_table(model, chosen, counts, others, book, most=most, unused=UNUSED, keep=own)
    xy, share = on_a_plane(table.vectors)
    offered = choices(table, table.rows(own), SIMILAR, FREQUENT)
    places = torch.cartesian_prod(torch.arange(top, top + side), torch.arange(left, left + side))
    changes = swaps(model, looked.grids[0], places, table.indices[offered], board["reach"], book)
    # One column for each of the board's; below each other the choices of each of its rows.
    changes = changes.reshape(side, side, *changes.shape[1:]).transpose(1, 2).flatten(0, 2)
    patches, small = table.patches, min(32, math.isqrt(PATCHES // books // len(table.patches)))
    if f > small:
        patches = F.adaptive_avg_pool2d(patches.float(), small).round().byte()
    columns = math.isqrt(len(patches) - 1) + 1
    return {
        "codes": {
            "index": [str(index) for index in table.indices.tolist()],  # JavaScript's numbers end at 2^53
            "count": table.counts.tolist(),
            "near": table.nearest(torch.arange(len(table.indices)), NEIGHBOURS).tolist(),
            "xy": [[float(f"{value:.4g}") for value in point] for point in xy.tolist()],
            "total": int(counts.sum()),
            "used": len(chosen),
            "of": str(model.quantizer.codebook_sizes[book]),
        },
        "share": share,
        "atlas": {"columns": columns, "picture": _data_uri(_tiled(patches, columns))},
        "grids": [table.rows(grid).tolist() for grid in grids],
        "board": {
            **board,
            "similar": min(SIMILAR, offered.shape[1]),
            "codes": table.rows(own).tolist(),
            "choices": offered.tolist(),
            "changes": _data_uri(_tiled(changes, side)) if offered.numel() else "",
        },
    }


def _liveliest(pixels: Tensor, side: int, f: int) -> tuple[int, int]:
    """Return row and column of the square of positions whose pixels differ most."""
    grey = pixels.float().mean(0, keepdim=True)
    mean, square = (F.avg_pool2d(values[None], side * f, f)[0, 0] for values in (grey, grey.square()))
    row, column = divmod(int((square - mean.square()).argmax()), mean.shape[1])
    return row, column


def _tiled(pictures: Tensor, columns: int) -> Tensor:
    """Put pictures `(n, C, h, w)` side by side, row by row, as one."""
    n, c, h, w = pictures.shape
    filled = torch.cat([pictures, pictures.new_zeros(-n % columns, c, h, w)])
    return filled.reshape(-1, columns, c, h, w).permute(2, 0, 3, 1, 4).reshape(c, -1, columns * w)


def _data_uri(pixels: Tensor) -> str:
    """Return uint8 `(C, H, W)` as the address of a picture, without loss."""
    file = io.BytesIO()
    Image.fromarray(coloured(pixels).movedim(0, -1).numpy()).save(file, "WEBP", lossless=True, method=3)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def _share(share: float) -> str:
    """Return a share in percent: never 100 % of what is not all, nor 0 % of what is not none."""
    percent = 100 * share
    if percent in (0, 100) or 0.1 <= percent <= 99.9:
        return f"{percent:.3g} %" if percent < 99 else f"{percent:.1f} %" if percent < 100 else "100 %"
    return "< 0.1 %" if percent < 1 else "> 99.9 %"


def _many(number: int) -> str:
    return f"{number:,}" if number < 10**9 else f"2^{math.log2(number):.0f}"


def _counted(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'s' * (number != 1)}"
