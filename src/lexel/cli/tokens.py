"""Commands of tokens: `lexel encode`, `lexel decode` and `lexel stats`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Literal

from jsonargparse import Namespace
from rich.table import Table

from lexel import tokens
from lexel._core.arguments import Parser
from lexel._core.console import messages, results
from lexel._core.files import is_one_file, refuse_existing
from lexel.cli.common import (
    DATA,
    Command,
    add_columns,
    add_computing,
    add_model,
    add_overwrite,
    add_plugin,
    add_strict,
    columns_of,
    command_parser,
    loaded,
)
from lexel.data.examples import listed
from lexel.data.kind import kind_of
from lexel.models import Autoencoder
from lexel.tokens.encode import Engine, here
from lexel.tokens.formats import FORMATS
from lexel.tokens.identify import identify
from lexel.tokens.ids import UNIQUE
from lexel.tokens.shards import SHARD_SIZE
from lexel.tokens.unique import SHOWN_ITEMS


def encode_parser() -> Parser:
    """Parse `lexel encode`."""
    parser = command_parser("Turn examples into a data set of tokens; after a kill, the same command goes on.")
    add_model(parser)
    parser.add_argument("data", type=str, help=DATA)
    parser.add_argument(
        "--out",
        type=str,
        required=True,
        help="folder to write, or one file that ends in .safetensors; for the IDs of vectors one in .parquet",
    )
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
    parser.add_argument(
        "--ray",
        type=str,
        nargs="?",
        const="local",
        metavar="ADDRESS",
        help="encode on a Ray cluster, by default one that is started on this machine; needs lexel[ray]",
    )
    parser.add_argument(
        "--unique",
        type=Literal[UNIQUE] | None,
        help="no two items get one ID: suffix adds a code that counts them, nearest-free takes the nearest free tuple",
    )
    parser.add_argument(
        "--append", type=str, metavar="IDS", help="file of IDs to which those of further items are added"
    )
    add_columns(parser)
    add_strict(parser)
    add_overwrite(parser)
    add_computing(parser)
    add_plugin(parser)
    return parser


def encode(settings: Namespace) -> int:
    """Turn examples into tokens."""
    out, data = Path(settings.out), Path(settings.data)
    one_file = is_one_file(settings.out, (".parquet", ".safetensors"))
    refuse_existing(out, overwrite=True, folder=not one_file)  # what exists, tokens.encode looks at
    model = loaded(settings)
    if out.suffix == ".parquet":
        return _encode_ids(model, settings)
    for name in ("unique", "append"):
        if settings[name] is not None:
            raise ValueError(f"--{name} is for IDs: give --out a file that ends in .parquet")
    engine: Engine = here
    if settings.ray is not None:
        from lexel.tokens.cluster import on_ray

        if out.suffix == ".safetensors":
            raise ValueError(f"--ray writes a folder, not one file: {out}")
        data, out = data.absolute(), out.absolute()  # a worker may stand elsewhere
        engine = on_ray(settings.ray, device=settings.device)
    found = tokens.encode(
        model,
        data,
        out,
        form=settings.format,
        labels=settings.labels,
        shard_size=settings.shard_size,
        batch_size=settings.batch_size,
        strict=settings.strict,
        overwrite=settings.overwrite,
        engine=engine,
        columns=columns_of(settings),
    )
    if found.skipped:
        messages.print(f"skipped {listed(found.skipped)}", style="yellow", soft_wrap=True)
    results.print(f"{found.examples:,} {model.kind} as {found.tokens:,} tokens in {out}", soft_wrap=True)
    return 0


def _encode_ids(model: Autoencoder, settings: Namespace) -> int:
    """Turn vectors into IDs."""
    for name, usual in (("ray", None), ("format", "parquet"), ("shard_size", SHARD_SIZE)):
        if settings[name] != usual:
            raise ValueError(f"--{name.replace('_', '-')} is for a folder of tokens, not for one file: {settings.out}")
    ids, figures = identify(
        model,
        settings.data,
        settings.out,
        unique=settings.unique,
        append=settings.append,
        labels=settings.labels,
        overwrite=settings.overwrite,
        columns=columns_of(settings),
    )
    if figures is not None:
        apart = f"{figures.moved:,} moved to another, which raised the distortion by {figures.cost:.2%}"
        if figures.method == "suffix":
            apart = "a further code tells them apart"
        results.print(
            f"{figures.shared:,} of {figures.items:,} items shared an ID, up to {figures.largest:,} one; {apart}",
            soft_wrap=True,
        )
        for items in figures.duplicate_items:
            more = " …" if len(items) == SHOWN_ITEMS else ""
            results.print(f"of equal vectors: {', '.join(map(str, items))}{more}", soft_wrap=True)
    results.print(
        f"the IDs of {len(ids):,} items, of {ids.codes.shape[1]} codes each, in {settings.out}", soft_wrap=True
    )
    return 0


def decode_parser() -> Parser:
    """Parse `lexel decode`."""
    parser = command_parser("Turn tokens back into the examples that they came from.")
    add_model(parser)
    parser.add_argument("tokens", type=str, help="folder or file that lexel encode wrote")
    parser.add_argument(
        "--out",
        type=str,
        required=True,
        help="folder to write into; for vectors .npy, or .npz or .parquet, which hold the names of their items, too",
    )
    parser.add_argument("--names", type=str, nargs="+", help="which examples to decode; all by default")
    add_overwrite(parser)
    add_computing(parser)
    add_plugin(parser)
    return parser


def decode(settings: Namespace) -> int:
    """Turn tokens into examples."""
    out = Path(settings.out)
    refuse_existing(out, overwrite=settings.overwrite, folder=None if out.suffix else True)
    found = tokens.open(settings.tokens)
    one_file = is_one_file(settings.out, kind_of(found).endings)
    refuse_existing(out, overwrite=settings.overwrite, folder=not one_file)
    count = tokens.decode(
        loaded(settings),
        found,
        out,
        batch_size=settings.batch_size,
        names=settings.names,
        overwrite=settings.overwrite,
    )
    results.print(f"{count:,} {found.kind} in {out}", soft_wrap=True)
    return 0


def stats_parser() -> Parser:
    """Parse `lexel stats`."""
    parser = command_parser("Count codes and their neighbours in a set of tokens, and find duplicates.")
    parser.add_argument("tokens", type=str, help="folder or file that lexel encode wrote")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return parser


def stats(settings: Namespace) -> int:
    """Count tokens."""
    found = tokens.statistics_of(tokens.open(settings.tokens))
    if settings.json:
        results.print_json(json.dumps(found.as_json()))
        return 0
    table = Table(show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_row(found.kind, f"{found.examples:,}")
    table.add_row("tokens", f"{found.tokens:,}")
    table.add_row("duplicates", f"{found.duplicates:,}")
    for number, book in enumerate(found.codebooks, 1):
        if len(found.codebooks) > 1:
            table.add_section()
            table.add_row(f"codebook {number}", "")
        share = book.used / book.num_embeddings
        table.add_row("codes in use", f"{book.used:,} of {book.num_embeddings:,} ({share:.1%})")
        table.add_row("perplexity", f"{book.perplexity:.1f}")
        table.add_row("bits per token, of fixed length", f"{math.log2(book.num_embeddings):.3f}")
        table.add_row("entropy", f"{book.entropy:.3f} bits")
        for where, entropy in (("on the left", book.left_entropy), ("above", book.up_entropy)):
            if math.isfinite(entropy):  # vectors have no neighbours
                table.add_row(f"entropy, given the token {where}", f"{entropy:.3f} bits")
        for title, codes in (("most used", book.most_used), ("least used", book.least_used)):
            table.add_row(f"{title} (times)", ", ".join(f"{code} ({count:,})" for code, count in codes[:5]))
    results.print(table)
    for names in found.duplicate_names:
        results.print(f"the same tokens: {', '.join(names[:5])}{' …' if len(names) > 5 else ''}", soft_wrap=True)
    return 0


COMMANDS = {
    "encode": Command(encode_parser, encode),
    "decode": Command(decode_parser, decode),
    "stats": Command(stats_parser, stats),
}
