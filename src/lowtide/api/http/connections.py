"""The connections of a process, and which of them may stay before their callers are known.

Called by `bounded_protocol`, once for each connection. A connection is unauthenticated until a
request on it was accepted (`AuthMiddleware` says so). Guards: unauthenticated callers are bounded
per address and in all, and so is what they have sent; the one that has waited longest goes first,
so there is always room for the next caller and for health checks; and a silent or slow caller is
cut off within a sweep of its bound. Those of known callers are shared by organization: one may
have as many as are left free. A trusted proxy is no such caller: its requests count for the
address that it names.
"""

import asyncio
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Protocol

from lowtide import limits
from lowtide.config.exposure import Network
from lowtide.core.replicas.open_files import share_out
from lowtide.core.scheduling.byte_budget import ByteBudget


@dataclass(frozen=True, slots=True)
class UnauthenticatedBounds:
    """Connections: `per_address` and `in_all` of those older than the grace, `burst` of any age."""

    per_address: int
    in_all: int
    burst: int


def process_bounds() -> UnauthenticatedBounds:
    """The bounds of this process, which leave enough open files for authenticated callers."""
    share = max(limits.UNAUTHENTICATED_MIN, _share_of_files())
    in_all = min(limits.UNAUTHENTICATED_MAX, share)
    return UnauthenticatedBounds(
        per_address=min(limits.UNAUTHENTICATED_PER_ADDRESS_MAX, in_all // 2),
        in_all=in_all,
        burst=min(limits.UNAUTHENTICATED_BURST_MAX, 2 * share),
    )


def _share_of_files() -> int:
    """The number of open files that unauthenticated callers may use."""
    return int(_open_files() * limits.UNAUTHENTICATED_FILES_SHARE)


def _open_files() -> int:
    """The process's limit of open files."""
    if sys.platform == "win32":
        return limits.OPEN_FILES_MAX
    import resource  # not on Windows

    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return limits.OPEN_FILES_MAX if files == resource.RLIM_INFINITY else files


class ClientConnection(Protocol):
    """The methods of a connection that `Connections` calls."""

    opened_at_s: float
    held_bytes: int

    @property
    def is_answering(self) -> bool:
        """Whether one of its requests is being answered: then it is not
        silent, and not ended for room.
        """

    def check(self, now_s: float) -> bool:
        """Ends the connection if it is too slow. Returns whether it must be checked again."""

    def abort(self) -> None:
        """Closes the connection now, without an answer."""

    def hold_back(self) -> None:
        """Stops reading from the connection for now."""

    def go_on(self) -> None:
        """Reads from the connection again."""


class Connections:
    """One per process. Times are the loop's, in seconds."""

    def __init__(
        self, bounds: UnauthenticatedBounds | None = None, proxies: Iterable[Network] = ()
    ) -> None:
        self.held_bytes = 0
        self.open_max = share_out(_open_files(), 1).callers
        """The most connections of all callers together, known ones and proxies included."""
        self._places = ByteBudget(self.open_max)
        self._bounds = bounds or process_bounds()
        self._proxies = tuple(proxies)
        self._unauthenticated: dict[ClientConnection, str] = {}
        self._by_address: dict[str, dict[ClientConnection, None]] = {}
        self._watched: set[ClientConnection] = set()
        self._is_congested = False
        self._is_sweeping = False

    def __len__(self) -> int:
        """The number of unauthenticated connections now."""
        return len(self._unauthenticated)

    def is_trusted(self, address: str) -> bool:
        """Whether the address is a trusted proxy's."""
        if not self._proxies:
            return False
        try:
            ip = ip_address(address)
        except ValueError:
            return False
        return any(ip in network for network in self._proxies)

    def client_behind(self, peer: str, forwarded: str) -> str:
        """The address of the caller behind proxies: the last one in
        X-Forwarded-For that is no proxy's.
        """
        for named in reversed(forwarded.split(",")):
            address = _bare(named)
            if address is None:
                return peer  # what stands left of it nobody vouches for
            peer = address
            if not self.is_trusted(address):
                break
        return peer

    def add(self, connection: ClientConnection, address: str, now_s: float) -> bool:
        """Counts an unauthenticated connection, or one request of such a caller through a proxy.

        Returns False when there is no room and no connection that could be ended for it.
        """
        key = _shared(address)
        same = self._by_address.setdefault(key, {})
        self._make_room(same, self._bounds.per_address - 1, now_s)
        self._make_room(self._unauthenticated, self._bounds.in_all - 1, now_s)
        if len(self._unauthenticated) >= self._bounds.burst:
            self._end_oldest(self._unauthenticated, 1, None)
        is_full = len(self._unauthenticated) >= self._bounds.burst
        if is_full or len(same) >= self._bounds.burst // 2:
            if not same:
                del self._by_address[key]
            return False
        self._by_address.setdefault(key, same)[connection] = None
        self._unauthenticated[connection] = key
        if self._is_congested:
            connection.hold_back()
        self._sweep_later()
        return True

    def remove(self, connection: ClientConnection) -> None:
        """Stops counting the connection as unauthenticated: its caller
        is known, or it is closed.
        """
        key = self._unauthenticated.pop(connection, None)
        if key is None:
            return
        self.hold(connection, 0)
        same = self._by_address[key]
        del same[connection]
        if not same:
            del self._by_address[key]
        if self._is_congested:
            connection.go_on()

    def admit(self, connection: ClientConnection, owner: str) -> bool:
        """Counts the connection for the organization, until `leave`.

        Returns False when the organization has as many as are left free for others; the connection
        then stays an unauthenticated one.
        """
        if not self._places.take(owner, 1):
            return False
        self.remove(connection)
        return True

    def leave(self, owner: str) -> None:
        """Stops counting a closed connection for the organization."""
        self._places.give_back(owner, 1)

    def end_one(self, now_s: float) -> bool:
        """Ends one unauthenticated connection past its grace, to make room for a new one.
        Returns whether there was one.
        """
        before = len(self._unauthenticated)
        self._end_oldest(self._unauthenticated, 1, now_s - limits.UNAUTHENTICATED_GRACE_S)
        return len(self._unauthenticated) < before

    def watch(self, connection: ClientConnection) -> None:
        """Checks the connection at each sweep while a head or a body of it is being read."""
        self._watched.add(connection)
        self._sweep_later()

    def forget(self, connection: ClientConnection) -> None:
        """Stops checking the connection; it is closed."""
        self.remove(connection)
        self._watched.discard(connection)

    def hold(self, connection: ClientConnection, held_bytes: int) -> None:
        """Records how many bytes of the connection are held: sent by its caller,
        neither read nor dropped.
        """
        self.held_bytes += held_bytes - connection.held_bytes
        connection.held_bytes = held_bytes
        if self.held_bytes > limits.UNAUTHENTICATED_BYTES_MAX:
            self._relieve()
        elif self._is_congested and self.held_bytes <= limits.UNAUTHENTICATED_BYTES_MAX // 2:
            self._is_congested = False
            for each in list(self._unauthenticated):
                each.go_on()

    def sweep(self, now_s: float) -> None:
        """Ends connections that are silent, slow or in excess."""
        self._watched = {each for each in list(self._watched) if each.check(now_s)}
        for each in list(self._unauthenticated):
            each.check(now_s)
        for same in list(self._by_address.values()):
            self._make_room(same, self._bounds.per_address, now_s)
        self._make_room(self._unauthenticated, self._bounds.in_all, now_s)
        if self._is_congested:  # for a second: whoever is being looked up waits for the database
            self._end_largest(list(self._unauthenticated))

    def _relieve(self) -> None:
        """Read nothing more of unauthenticated callers; end the largest heads, which could stay as
        they are.
        """
        if not self._is_congested:
            self._is_congested = True
            for each in list(self._unauthenticated):
                each.hold_back()
        self._end_largest([each for each in self._unauthenticated if not each.is_answering])

    def _end_largest(self, among: list[ClientConnection]) -> None:
        """Ends the connections that hold most, until the rest holds half of what is allowed."""
        left = sum(each.held_bytes for each in among)
        for each in sorted(among, key=lambda one: one.held_bytes, reverse=True):
            if left <= limits.UNAUTHENTICATED_BYTES_MAX // 2:
                return
            left -= each.held_bytes
            self.remove(each)
            each.abort()

    def _make_room(self, among: Mapping[ClientConnection, object], most: int, now_s: float) -> None:
        excess = len(among) - most
        if excess > 0:
            self._end_oldest(among, excess, now_s - limits.UNAUTHENTICATED_GRACE_S)

    def _end_oldest(
        self,
        among: Mapping[ClientConnection, object],
        count: int,
        opened_before_s: float | None,
    ) -> None:
        """End up to `count` that are not being answered."""
        chosen: list[ClientConnection] = []
        for each in among:
            is_young = opened_before_s is not None and each.opened_at_s > opened_before_s
            if is_young or len(chosen) == count:
                break
            if not each.is_answering:
                chosen.append(each)
        for each in chosen:
            self.remove(each)
            each.abort()

    def _sweep_later(self) -> None:
        if not self._is_sweeping:
            self._is_sweeping = True
            asyncio.get_running_loop().call_later(limits.CONNECTION_SWEEP_S, self._on_timer)

    def _on_timer(self) -> None:
        self._is_sweeping = False
        self.sweep(asyncio.get_running_loop().time())
        if self._watched or self._unauthenticated:
            self._sweep_later()


def _bare(text: str) -> str | None:
    """An address without brackets and port; None when the text is none."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ip_address(text))
    except ValueError:
        return None


def _shared(address: str) -> str:
    """The key that counts as one caller: an IPv4 address, or the /64 network of an IPv6 address."""
    if ":" not in address:
        return address
    try:
        return str(ip_network(f"{address.partition('%')[0]}/64", strict=False))
    except ValueError:
        return address
