"""Why a batch ended without all its answers, in a line: what lists, pages and reports say. Pure.

What is said, and what is offered, follows from the code of the error: a batch that a limit of its
organization refused has nothing wrong with its file.
"""

from typing import Final

from lowtide import limits
from lowtide.api.console.formats import duration
from lowtide.api.objects.batches import BatchObject
from lowtide.core.batches.batch import PASSING_ERRORS

_MESSAGE_CHARS: Final = 200
"""Characters of the first error in the list: two lines; the batch's page has all of it."""


def ended_because(batch: BatchObject) -> str:
    """Why it failed or expired; empty for any other batch."""
    if batch.status == "expired":
        counts = batch.request_counts
        done = f"{counts.settled - batch.not_run_count:,} of {counts.total:,} requests had run"
        words = f"Its window of {batch.completion_window} ended: " + (
            f"{done}." if counts.total else "its file was not read by then."
        )
        return words + _late(batch)
    if batch.status != "failed" or batch.errors is None or not batch.errors.data:
        return ""
    first = batch.errors.data[0]
    where = "" if first.line is None else f"Line {first.line:,}: "
    message = first.message
    if len(message) > _MESSAGE_CHARS:
        message = f"{message[:_MESSAGE_CHARS].rstrip()}…"
    total = batch.errors_total if isinstance(batch.errors_total, int) else len(batch.errors.data)
    more = f" And {total - 1:,} more." if total > 1 else ""
    return f"{where}{message}{more}"


def has_good_input(batch: BatchObject) -> bool:
    """Whether it failed for a reason that passes, so that its file may be sent again as it is."""
    found = batch.errors.data if batch.errors is not None else ()
    return batch.status == "failed" and any(each.code in PASSING_ERRORS for each in found)


def title_of_errors(batch: BatchObject) -> str:
    """The heading above the errors of the batch as a whole."""
    if batch.status != "failed":
        return "What was lost"  # the plan, the input or a result file, of a batch that ran
    return "Why it failed" if has_good_input(batch) else "What is wrong with the input"


def _late(batch: BatchObject) -> str:
    """Says that nothing ran at the deadline, where the batch was closed much later."""
    closed_at, deadline_at = batch.finalizing_at or batch.expired_at, batch.expires_at
    late_s = 0 if closed_at is None or deadline_at is None else closed_at - deadline_at
    if late_s < limits.CONSOLE_CLOSED_LATE_S:
        return ""
    return f" It was closed {duration(late_s)} after the deadline: no worker ran until then."
