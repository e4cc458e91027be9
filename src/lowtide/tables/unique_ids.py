"""Whether a column can name the requests: no value twice among the rows that take part.

Invariant: a duplicate is never missed; memory is eight bytes for each row.
"""

from array import array
from collections.abc import Iterator, Sequence
from hashlib import blake2b

import numpy as np

from lowtide.tables.reader import Table
from lowtide.tables.rows import RowCursor


def first_duplicate(table: Table, column: str, numbers: Sequence[int]) -> str | None:
    """A value that two of the rows have; None where there is none. Rows without one do not count.

    Reads the column once, and again only to tell values apart whose digests are the same.
    """
    digests = array("Q", map(_digest, _values(table, column, numbers)))
    ordered = np.sort(np.frombuffer(digests, np.uint64)) if digests else np.empty(0, np.uint64)
    suspects = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
    if not suspects:
        return None
    seen: set[str] = set()
    for value in _values(table, column, numbers):
        if _digest(value) in suspects:
            if value in seen:
                return value
            seen.add(value)
    return None


def _values(table: Table, column: str, numbers: Sequence[int]) -> Iterator[str]:
    cursor = RowCursor(table, (column,), numbers)
    while (row := cursor.next()) is not None:
        value = row.values[column]
        if value is not None and value != "":
            yield str(value)


def _digest(value: str) -> int:
    return int.from_bytes(blake2b(value.encode(), digest_size=8).digest())
