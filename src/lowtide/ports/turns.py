"""Turns at what all share, and on whose behalf the present work is done.

Whoever serves a request names the organization it is for; a loop names itself. An adapter that has
few places for all (the database's writer) lets those names take turns. Invariant: where none
is named, the work is the process's own, and has turns like an organization's.
"""

from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from typing import Final, Protocol

ACTING_FOR: Final[ContextVar[str]] = ContextVar("acting_for", default="")
"""An organization's id, or the name of a loop. Tasks inherit it from who starts them."""


class Turns(Protocol):
    """Places that are had one after another."""

    def of(self, owner: str) -> AbstractAsyncContextManager[None]:
        """Waits for a place, and has it within the context."""
