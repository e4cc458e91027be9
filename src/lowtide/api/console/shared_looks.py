"""One look at a page for all streams that show the same.

Twenty open lists of batches would ask the store and render the same twenty times. Called by
`live_pages`. Invariants: a look is shared only where all that it depends on is the same, which
`LookKey` names; it is no older than `CONSOLE_LOOK_SHARED_S`, or, where many different pages are
open, than they need to stay within `CONSOLE_LOOKS_PER_S`; it goes on when a reader leaves. The
token of a session is the one thing in it that differs from person to person: a look has
`csrf_mark` in its place.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

from lowtide import limits
from lowtide.core.accounts.tenancy import Scope


class LookKey(NamedTuple):
    """`scopes`: what the person may do, for the buttons. `address`: that of this server as the
    browser knows it, which the page prints. `query`: the page, and what it was asked."""

    project_id: str
    scopes: frozenset[Scope]
    address: str
    query: tuple[tuple[str, str], ...]


class ShownPart(NamedTuple):
    """The content of one element as an event, and the digest of it."""

    element: str
    digest: bytes
    event: bytes


Look = Sequence[ShownPart]


class SharedLooks:
    """The looks of one process, by what they show. At most as many are kept as streams are open."""

    def __init__(self) -> None:
        self.csrf_mark: Final = secrets.token_hex(32).encode()  # no text of others can hold it
        self._looks: dict[LookKey, tuple[float, asyncio.Task[Look]]] = {}

    async def get(
        self, key: LookKey, look: Callable[[], Awaitable[Look]], *, is_first: bool = False
    ) -> Look:
        """A look that is new enough, or a new one. `is_first`: of a page that was loaded just now,
        which must not go back to what was. Raises what `look` raises.
        """
        now = asyncio.get_running_loop().time()
        known = self._looks.get(key)
        age_max_s = limits.CONSOLE_LOOK_SHARED_S if is_first else self._age_max_s()
        if known is None or (now - known[0] >= age_max_s and known[1].done()):
            self._forget_old(now)
            task = asyncio.ensure_future(look())
            task.add_done_callback(_seen)
            known = self._looks[key] = (now, task)
        return await asyncio.shield(known[1])

    def forget(self) -> None:
        """Looks at everything anew: something was changed by hand."""
        self._looks.clear()

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
            key for key, (at, task) in self._looks.items() if now - at >= age_max_s and task.done()
        ]
        for key in old:
            del self._looks[key]


def _seen(task: "asyncio.Task[Look]") -> None:
    """Takes note of a failure: those who asked for the look have been told, or have left."""
    if not task.cancelled():
        task.exception()
