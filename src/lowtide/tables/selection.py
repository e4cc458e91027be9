"""Which rows of a table take part: all, the first few, or a fixed sample. Pure.

Invariant: the same table and the same options choose the same rows, in the order of the table, so
that a run goes on with what it began with.
"""

import random
from collections.abc import Sequence

from lowtide.limits import TABLE_SAMPLE_MAX
from lowtide.tables.errors import TableError

_SEED = 20


def select_rows(rows: int, limit: int | None, sample: int | None) -> Sequence[int]:
    """Row numbers from 0, rising. `limit`: the first so many; `sample`: so many of those, drawn
    evenly. Raises TableError."""
    among = rows if limit is None else min(limit, rows)
    if sample is None or sample >= among:
        return range(among)
    if sample > TABLE_SAMPLE_MAX:
        raise TableError(
            f"A sample of {sample:,} rows is too large; {TABLE_SAMPLE_MAX:,} at most.",
            "Use --limit, or no limit at all.",
        )
    return sorted(random.Random(_SEED).sample(range(among), sample))
