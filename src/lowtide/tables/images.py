"""The image of a row: an address, a path or the bytes themselves, as what a request holds.

Invariant: a file of this machine is sent only if it begins as images do, so that a table from
another person cannot make other files be sent.
"""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from lowtide.limits import TABLE_IMAGE_BYTES_MAX
from lowtide.tables.prompts import RowFault

_PASSED_ON: Final = ("http://", "https://", "data:image/")
_MAGIC: Final[Mapping[bytes, str]] = {
    b"\x89PNG\r\n\x1a\n": "png",
    b"\xff\xd8\xff": "jpeg",
    b"GIF87a": "gif",
    b"GIF89a": "gif",
    b"BM": "bmp",
}


def image_url(value: Any, folder: Path | None) -> str | None:
    """The URL for a request; None for a row without an image. `folder`: where relative paths start,
    the table's own; None where there are no files. Raises RowFault."""
    if isinstance(value, Mapping):  # as Hugging Face data sets have it
        value = value.get("bytes") or value.get("path")
    if value is None or value == "":
        return None
    if isinstance(value, bytes):
        return _data_url(value, "The image")
    if not isinstance(value, str):
        raise RowFault(f"The image column holds {type(value).__name__}, no path, URL or bytes.")
    if value.startswith(_PASSED_ON):
        return value
    if folder is None:
        raise RowFault("The image is a path; a table in a bucket needs URLs.")
    try:
        with (folder / value).open("rb") as stream:
            content = stream.read(TABLE_IMAGE_BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise RowFault(f"The image {value} cannot be read: {reason}.") from None
    return _data_url(content, f"The image {value}")


def _data_url(content: bytes, what: str) -> str:
    if len(content) > TABLE_IMAGE_BYTES_MAX:
        raise RowFault(f"{what} has more than {TABLE_IMAGE_BYTES_MAX:,} bytes; send a URL.")
    kind = next((kind for magic, kind in _MAGIC.items() if content.startswith(magic)), None)
    if kind is None and content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        kind = "webp"
    if kind is None:
        raise RowFault(f"{what} is no PNG, JPEG, GIF, BMP or WebP.")
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
