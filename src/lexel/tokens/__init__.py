"""Token files: the codes of many images, with the images' names and sizes. Needs the extra `lexel[train]`."""

from lexel.tokens.compressed import compress, context_bits, decompress
from lexel.tokens.convert import decode_images, encode_images
from lexel.tokens.file import TokenFile, fingerprint, read_tokens, write_tokens

__all__ = [
    "TokenFile",
    "compress",
    "context_bits",
    "decode_images",
    "decompress",
    "encode_images",
    "fingerprint",
    "read_tokens",
    "write_tokens",
]
