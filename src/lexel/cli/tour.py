"""The command that shows what Lexel is for: `lexel tour`."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import Namespace

from lexel._core.arguments import Parser
from lexel._core.console import results
from lexel.cli.common import Command, command_parser


def tour_parser() -> Parser:
    """Parse `lexel tour`."""
    parser = command_parser(
        "Photographs and Fashion-MNIST become codes, tokens, a prior, new pictures and files; a page shows each step."
    )
    parser.add_argument("--out", type=str, default="runs/tour", help="folder to write into; finished steps are kept")
    parser.add_argument("--fashion-mnist", type=str | None, help="folder of Fashion-MNIST's four files")
    parser.add_argument("--effort", type=float, default=1.0, help="a factor for how long everything is trained")
    return parser


def tour(settings: Namespace) -> int:
    """Take the tour."""
    from lexel.tour import FASHION, run_tour

    page = run_tour(Path(settings.out), Path(settings.fashion_mnist or FASHION), effort=settings.effort)
    results.print(f"the tour's page: {page}", soft_wrap=True)
    return 0


COMMANDS = {"tour": Command(tour_parser, tour)}
