"""Many keys for statements that take a bounded number of them.

Called by adapters that read rows by their keys. Invariant: each key is in exactly one step, and
steps are in the order of their keys, so a statement is prepared for few lengths.
"""

from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from typing import Any

from sqlalchemy import Row, Select
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql import ColumnElement

from lowtide.limits import STORE_KEYS_PER_STATEMENT


def in_steps(keys: Collection[str], places: int = 1) -> Iterator[Sequence[str]]:
    """The keys, each once, in steps that fit one statement. `places`: how often the statement
    names each of them."""
    ordered, size = sorted(set(keys)), STORE_KEYS_PER_STATEMENT // places
    for first in range(0, len(ordered), size):
        yield ordered[first : first + size]


async def rows_of(
    conn: AsyncConnection, chosen: Select[Any], column: ColumnElement[Any], keys: Collection[str]
) -> AsyncIterator[Row[Any]]:
    """Those of the rows `chosen` that have one of the keys in that column."""
    for some in in_steps(keys):
        for row in await conn.execute(chosen.where(column.in_(some))):
            yield row
