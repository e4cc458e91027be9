"""Bounds on what reading one request body costs, whatever its bytes are.

Validation asks for lines; the routes of live and flex calls ask for bodies, before they read them.
All later steps make a Python object for each top-level field of a body, and validation one for each
message, so a body of a million of either would stop the event loop for seconds. Invariants: what
passes has at most BODY_FIELDS_MAX fields, BODY_OBJECTS_MAX objects and BODY_VALUES_MAX values in
lists, and telling so costs less than reading the body, whose usual sizes need no decoding at all.
"""

from contextlib import suppress
from typing import Any, Final

import msgspec

from lowtide import limits
from lowtide.core.errors import LowtideError

BOUNDED_BYTES: Final = 5 * limits.BODY_FIELDS_MAX
"""No text as short as this has too much of anything: a field is `"":0,` at least."""
_SLICE_BYTES: Final = limits.MIB  # counted in a millisecond, while which other threads wait


class _Name(str):
    """The name of a field, which is counted as it is read."""

    __slots__ = ()


class _Line(msgspec.Struct):
    body: dict[_Name, msgspec.Raw]


class _TooMany(ValueError):
    """msgspec passes it on within an error of its own, and stops."""


def body_excess(body: bytes) -> str | None:
    """What the body, a JSON object, has too much of, as words behind "has"; None: nothing.

    Of bytes that are no JSON object, too, and then it may be None: the reader says what is wrong.
    """
    return _excess(body, dict[_Name, msgspec.Raw])


def line_excess(line: bytes) -> str | None:
    """The same of the body in a line of a batch."""
    return _excess(line, _Line)


def require_bounded(body: bytes) -> None:
    """Raises LowtideError `invalid_request` for a body that has too much of something."""
    if (excess := body_excess(body)) is not None:
        raise LowtideError("invalid_request", f"The request body has {excess}.")


def _excess(text: bytes, type: Any) -> str | None:
    if len(text) <= BOUNDED_BYTES:
        return None
    if _has_more(text, b":", limits.BODY_FIELDS_MAX) and _has_many_fields(text, type):
        return f"more than {limits.BODY_FIELDS_MAX} fields at its top level"
    if _has_more(text, b"{", limits.BODY_OBJECTS_MAX):
        return f"more than {limits.BODY_OBJECTS_MAX:,} opening braces"
    if _has_more(text, b",", limits.BODY_VALUES_MAX):
        return f"more than {limits.BODY_VALUES_MAX:,} commas"
    return None


def _has_more(text: bytes, mark: bytes, most: int) -> bool:
    """Whether the mark, one byte, is in the text more than `most` times."""
    if len(text) <= most:
        return False
    count = 0
    for start in range(0, len(text), _SLICE_BYTES):
        count += text.count(mark, start, start + _SLICE_BYTES)
        if count > most:
            return True
    return False


def _has_many_fields(text: bytes, type: Any) -> bool:
    fields = 0

    def count(_: Any, name: str) -> _Name:
        nonlocal fields
        fields += 1
        if fields > limits.BODY_FIELDS_MAX:
            raise _TooMany
        return _Name(name)

    # Too many, or no object: the reader says what is wrong.
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        msgspec.json.decode(text, type=type, dec_hook=count)
    return fields > limits.BODY_FIELDS_MAX
