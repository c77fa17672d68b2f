"""Damaged and hostile compressed files: each must be refused, in a line and without much memory.

As a program it takes how many: `python -m tests.tokens.fuzz_compressed 10000`.
"""

from __future__ import annotations

import random
import resource
import sys
import zlib
from collections import Counter

import torch

import lexel
from lexel.models import VQVAE
from lexel.tokens import decompress
from lexel.tokens.compressed import CRC_BYTES, HEADER_BYTES, compress_indices

MEMORY = 512 << 20  # bytes by which memory may grow


def small_model(seed: int = 0) -> VQVAE:
    torch.manual_seed(seed)
    return VQVAE(lexel.VectorQuantizer(300, 4), hidden_channels=8, residual_layers=0).eval()


def whole_files(model: VQVAE) -> list[bytes]:
    """One file coded by contexts and one of indices as they are."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(300, (9, 14), generator=generator)
    even = torch.arange(9)[:, None] // 3 + torch.arange(14) // 4
    return [compress_indices(model, indices, (36, 55)) for indices in (noise, even)]


def resealed(data: bytes) -> bytes:
    """Return a file with a checksum that fits."""
    body = data[:-CRC_BYTES]
    return body + zlib.crc32(body).to_bytes(CRC_BYTES, "big")


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Return a file with something wrong with it; half of them have a checksum that fits."""
    changed = bytearray(data)
    kind = rng.randrange(6)
    if kind == 0:
        return bytes(changed[: rng.randrange(len(changed))])
    if kind == 1:
        changed += rng.randbytes(rng.randint(1, 40))
    elif kind == 2:
        changed = bytearray(rng.choice([b"LXL", b""]) + rng.randbytes(rng.randrange(80)))
    elif kind == 3:  # sizes of all lengths
        changed[HEADER_BYTES : HEADER_BYTES + 2] = rng.randbytes(rng.randrange(12))
    else:
        for _ in range(rng.choice([1, 1, 1, 5])):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return resealed(bytes(changed)) if rng.random() < 0.5 else bytes(changed)


def outcome(model: VQVAE, data: bytes) -> str:
    """Say what becomes of a file: `refused`, or `read` with the size of the image."""
    try:
        image = decompress(model, data)
    except ValueError as error:
        return "refused" if str(error) and "\n" not in str(error) else f"not in a line: {error}"
    assert image.dtype == torch.uint8
    return f"read {image.shape[1]}"


def fuzz(count: int, seed: int = 0) -> Counter[str]:
    """Read so many damaged files; return how often each outcome occurred.

    A file whose checksum does not fit is refused. One whose checksum fits may be read: it says something else.
    """
    rng, model = random.Random(seed), small_model()
    whole = whole_files(model)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes: Counter[str] = Counter()
    for _ in range(count):
        data = damaged(rng.choice(whole), rng)
        found = outcome(model, data)
        if data not in whole and data != resealed(data):
            assert found == "refused", data.hex()
        assert found.startswith(("read", "refused")), found
        outcomes[found.split()[0]] += 1
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < MEMORY, grown
    return outcomes


if __name__ == "__main__":
    sys.stdout.write(f"{dict(fuzz(int(sys.argv[1])))}\n")
