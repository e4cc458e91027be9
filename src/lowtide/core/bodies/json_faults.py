"""Why a line is no JSON that an engine would read, where that can be said in a sentence.

Called by `line_errors` for lines that do not parse. Pure. Each finding names what stands in the
line and the byte where it does; None where nothing better is known than that it does not parse.
"""

import re
from typing import Final

_ESCAPE: Final = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)
_OUTSIDE: Final = re.compile(rb'"(?:\\.|[^"\\])*"|(-?Infinity|NaN|None|True|False)', re.DOTALL)
_PYTHON: Final = {b"None": "null", b"True": "true", b"False": "false"}
_BOM: Final = b"\xef\xbb\xbf"


def half_character(raw: bytes) -> tuple[str, int] | None:
    """The first escape that is one half of a surrogate pair without the other, and its byte, from
    1. RFC 8259 allows it, and it stands for no character.
    """
    high: re.Match[bytes] | None = None
    for escape in _ESCAPE.finditer(raw):
        code = int(escape[1], 16) if escape[1] else 0
        if high is not None and not (high.end() == escape.start() and 0xDC00 <= code <= 0xDFFF):
            break
        if high is None and 0xDC00 <= code <= 0xDFFF:
            return escape[0].decode(), escape.start() + 1
        high = escape if 0xD800 <= code <= 0xDBFF and high is None else None
    return None if high is None else (high[0].decode(), high.start() + 1)


def what_is_wrong(raw: bytes) -> str | None:
    """A sentence on why the line does not parse."""
    if raw.startswith(_BOM):
        return "It begins with a byte order mark, which may only stand at the start of a file."
    if raw.lstrip().startswith(b"{'"):
        return "It looks like a Python dict: write it with json.dumps, not with str or repr."
    word = next((token for token in _OUTSIDE.finditer(raw) if token[1]), None)
    if word is not None:
        name, place = word[1].decode(), word.start() + 1
        instead = _PYTHON.get(word[1])
        remedy = f"in JSON it is {instead}" if instead else "write null or a number"
        return f"{name} (byte {place} of the line) is no JSON value: {remedy}."
    if raw.rstrip().endswith(b"},"):
        return "It ends with a comma: lines of JSONL stand by themselves."
    return None
