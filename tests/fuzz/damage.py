"""Damage to files: blows that any bytes can take, and changes to what JSON, YAML, safetensors and archives say."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

import yaml

BLOWS = ("cut", "bits", "bytes", "splice", "repeat", "erase", "zero", "ones", "nest")
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 3, 1.5, 1e308, float("nan"), float("inf"), 1 << 31, 10**30, -(10**30)),
    *("", "x", "lexel.EMA", "os.system", "../../a", "a\nb", "\0", "1e9", [], {}, [[]], {"class_path": "lexel.EMA"}),
)


def damaged(name: str, content: bytes, other: bytes, chance: random.Random) -> tuple[bytes, bool]:
    """Damage a file, and say whether the damage was done by somebody who knows its format and mended its checksums."""
    change = CHANGES.get(PurePath(name).suffix)
    if change is not None and chance.random() < 0.5:
        try:
            return change(content, other, chance)
        except (ValueError, LookupError, yaml.YAMLError, zipfile.BadZipFile):  # hostile already
            pass
    return struck(content, other, chance), False


def struck(content: bytes, other: bytes, chance: random.Random) -> bytes:
    """Cut, flip, splice, repeat or erase a part of a file; one to three times."""
    data = bytearray(content)
    for _ in range(chance.randint(1, 3)):
        # Headers are short and matter most: every other blow falls there.
        end = min(len(data), 200) if chance.random() < 0.5 else len(data)
        start, length = chance.randrange(end + 1), chance.choice([1, 2, 4, 16, 300])
        blow = chance.choice(BLOWS)
        if blow == "cut":
            del data[start:]
        elif blow == "bits" and start < len(data):
            data[start] ^= 1 << chance.randrange(8)
        elif blow == "bytes":
            data[start : start + length] = chance.randbytes(length)
        elif blow == "splice" and other:
            place = chance.randrange(len(other))
            data[start : start + length] = other[place : place + length]
        elif blow == "repeat":
            data[start:start] = data[start : start + length]
        elif blow == "erase":
            del data[start : start + length]
        elif blow == "nest":
            data[start:start] = chance.choice([b"[", b'{"a":', b"("]) * 5000
        else:
            data[start : start + length] = (b"\0" if blow == "zero" else b"\xff") * length
    return bytes(data)


def changed_tree(value: Any, chance: random.Random) -> Any:
    """Replace, remove, rename, repeat or exchange something in nested dictionaries and lists."""
    if isinstance(value, str) and value.startswith("{") and chance.random() < 0.9:  # JSON within JSON
        return json.dumps(changed_tree(json.loads(value), chance))
    if not isinstance(value, (dict, list)) or not value or chance.random() < 0.05:
        return chance.choice(ODD_VALUES)
    if isinstance(value, list):
        place = chance.randrange(len(value))
        return chance.choice(
            (
                [*value[:place], changed_tree(value[place], chance), *value[place + 1 :]],
                [*value[:place], changed_tree(value[place], chance), *value[place + 1 :]],
                value[:place] + value[place + 1 :],
                value * 2,
            )
        )
    key, other = chance.choice(list(value)), chance.choice(list(value))
    way = chance.random()
    if way < 0.7:
        return {**value, key: changed_tree(value[key], chance)}
    if way < 0.8:
        return {name: item for name, item in value.items() if name != key}
    if way < 0.9:
        return {(f"{name}x" if name == key else name): item for name, item in value.items()}
    return {**value, key: value[other], other: value[key]}


def _changed_json(content: bytes, other: bytes, chance: random.Random) -> tuple[bytes, bool]:
    return json.dumps(changed_tree(json.loads(content), chance)).encode(), False


def _changed_yaml(content: bytes, other: bytes, chance: random.Random) -> tuple[bytes, bool]:
    return yaml.safe_dump(changed_tree(yaml.safe_load(content), chance)).encode(), False


def _changed_safetensors(content: bytes, other: bytes, chance: random.Random) -> tuple[bytes, bool]:
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(changed_tree(json.loads(content[8:end]), chance)).encode()
    return len(header).to_bytes(8, "little") + header + content[end:], False


def _changed_archive(content: bytes, other: bytes, chance: random.Random) -> tuple[bytes, bool]:
    """Damage a file within an archive, whose checksum then is that of the damaged file."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w") as new:
        infos = old.infolist()
        victim = chance.choice(infos)
        for info in infos:
            own = old.read(info)
            new.writestr(info, struck(own, other, chance) if info is victim else own)
    return file.getvalue(), True


CHANGES: dict[str, Callable[[bytes, bytes, random.Random], tuple[bytes, bool]]] = {
    ".json": _changed_json,
    ".yaml": _changed_yaml,
    ".safetensors": _changed_safetensors,
    **dict.fromkeys((".npz", ".pt", ".ckpt"), _changed_archive),
}
