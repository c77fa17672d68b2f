"""Tokens of many examples: data sets of them, and the ways from examples to tokens and back. Needs `lexel[train]`."""

from lexel.tokens.compressed import compress, context_bits, decompress
from lexel.tokens.decode import decode
from lexel.tokens.encode import Encoded, encode
from lexel.tokens.encoder import Encoder
from lexel.tokens.facts import Facts, facts_of, fingerprint
from lexel.tokens.identify import identify
from lexel.tokens.ids import IDs
from lexel.tokens.open import open_tokens as open  # noqa: A004
from lexel.tokens.quality import IDQuality, quality_of
from lexel.tokens.rows import Row
from lexel.tokens.shards import write_set
from lexel.tokens.statistics import TokenStatistics, statistics_of
from lexel.tokens.token_set import TokenSet
from lexel.tokens.trie import Trie
from lexel.tokens.unique import Uniqueness, duplicates, make_unique

__all__ = [
    "Encoded",
    "Encoder",
    "Facts",
    "IDQuality",
    "IDs",
    "Row",
    "TokenSet",
    "TokenStatistics",
    "Trie",
    "Uniqueness",
    "compress",
    "context_bits",
    "decode",
    "decompress",
    "duplicates",
    "encode",
    "facts_of",
    "fingerprint",
    "identify",
    "make_unique",
    "open",
    "quality_of",
    "statistics_of",
    "write_set",
]
