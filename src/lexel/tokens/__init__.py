"""Token files: the codes of many images, with the images' names and sizes. Needs the extra `lexel[train]`."""

from lexel.tokens.convert import decode_images, encode_images
from lexel.tokens.file import TokenFile, fingerprint, read_tokens, write_tokens

__all__ = ["TokenFile", "decode_images", "encode_images", "fingerprint", "read_tokens", "write_tokens"]
