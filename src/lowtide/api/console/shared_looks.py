"""One look at a page for all streams that show it to the same session.

Twenty open lists of batches would ask the store and render the same twenty times. Called by
`live_pages`. Invariants: a look is shared only where all that it depends on is the same, which
`LookKey` names; it is no older than `CONSOLE_LOOK_SHARED_S`; it goes on when a reader leaves.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from lowtide import limits


class LookKey(NamedTuple):
    """`session`: its CSRF token, which stands in the forms of the page. `host`: as the browser
    named this server, for the addresses that the page prints."""

    session: str
    host: str
    query: str


class ShownPart(NamedTuple):
    """The content of one element as an event, and the digest of it."""

    element: str
    digest: bytes
    event: bytes


Look = Sequence[ShownPart]


class SharedLooks:
    """The looks of one process, by what they show. At most as many are kept as streams are open."""

    def __init__(self) -> None:
        self._looks: dict[LookKey, tuple[float, asyncio.Task[Look]]] = {}

    async def get(self, key: LookKey, look: Callable[[], Awaitable[Look]]) -> Look:
        """A look that is new enough, or a new one. Raises what `look` raises."""
        now = asyncio.get_running_loop().time()
        known = self._looks.get(key)
        if known is None or now - known[0] >= limits.CONSOLE_LOOK_SHARED_S:
            self._forget_old(now)
            task = asyncio.ensure_future(look())
            task.add_done_callback(_seen)
            known = self._looks[key] = (now, task)
        return await asyncio.shield(known[1])

    def _forget_old(self, now: float) -> None:
        old = [
            key
            for key, (at, task) in self._looks.items()
            if now - at >= limits.CONSOLE_LOOK_SHARED_S and task.done()
        ]
        for key in old:
            del self._looks[key]


def _seen(task: "asyncio.Task[Look]") -> None:
    """Takes note of a failure: those who asked for the look have been told, or have left."""
    if not task.cancelled():
        task.exception()
