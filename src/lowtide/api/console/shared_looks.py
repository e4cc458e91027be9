"""One look at a page for all streams that show the same.

Twenty open lists of batches would ask the store and render the same twenty times. Called by
`live_pages`. Invariants: a look is shared only where all that it depends on is the same, which
`LookKey` names; it is no older than `CONSOLE_LOOK_SHARED_S`, or, where many different pages are
open, than they need to stay within `CONSOLE_LOOKS_PER_S`; it goes on when a reader leaves; a page
that was just loaded is not told what was before. The token of a session is the one thing in it that
differs from person to person: a look has `csrf_mark` in its place.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from lowtide import limits
from lowtide.api.console.page_looks import Look
from lowtide.core.accounts.tenancy import Scope


class LookKey(NamedTuple):
    """`scopes`: what the person may do, for the buttons. `address`: that of this server as the
    browser knows it, which the page prints. `query`: the page, and what it was asked."""

    project_id: str
    scopes: frozenset[Scope]
    address: str
    query: tuple[tuple[str, str], ...]


LookAgain = Callable[[Look, bool], Awaitable[Look]]
"""Looks at a page, given the last look at it and whether all of it is to be new."""


class _Shared(NamedTuple):
    """A look, done or under way. `at`, `whole_at`: when it was begun, and when the last one was of
    which all is new, in seconds of the event loop.
    """

    at: float
    whole_at: float
    task: "asyncio.Task[Look]"

    @property
    def is_whole(self) -> bool:
        return self.at == self.whole_at

    @property
    def seen(self) -> Look:
        """What it saw; nothing where it failed, or is not done."""
        task = self.task
        return (
            task.result() if task.done() and not task.cancelled() and not task.exception() else ()
        )


class SharedLooks:
    """The looks of one process, by what they show. At most as many are kept as streams are open."""

    def __init__(self) -> None:
        self.csrf_mark: Final = secrets.token_hex(32).encode()  # no text of others can hold it
        self._looks: dict[LookKey, _Shared] = {}

    async def get(self, key: LookKey, look: LookAgain, *, is_first: bool = False) -> Look:
        """A look that is new enough, or a new one. `is_first`: of a page that was loaded just now,
        which must not go back to what was. Raises what `look` raises.
        """
        now = asyncio.get_running_loop().time()
        known = self._looks.get(key)
        if known is None or self._is_old(known, now, is_first=is_first):
            before = () if known is None else known.seen
            self._forget_old(now)
            is_whole = is_first or known is None
            task = asyncio.ensure_future(look(before, is_whole))
            task.add_done_callback(_seen)
            whole_at = now if is_whole or known is None else known.whole_at
            known = self._looks[key] = _Shared(now, whole_at, task)
        return await asyncio.shield(known.task)

    def forget(self) -> None:
        """Looks at everything anew: something was changed by hand."""
        self._looks.clear()

    def _is_old(self, known: _Shared, now: float, *, is_first: bool) -> bool:
        """Whether another look is due. One that is under way is waited for."""
        if is_first:
            under_way = known.is_whole and not known.task.done()
            return not under_way and now - known.whole_at >= limits.CONSOLE_LOOK_SHARED_S
        return known.task.done() and now - known.at >= self._age_max_s()

    def _age_max_s(self) -> float:
        """The more different pages are open, the longer each look is good for: together they take
        no more of this process than a few do.
        """
        age_s = len(self._looks) / limits.CONSOLE_LOOKS_PER_S
        return min(max(limits.CONSOLE_LOOK_SHARED_S, age_s), limits.CONSOLE_LOOK_AGE_MAX_S)

    def _forget_old(self, now: float) -> None:
        """Forgets the looks that no stream has asked for since they grew old."""
        age_max_s = self._age_max_s() + limits.CONSOLE_REFRESH_S
        old = [
            key for key, its in self._looks.items() if now - its.at >= age_max_s and its.task.done()
        ]
        for key in old:
            del self._looks[key]


def _seen(task: "asyncio.Task[Look]") -> None:
    """Takes note of a failure: those who asked for the look have been told, or have left."""
    if not task.cancelled():
        task.exception()
