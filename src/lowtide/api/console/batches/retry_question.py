"""What is asked before many batches are retried: how many lines of which batches run again.

A retry over a selection may be far larger than a person thinks, and it takes room of the token
limit, so it is counted before anything runs. Invariants: a batch that a person cancelled is retried
only where that is said; of batches over one input the newest stands for all, because a retry covers
what all of them left.
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from starlette.requests import Request

from lowtide.api.middleware.caller import identify, services_of
from lowtide.core.batches.batch import Batch


class Retriable(NamedTuple):
    """A batch that can be retried. `lines`: how many run again; None: all of a file that was not
    read when its batch ended."""

    batch_id: str
    name: str
    lines: int | None


class RetryQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """`ended`: batches that ended by themselves; `cancelled`: those that a person cancelled.
    `left_out`: how many of the chosen have nothing to run again, or cannot be retried now."""

    ended: Sequence[Retriable]
    cancelled: Sequence[Retriable]
    left_out: int

    @property
    def ended_lines(self) -> int:
        return _lines(self.ended)

    @property
    def cancelled_lines(self) -> int:
        return _lines(self.cancelled)


async def question_of(
    request: Request, batches: Sequence[Batch], name_of: dict[str, str]
) -> RetryQuestion:
    """Counts what a retry of these batches, newest first, would run. Changes nothing."""
    ended: list[Retriable] = []
    cancelled: list[Retriable] = []
    newest = sorted(batches, key=lambda each: each.created_at, reverse=True)
    counts = await services_of(request).retries.counts(
        identify(request).project_id, list(filter(_may_have_rest, newest))
    )
    for batch in newest:
        if batch.id in counts:  # others are left out; their own pages say why
            kind = cancelled if batch.status == "cancelled" else ended
            kind.append(Retriable(batch.id, name_of[batch.id], counts[batch.id]))
    left_out = len(batches) - len(ended) - len(cancelled)
    return RetryQuestion(ended=ended, cancelled=cancelled, left_out=left_out)


def _may_have_rest(batch: Batch) -> bool:
    """Spares the store a look at each batch that succeeded or goes on."""
    if batch.ended_at is None or batch.status == "failed":
        return False
    return batch.counts.completed < batch.counts.total or not batch.counts.total


def _lines(batches: Sequence[Retriable]) -> int:
    return sum(each.lines or 0 for each in batches)
