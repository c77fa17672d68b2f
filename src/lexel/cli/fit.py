"""Command that fits a quantizer to vectors: `lexel fit`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import SUPPRESS, Namespace

import lexel
from lexel._core.arguments import Parser
from lexel.cli.common import VECTORS, Command, add_columns, add_overwrite, add_plugin, columns_of, command_parser
from lexel.cli.runs import begin, required, settings_of
from lexel.models import VectorAutoencoder
from lexel.training.settings import VectorSettings

if TYPE_CHECKING:
    from lexel.training.task import Task

HIDDEN = [512, 256, 128]  # layers and latents of TIGER (arXiv 2305.05065, §4.1)
LATENT = 32
# Options that not every method has.
OPTIONS = (
    *("codebooks", "balanced", "beam_size", "rotation", "iterations", "tolerance"),
    *("hidden_channels", "latent_dim"),
)


def fit_parser() -> Parser:
    """Parse `lexel fit`."""
    parser = command_parser("Fit a quantizer to vectors, such as embeddings, until it has converged.")
    parser.add_argument("--config", action="config", help="file of settings, as config.yaml in a run's folder")
    # No default: None would replace the path that --config names.
    parser.add_argument("data", nargs="?", type=str, default=SUPPRESS, help=VECTORS)
    parser.add_argument("--out", type=str, help="folder to write the run into")
    parser.add_argument(
        "--method",
        type=Literal["residual", "product", "flat", "rqvae"],
        default="residual",
        help="residual: each codebook codes what those before left over; product: each codes a group of the numbers; "
        "flat: k-means; rqvae: a residual quantizer between an encoder and a decoder that are trained with it",
    )
    parser.add_argument(
        "--codebooks",
        type=int | None,
        help="how many codes an ID has: 3, for product 2, for flat 1; or as many as there are K",
    )
    parser.add_argument("--num_embeddings", type=int | list[int], default=256, help="K, or one for each codebook")
    parser.add_argument("--unit", type=bool, default=False, help="let only the directions of vectors count")
    parser.add_argument("--balanced", type=bool | None, help="give all codes of a level about equally many vectors")
    parser.add_argument("--beam_size", type=int | None, help="partial sums that encoding keeps for each vector")
    parser.add_argument(
        "--rotation", type=bool | None, help="of product: rotate the vectors first (OPQ); done by default"
    )
    parser.add_argument("--iterations", type=int | None, help="the most of a fit; it stops where it has converged")
    parser.add_argument("--tolerance", type=float | None, help="a fit has converged when the error falls by less")
    parser.add_argument("--hidden_channels", type=list[int] | None, help=f"of rqvae: widths of its layers, {HIDDEN}")
    parser.add_argument("--latent_dim", type=int | None, help=f"of rqvae: D of its codes, {LATENT}")
    parser.add_class_arguments(VectorSettings)
    add_columns(parser)
    add_overwrite(parser)
    add_plugin(parser)
    return parser


def fit_task(settings: Namespace) -> Task:
    """Return what `lexel fit` fits."""
    import torch

    from lexel.data.vectors import open_vectors
    from lexel.training.fitting import FitTask
    from lexel.training.vectors import VectorTask

    data, own = required(settings, "data", "DATA"), settings_of(settings, VectorSettings)
    columns, unit = columns_of(settings), settings.unit
    vectors = open_vectors(data, columns=columns, unit=unit)
    held_out = open_vectors(own.validation, vectors.dim, columns=columns, unit=unit) if own.validation else None
    if settings.method != "rqvae":
        return FitTask(_fit(settings), vectors, own, held_out)
    given = _given(settings, {"codebooks", "beam_size", "hidden_channels", "latent_dim"})
    sizes = settings.num_embeddings
    sizes = [sizes] * given.get("codebooks", 3) if isinstance(sizes, int) else sizes
    dim = given.get("latent_dim", LATENT)
    torch.manual_seed(own.seed)
    stages = [
        lexel.VectorQuantizer(size, dim, learning=lexel.EMA(), upkeep=(lexel.KMeansStart(), lexel.Revival()))
        for size in sizes
    ]
    model = VectorAutoencoder(
        lexel.ResidualQuantizer(stages),
        vectors.dim,
        given.get("hidden_channels", HIDDEN),
        given.get("beam_size", 1),
        settings.unit,
    )
    return VectorTask(model, vectors, own, held_out)


def _fit(settings: Namespace) -> Any:
    """Return the fit that is asked for."""
    from lexel.fit import FlatFit, ProductFit, ResidualFit

    cls: Any = {"residual": ResidualFit, "product": ProductFit, "flat": FlatFit}[settings.method]
    known = {field.name for field in dataclasses.fields(cls)}
    sizes = settings.num_embeddings
    sizes = sizes if isinstance(sizes, int) else tuple(sizes)
    return cls(num_embeddings=sizes, unit=settings.unit, seed=settings.seed, **_given(settings, known))


def _given(settings: Namespace, known: set[str]) -> dict[str, Any]:
    """Return the options of some methods that are given.

    Raises:
        ValueError: one is given that the method does not have.
    """
    given = {name: settings[name] for name in OPTIONS if settings[name] is not None}
    if isinstance(settings.num_embeddings, list) and "codebooks" in known:
        count = given.setdefault("codebooks", len(settings.num_embeddings))
        if count != len(settings.num_embeddings):
            raise ValueError(f"num_embeddings: {settings.num_embeddings} are not those of codebooks: {count}")
    if others := given.keys() - known:
        raise ValueError(f"the method {settings.method} has no {min(others)}")
    return given


def fit(settings: Namespace) -> int:
    """Fit."""
    return begin(settings, COMMANDS["fit"], ("data", "validation"))


COMMANDS = {"fit": Command(fit_parser, fit, fit_task)}
