"""Commands that turn examples into codes and back: `lexel encode` and `lexel decode`."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import Namespace

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
from lexel.data.images import listed
from lexel.tokens import decode_images, encode_images, read_tokens, write_tokens


def encode_parser() -> Parser:
    """Parse `lexel encode`."""
    parser = command_parser("Turn images into a file of codes.")
    add_model(parser)
    parser.add_argument("data", type=str, help=DATA)
    parser.add_argument("--out", type=str, required=True, help="file to write, .safetensors")
    add_strict(parser)
    add_overwrite(parser)
    add_computing(parser)
    add_plugin(parser)
    return parser


def encode(settings: Namespace) -> int:
    """Turn images into codes."""
    out = Path(settings.out)
    refuse_existing(out, overwrite=settings.overwrite, folder=False)
    tokens, skipped = encode_images(
        loaded(settings), settings.data, strict=settings.strict, batch_size=settings.batch_size
    )
    write_tokens(out, tokens)
    if skipped:
        messages.print(f"skipped {listed(skipped)}", style="yellow", soft_wrap=True)
    count = sum(grid.numel() for grid in tokens.indices.values())
    results.print(f"{len(tokens.indices)} images as {count:,} tokens in {out}", soft_wrap=True)
    return 0


def decode_parser() -> Parser:
    """Parse `lexel decode`."""
    parser = command_parser("Turn a file of codes back into images.")
    add_model(parser)
    parser.add_argument("codes", type=str, help="file that lexel encode wrote")
    parser.add_argument("--out", type=str, required=True, help="folder to write the images into")
    add_overwrite(parser)
    add_computing(parser)
    add_plugin(parser)
    return parser


def decode(settings: Namespace) -> int:
    """Turn codes into images."""
    out = Path(settings.out)
    refuse_existing(out, overwrite=settings.overwrite, folder=True)
    tokens = read_tokens(Path(settings.codes))
    decode_images(loaded(settings), tokens, out, batch_size=settings.batch_size)
    results.print(f"{len(tokens.indices)} images in {out}", soft_wrap=True)
    return 0


COMMANDS = {
    "encode": Command(encode_parser, encode),
    "decode": Command(decode_parser, decode),
}
