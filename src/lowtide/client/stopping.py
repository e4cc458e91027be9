"""Stopping a run that works in another thread, as Ctrl-C stops one in the main thread.

`amap` and `AsyncClient` work this way. Invariant: a cancelled call leaves no thread behind that
goes on waiting.
"""

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar, cast

_Found = TypeVar("_Found")


class ThreadStop:
    """`pause` is how a run waits; after `request` it ends the run as KeyboardInterrupt does."""

    def __init__(self) -> None:
        self._asked = threading.Event()

    def request(self) -> None:
        """May be called from any thread, and more than once."""
        self._asked.set()

    def pause(self, seconds: float) -> None:
        """Raises KeyboardInterrupt once the stop is requested."""
        if self._asked.wait(seconds):
            raise KeyboardInterrupt


async def in_thread(work: Callable[[], _Found], stop: ThreadStop) -> _Found:
    """What `work` returns or raises, done in a thread. Cancelling requests `stop`, and is over when
    the work is."""

    def run() -> _Found | None:
        try:
            return work()
        except KeyboardInterrupt:  # only after `request`: nobody waits for a result any more
            return None

    task = asyncio.ensure_future(asyncio.to_thread(run))
    try:
        return cast(_Found, await asyncio.shield(task))
    except asyncio.CancelledError:
        stop.request()
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # it was asked for, so asyncio does not complain
        raise
