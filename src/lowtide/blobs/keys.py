"""Which keys and prefixes the adapters accept; every public method of an adapter asks here first.

Guards the invariant that no key leads out of the folder or bucket prefix that the adapter was
given, nor into the names that the adapters keep for themselves, which all start with a dot.
"""

import re

# No part starts with a dot, so `.`, `..` and the adapters' own folders cannot be named.
_SEGMENT = r"[A-Za-z0-9_-][A-Za-z0-9._-]*"
_KEY = re.compile(rf"{_SEGMENT}(/{_SEGMENT})*")
_PREFIX = re.compile(rf"({_SEGMENT}/)*")


def check_key(key: str) -> str:
    """The key itself; ValueError when it is not of the shape that ports/blobs.py allows."""
    if _KEY.fullmatch(key) is None:
        raise ValueError(
            f"{key!r} is no blob key: letters, digits, '-', '_' and '.' between single slashes, and"
            " no part may start with a dot"
        )
    return key


def check_prefix(prefix: str) -> str:
    """The prefix itself: empty, or folders that end in a slash; ValueError otherwise."""
    if _PREFIX.fullmatch(prefix) is None:
        raise ValueError(
            f"{prefix!r} is no blob prefix: it is empty or a folder such as 'segments/'"
        )
    return prefix


def check_range(offset: int, length: int | None) -> None:
    """ValueError for a negative offset or length."""
    if offset < 0 or (length is not None and length < 0):
        raise ValueError(f"no such range: offset {offset}, length {length}")
