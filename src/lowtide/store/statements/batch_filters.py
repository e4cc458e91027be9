"""The conditions of a filtered list of batches, for both databases.

Called by store/batches.py. Each is asked of the rows that the index of the list gives in their
order, so a filter reads at most the batches of one project, and stops when a page is full.
"""

import re
from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, String, func, not_, select, type_coerce

from lowtide.core.batches.batch import STEERABLE
from lowtide.core.batches.batch_filter import BatchFilter
from lowtide.store.schema.retry_tables import failure_groups
from lowtide.store.schema.tables import batch_models, batches, files

_PATTERN: Final = re.compile("[/%_]")


def conditions(which: BatchFilter) -> list[ColumnElement[bool]]:
    """What a row of `batches` must meet; empty where all are asked for."""
    wanted: list[ColumnElement[bool]] = []
    if which.statuses:
        wanted.append(batches.c.status.in_(which.statuses))
    if which.is_held is not None:
        is_held = batches.c.holds.is_not(None) & batches.c.status.in_(STEERABLE)
        wanted.append(is_held if which.is_held else not_(is_held))
    if which.created_after is not None:
        wanted.append(batches.c.created_at >= which.created_after)
    if which.created_before is not None:
        wanted.append(batches.c.created_at < which.created_before)
    if which.model:
        mine = batch_models.c.batch_id == batches.c.id
        is_named = _has(batch_models.c.model, which.model)
        wanted.append(select(batch_models.c.model).where(mine, is_named).exists())
    if which.error_code:
        mine = failure_groups.c.batch_id == batches.c.id
        is_code = failure_groups.c.code == which.error_code
        wanted.append(select(failure_groups.c.code).where(mine, is_code).exists())
    if which.text:
        mine = files.c.id == batches.c.input_file_id
        is_in_file = select(files.c.id).where(mine, _has(files.c.filename, which.text)).exists()
        as_stored = msgspec.json.encode(which.text).decode()[1:-1]  # metadata is JSON text
        is_in_metadata = _has(type_coerce(batches.c.metadata, String), as_stored)
        is_id = batches.c.id.startswith(which.text, autoescape=True)
        wanted.append(is_in_metadata | is_id | is_in_file)
    return wanted


def _has(column: Any, part: str) -> ColumnElement[bool]:
    """Whether the column has that part, whatever the case of its letters, as far as the database
    knows letters: both sides are lowered there.
    """
    plain = _PATTERN.sub(r"/\g<0>", part)
    return func.lower(column).like(func.lower(f"%{plain}%"), escape="/")
