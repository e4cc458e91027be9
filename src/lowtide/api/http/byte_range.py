"""`Range: bytes=...` of RFC 9110, section 14, for one range."""

import re
from typing import Final

from lowtide.core.errors import LowtideError

_ONE_RANGE: Final = re.compile(r"bytes=\s*([0-9]{0,19})-([0-9]{0,19})\s*")


def parse_range(header: str, size: int) -> tuple[int, int] | None:
    """`(offset, length)` of the requested range; None when the header is to be ignored.

    Anything but one byte range (several ranges, other units, nonsense) is ignored, as the RFC
    allows: the client then gets the whole file. Raises LowtideError `range_not_satisfiable`.
    """
    match = _ONE_RANGE.fullmatch(header.strip())
    if not match or match[0].strip() == "bytes=-":
        return None
    first, last = match[1], match[2]
    if not first:  # the last N bytes
        length = min(int(last), size)
        offset = size - length
    else:
        offset = int(first)
        end = min(int(last), size - 1) if last else size - 1
        if last and int(last) < offset:
            return None
        length = end - offset + 1
    if length <= 0:
        raise LowtideError(
            "range_not_satisfiable", f"{header}: the file has {size} bytes.", "range"
        )
    return offset, length
