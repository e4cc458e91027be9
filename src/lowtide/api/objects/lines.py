"""Lines of a batch's results with their requests, a page at a time. No vendor has this object."""

from typing import Literal

import msgspec


class LineObject(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a result file. `place` counts from 0 in the file, `line` from 1 in the input.

    `result` and `request` are the lines themselves; null for one that is larger than a page shows
    (`bytes` says how large), and for a request that is no longer kept or not known yet.
    """

    place: int
    line: int | None
    bytes: int
    result: msgspec.Raw | None
    request: msgspec.Raw | None


class LinePage(msgspec.Struct, frozen=True, kw_only=True):
    """`total`: lines that the file has by now. `in_input_order`: the batch has ended."""

    object: Literal["list"] = "list"
    data: list[LineObject]
    total: int
    has_more: bool
    in_input_order: bool
