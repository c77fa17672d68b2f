"""Commands that turn examples into tokens and back: `lexel encode` and `lexel decode`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from jsonargparse import Namespace

from lexel import tokens
from lexel._core.arguments import Parser
from lexel._core.console import messages, results
from lexel._core.files import refuse_existing
from lexel.cli.common import (
    DATA,
    Command,
    add_computing,
    add_model,
    add_overwrite,
    add_plugin,
    add_strict,
    command_parser,
    loaded,
)
from lexel.data.examples import listed
from lexel.tokens.formats import FORMATS
from lexel.tokens.shards import SHARD_SIZE


def encode_parser() -> Parser:
    """Parse `lexel encode`."""
    parser = command_parser("Turn examples into a data set of tokens; after a kill, the same command goes on.")
    add_model(parser)
    parser.add_argument("data", type=str, help=DATA)
    parser.add_argument("--out", type=str, required=True, help="folder to write, or one file that ends in .safetensors")
    parser.add_argument("--format", type=Literal[tuple(FORMATS)], default="parquet", help="of the files in the folder")
    parser.add_argument(
        "--labels",
        type=Literal["auto", "folder", "none"],
        default="auto",
        help="auto: the column label of a table; folder: the first folder's name is the class",
    )
    parser.add_argument(
        "--shard_size", type=int, default=SHARD_SIZE, help="how many examples a file of the folder holds"
    )
    add_strict(parser)
    add_overwrite(parser)
    add_computing(parser)
    add_plugin(parser)
    return parser


def encode(settings: Namespace) -> int:
    """Turn examples into tokens."""
    out = Path(settings.out)
    refuse_existing(out, overwrite=True, folder=out.suffix != ".safetensors")  # what exists, tokens.encode looks at
    model = loaded(settings)
    found = tokens.encode(
        model,
        settings.data,
        out,
        form=settings.format,
        labels=settings.labels,
        shard_size=settings.shard_size,
        batch_size=settings.batch_size,
        strict=settings.strict,
        overwrite=settings.overwrite,
    )
    if found.skipped:
        messages.print(f"skipped {listed(found.skipped)}", style="yellow", soft_wrap=True)
    results.print(f"{found.examples:,} {model.kind} as {found.tokens:,} tokens in {out}", soft_wrap=True)
    return 0


def decode_parser() -> Parser:
    """Parse `lexel decode`."""
    parser = command_parser("Turn tokens back into the examples that they came from.")
    add_model(parser)
    parser.add_argument("tokens", type=str, help="folder or file that lexel encode wrote")
    parser.add_argument("--out", type=str, required=True, help="folder to write into")
    parser.add_argument("--names", type=str, nargs="+", help="which examples to decode; all by default")
    add_overwrite(parser)
    add_computing(parser)
    add_plugin(parser)
    return parser


def decode(settings: Namespace) -> int:
    """Turn tokens into examples."""
    out = Path(settings.out)
    refuse_existing(out, overwrite=settings.overwrite, folder=True)
    found = tokens.open(settings.tokens)
    count = tokens.decode(loaded(settings), found, out, batch_size=settings.batch_size, names=settings.names)
    results.print(f"{count:,} {found.kind} in {out}", soft_wrap=True)
    return 0


COMMANDS = {
    "encode": Command(encode_parser, encode),
    "decode": Command(decode_parser, decode),
}
