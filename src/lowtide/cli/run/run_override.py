"""One model for every line of an input file, whatever the lines name.

`lowtide run FILE --model NAME` with `--url` or `--server` sends such a copy. A line that is no
request stays as it is: validation will say what is wrong with it.
"""

from pathlib import Path
from typing import BinaryIO

import msgspec

from lowtide.limits import LINE_BYTES_MAX

_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


def override_model(source: Path, target: Path, model: str) -> None:
    """Writes `source` to `target` with each body's `model` replaced."""
    name = msgspec.Raw(msgspec.json.encode(model))
    with source.open("rb") as lines, target.open("wb") as stream:
        _copy(lines, stream, name)


def _copy(lines: BinaryIO, stream: BinaryIO, name: msgspec.Raw) -> None:
    is_whole = True  # the next block begins a line, rather than going on with one beyond any bound
    while block := lines.readline(LINE_BYTES_MAX + 1):
        ends = block.endswith(b"\n")
        stream.write(_with_model(block, name) if is_whole else block)
        is_whole = ends


def _with_model(line: bytes, name: msgspec.Raw) -> bytes:
    try:
        members = _object.decode(line.removeprefix(b"\xef\xbb\xbf"))
        body = _object.decode(members["body"])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError):
        return line
    body["model"] = name
    members["body"] = msgspec.Raw(msgspec.json.encode(body))
    return msgspec.json.encode(members) + b"\n"
