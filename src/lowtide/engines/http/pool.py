"""The connections to one engine: at most so many, reused newest first, waited for in turns.

A slot is the right to one connection. Each slot is held by an idle connection, by a call in flight,
or by a waiter that was just given it; `_slots_taken` counts them all and never passes
`connections_max`. Waiters exist only while no connection is idle, so no later call overtakes them.
The newest connection is taken first: under less load the others go idle and are closed after
`idle_s`. Which waiter is next is decided in engines/http/waiters.py.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import datetime

from lowtide.core.faults.outcome import NoReply
from lowtide.core.scheduling.reply_budget import ReplyBudget
from lowtide.engines.http.connect import Dialer
from lowtide.engines.http.connection import Connection
from lowtide.engines.http.waiters import Waiter, Waiters
from lowtide.limits import ENGINE_CLOSE_S

_CLOSED = "the engine client is closed"


class ConnectionPool:
    """Gives out connections; every one taken or obtained must come back through `release`."""

    def __init__(
        self,
        dialer: Dialer,
        replies: ReplyBudget,
        *,
        connections_max: int,
        connect_timeout_s: float,
        idle_s: float,
        utc_now: Callable[[], datetime],
    ) -> None:
        self._dialer = dialer
        self._replies = replies
        self._connections_max = connections_max
        self._connect_timeout_s = connect_timeout_s
        self._idle_s = idle_s
        self._utc_now = utc_now
        self._is_closed = False
        self._slots_taken = 0
        self._open: set[Connection] = set()
        self._idle: dict[Connection, float] = {}  # since when, oldest first
        self._idle_timer: asyncio.TimerHandle | None = None
        self._waiters = Waiters()
        self._connecting: set[asyncio.Timeout] = set()

    @property
    def connections_open(self) -> int:
        """The number of open connections, idle ones included."""
        return len(self._open)

    @property
    def is_idle(self) -> bool:
        """Whether no call uses, opens or waits for a connection."""
        return self._slots_taken == len(self._idle) and not self._waiters

    def take(self) -> Connection | None:
        """The idle connection used last, if any."""
        while self._idle:
            connection, _ = self._idle.popitem()
            if connection.reusable:
                return connection
            self._free_slot()
        return None

    async def obtain(self, deadline: float, owner: str = "") -> Connection | NoReply:
        """A connection when `take` had none: a new one, or the next to come free that is the turn
        of `owner`, an organization."""
        if self._is_closed:
            return NoReply("connect", _CLOSED)
        if self._slots_taken < self._connections_max:
            self._slots_taken += 1
            return await self.connect(deadline)
        waiter = self._waiters.add(owner)
        try:
            async with asyncio.timeout_at(deadline):
                connection = await waiter
        except TimeoutError:
            self._leave(owner, waiter)
            return NoReply("connect", "no connection came free in the attempt's time")
        except asyncio.CancelledError:
            self._leave(owner, waiter)
            raise
        try:
            if connection is None:
                return await self.connect(deadline)
            if connection.reusable:
                return connection
            connection.abort()  # closed by the engine since it was handed over; its slot is ours
            return await self.connect(deadline)
        finally:
            self._waiters.joined(owner)

    async def connect(self, deadline: float) -> Connection | NoReply:
        """Opens a connection in a slot the caller holds; without success the slot is given back."""
        loop = asyncio.get_running_loop()
        connection: Connection | None = None
        timeout = asyncio.timeout_at(min(deadline, loop.time() + self._connect_timeout_s))
        self._connecting.add(timeout)
        failure: str | None = "abandoned"
        try:
            if self._is_closed:
                failure = _CLOSED
            else:
                async with timeout:
                    connection = await self._dialer.open(self._make)
                if self._is_closed:
                    failure = _CLOSED
                else:
                    failure = None if connection.reusable else "it hung up at once"
        except (OSError, UnicodeError) as exc:
            failure = self._why_not(exc, timeout)
        finally:
            self._connecting.discard(timeout)
            if failure is not None or connection is None:
                if connection is not None:
                    connection.abort()
                self._free_slot()
        if failure is not None or connection is None:
            return NoReply("connect", f"no connection to {self._dialer.name}: {failure}")
        self._open.add(connection)
        return connection

    def release(self, connection: Connection) -> None:
        """Gives back a connection: kept if it can serve again, closed if not."""
        if not connection.is_clean or self._is_closed:
            connection.abort()
            self._free_slot(connection)
        elif not self._call_next(connection, freed=connection):
            loop = asyncio.get_running_loop()
            self._idle[connection] = loop.time()
            if self._idle_timer is None:
                self._idle_timer = loop.call_later(self._idle_s, self._close_idle)

    async def aclose(self) -> None:
        """Closes every connection and turns every waiter away; returns when the sockets are
        gone.
        """
        self._is_closed = True
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        gone = [connection.closed for connection in self._open]
        for connection in list(self._open):
            connection.fail(NoReply("broken", _CLOSED))
        while self._call_next():
            self._slots_taken += 1
        now = asyncio.get_running_loop().time()
        for timeout in self._connecting:
            if not timeout.expired():
                timeout.reschedule(now)
        if gone:
            await asyncio.wait(gone, timeout=ENGINE_CLOSE_S)

    def _make(self) -> Connection:
        return Connection(asyncio.get_running_loop(), self._utc_now, self._on_lost, self._replies)

    def _why_not(self, exc: Exception, timeout: asyncio.Timeout) -> str:
        if self._is_closed:
            return _CLOSED
        if timeout.expired():
            return "not answered in time"
        return str(exc) or type(exc).__name__

    def _call_next(
        self, connection: Connection | None = None, freed: Connection | None = None
    ) -> bool:
        """Gives a connection, or a slot, to the next waiter. Returns whether there is one. `freed`
        has no owner any more.
        """
        return self._waiters.call_next(connection, lambda: self._held_without(freed))

    def _held_without(self, freed: Connection | None) -> Counter[str]:
        """Connections in use by organization, without `freed`. None is idle while calls wait."""
        return Counter(each.hold.owner for each in self._open if each is not freed)

    def _leave(self, owner: str, waiter: Waiter) -> None:
        """Removes a waiter that gives up; what was given to it in the same moment
        goes to the next.
        """
        self._waiters.leave(owner, waiter)
        if not waiter.done() or waiter.cancelled():
            return
        self._waiters.joined(owner)
        connection = waiter.result()
        if connection is None:
            self._free_slot()
        else:
            self.release(connection)

    def _free_slot(self, freed: Connection | None = None) -> None:
        if not self._call_next(freed=freed):
            self._slots_taken -= 1

    def _on_lost(self, connection: Connection) -> None:
        self._open.discard(connection)
        if self._idle.pop(connection, None) is not None:
            self._free_slot()

    def _close_idle(self) -> None:
        """Closes what was idle for `idle_s`; asks to be called again while anything is idle."""
        self._idle_timer = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection, since in list(self._idle.items()):
            if since + self._idle_s > now:
                self._idle_timer = loop.call_at(since + self._idle_s, self._close_idle)
                return
            del self._idle[connection]
            connection.abort()
            self._free_slot()
