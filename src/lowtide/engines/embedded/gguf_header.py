"""Reads the few facts about a GGUF file that decide how its engine is started.

Called by engine.py before it starts a child and by models/source.py before it accepts a file, so
that a file which is no GGUF is refused in a millisecond and by name. Reads the metadata up to the
vocabulary and stops there: the cost does not grow with the model. Source: the GGUF specification.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from lowtide import limits

_MAGIC: Final = b"GGUF"
_SCALARS: Final = {  # value type -> struct format
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
_STRING: Final = 8
_ARRAY: Final = 9

_Value = int | float | str | None


class GgufError(Exception):
    """The file is not a GGUF that can be used; the text says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """`context_tokens`: what the model was trained for. `pools`: it was made for embeddings."""

    architecture: str
    context_tokens: int
    pools: bool


def read_header(path: Path) -> GgufHeader:
    """Reads the metadata of `path`. Raises GgufError, and OSError when it cannot be opened."""
    with path.open("rb") as file:
        try:
            facts = _read_facts(file)
        except struct.error as exc:
            raise GgufError("the file ends inside its header") from exc
    architecture = str(facts.get("general.architecture", ""))
    context = facts.get(f"{architecture}.context_length")
    if not isinstance(context, int) or context < 1:
        raise GgufError("the header names no architecture and context length")
    pooling = facts.get(f"{architecture}.pooling_type", 0)
    return GgufHeader(architecture, context, pools=bool(pooling))


def _read_facts(file: BinaryIO) -> dict[str, _Value]:
    if file.read(len(_MAGIC)) != _MAGIC:
        raise GgufError("it does not start with the letters GGUF")
    version, _tensors, pairs = struct.unpack("<IQQ", file.read(20))
    if not 2 <= version <= 3:
        raise GgufError(f"GGUF version {version} is not supported, only 2 and 3 are")
    facts: dict[str, _Value] = {}
    for _ in range(pairs):
        key = _read_string(file)
        if key.startswith(
            "tokenizer."
        ):  # the vocabulary: megabytes, and all we need comes before it
            break
        facts[key] = _read_value(file, _read_int(file, "<I"))
    return facts


def _read_value(file: BinaryIO, kind: int) -> _Value:
    """One value; an array is skipped and comes back as None."""
    if kind in _SCALARS:
        return _read_scalar(file, _SCALARS[kind])
    if kind == _STRING:
        return _read_string(file)
    if kind != _ARRAY:
        raise GgufError(f"value type {kind} does not exist")
    _skip_array(file)
    return None


def _skip_array(file: BinaryIO) -> None:
    element, count = _read_int(file, "<I"), _read_int(file, "<Q")
    if element == _STRING:
        for _ in range(count):
            _read_string(file)
        return
    if element not in _SCALARS:
        raise GgufError(f"arrays of value type {element} do not exist")
    size = count * struct.calcsize(_SCALARS[element])
    if size > limits.GGUF_ARRAY_BYTES_MAX:
        raise GgufError(f"an array of {size} bytes in the header: the file is damaged")
    file.seek(size, 1)


def _read_string(file: BinaryIO) -> str:
    size = _read_int(file, "<Q")
    if size > limits.GGUF_STRING_BYTES_MAX:
        raise GgufError(f"a text of {size} bytes in the header: the file is damaged")
    return file.read(size).decode("utf-8", errors="replace")


def _read_scalar(file: BinaryIO, layout: str) -> int | float:
    value: int | float = struct.unpack(layout, file.read(struct.calcsize(layout)))[0]
    return value


def _read_int(file: BinaryIO, layout: str) -> int:
    return int(_read_scalar(file, layout))
