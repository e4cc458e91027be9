"""What a file that is no JSONL is instead, recognised by how it begins.

Called by the validator, so by the server and `lowtide validate` alike: a file of another kind would
fail with an error for each of its lines, none of which says what is the matter. Pure; looks at the
first FORMAT_HEAD_BYTES. Invariant: nothing is recognised whose first line could be a request.
"""

import re
from typing import Final

import msgspec

from lowtide import limits


class FileFormat(msgspec.Struct, frozen=True):
    """`message`: one sentence that names the kind and says what to do. `line` from 1."""

    message: str
    line: int


_PACKED: Final[tuple[tuple[bytes, str, str], ...]] = (
    (b"\x1f\x8b", "compressed with gzip", "Decompress it (gunzip)"),
    (b"PK\x03\x04", "a ZIP archive or a spreadsheet", "Unpack or export it"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "Decompress it (unzstd)"),
    (b"BZh", "compressed with bzip2", "Decompress it (bunzip2)"),
    (b"\xfd7zXZ\x00", "compressed with xz", "Decompress it (unxz)"),
    (b"PAR1", "Apache Parquet", "Export its rows"),
    (b"ARROW1", "Apache Arrow", "Export its rows"),
    (b"SQLite format 3", "an SQLite database", "Export its rows"),
)
_UTF32: Final = (b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff")
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")
_BOM: Final = b"\xef\xbb\xbf"
_NAME: Final = rb'"?[\w .-]+"?'
_HEADER: Final = re.compile(rb"%b(?:([,;\t])%b)+" % (_NAME, _NAME))
_OPEN_ENDS: Final = (b"{", b"[", b",", b":")
_json: Final = msgspec.json.Decoder(msgspec.Raw)
_objects: Final = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])


def recognise(head: bytes) -> FileFormat | None:
    """What the file is, if its first bytes say that it is no JSONL."""
    if (binary := _binary(head)) is not None:
        return FileFormat(binary, 1)
    text = head.removeprefix(_BOM)
    start = len(text) - len(text.lstrip())
    first, ends, rest = text[start:].partition(b"\n")
    message = _text(first.rstrip(), rest.partition(b"\n")[0].strip(), is_whole=bool(ends))
    return None if message is None else FileFormat(message, text.count(b"\n", 0, start) + 1)


def _binary(head: bytes) -> str | None:
    for magic, kind, remedy in _PACKED:
        if head.startswith(magic):
            return f"The file is {kind}, not JSONL. {remedy} and upload the JSONL."
    if head.startswith(_UTF32):
        return _encoded("UTF-32")
    if head.startswith(_UTF16) or (b"\x00" in head[:2] and len(head[:4].strip(b"\x00")) > 0):
        return _encoded("UTF-16")
    return None


def _encoded(name: str) -> str:
    return f"The file is text in {name}, not UTF-8. Save it as UTF-8 and upload it again."


def _text(first: bytes, second: bytes, *, is_whole: bool) -> str | None:
    """`first` is its first line that is not blank, `second` the one behind it; `is_whole` unless
    the first goes on beyond what is known of it.
    """
    if first.startswith(b"<"):
        return "The file is HTML or XML, not JSONL. Each line must be one request, as JSON."
    if first.startswith(b"[") and _is_array_of_objects(first, second):
        return (
            "The file is one JSON array, not JSONL. Write each of its objects on a line of its own,"
            " without brackets around them and commas between (jq -c '.[]')."
        )
    if first.startswith(b"{") and second and is_whole and _is_open(first):
        return (
            "The file is indented JSON, not JSONL. Write each request on one line, without line"
            " breaks inside (jq -c .)."
        )
    header = _HEADER.fullmatch(first) if is_whole else None
    if header is not None and second.count(header[1]) and not second.startswith(b"{"):
        kind = "tab-separated text" if header[1] == b"\t" else "CSV"
        return f"The file is {kind}, not JSONL. Each line must be one request, as a JSON object."
    return None


def _is_array_of_objects(first: bytes, second: bytes) -> bool:
    """`[`, `[{...` or `[{...}]`; `[1]` is a line like any other that is no object."""
    inside = first[1:].lstrip() or second
    if not inside.startswith(b"{"):
        return False
    try:
        _json.decode(first)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return True  # it goes on behind this line, or behind what is known of it
    return _has_objects(first)


def _has_objects(array: bytes) -> bool:
    try:
        _objects.decode(array)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _is_open(line: bytes) -> bool:
    """A line that ends where JSON must go on, and is not JSON but for that."""
    if not line.endswith(_OPEN_ENDS):
        return False
    try:
        _json.decode(line.removesuffix(b","))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return True
    return False


def head_of(head: bytes, block: bytes) -> bytes:
    """`head` with as much of `block` as belongs to it."""
    return head + block[: limits.FORMAT_HEAD_BYTES - len(head)]
