"""Let an operation reach its end although its caller was cancelled meanwhile.

Every write of the adapters goes through here. It guards two invariants: a file descriptor is never
closed under a thread that still uses it, and a cancelled write leaves nothing readable, not even
when the cancellation arrived in the instant of publishing. The wait is bounded by one block of disk
I/O or by the time limit of one request.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def shield_to_end(
    work: Coroutine[Any, Any, T], undo: Callable[[T], Coroutine[Any, Any, object]] | None = None
) -> T:
    """Awaits `work` to its end; when cancelled meanwhile, undoes its result by
    `undo`, then raises that."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as caught:
            cancelled = caught
    if cancelled is None:
        return task.result()
    # Asking for the exception also marks it as seen: the caller has left, nobody else will.
    succeeded = not task.cancelled() and task.exception() is None
    if succeeded and undo is not None:
        await shield_to_end(undo(task.result()))
    raise cancelled
