"""How a connection to an engine is opened: every address of its name, through a proxy if need be.

`ConnectionPool` calls `Dialer.open` within the connect time-out. An address that does not answer
costs `ADDRESS_HEAD_START_S` and not the time-out: then the next one is tried beside it, as RFC 8305
("Happy Eyeballs") has it, and the first to answer is taken, with its TLS handshake done. Addresses
that failed come last for a while. Invariant: of all connections that were begun, one survives a
success and none a failure.
"""

import asyncio
import os
import socket
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, Final, Protocol, TypeVar, cast

from lowtide.engines.http.request import EngineAddress, Proxy
from lowtide.limits import (
    ADDRESS_DEMOTED_S,
    ADDRESS_HEAD_START_S,
    ENGINE_ADDRESSES_MAX,
    REPLY_HEADER_BYTES_MAX,
    TLS_HANDSHAKE_S,
)

Address = tuple[int, tuple[Any, ...]]
"""A socket's family, and the address as the family has it."""
Resolve = Callable[[str, int], Awaitable[Sequence[Address]]]


class Dialled(Protocol):
    """A connection that can be given up before it is open."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...

    def abort(self) -> None: ...


D = TypeVar("D", bound=Dialled)
NO_HANDSHAKE: Final = "connected, but no answer to the TLS handshake"
"""The detail when a port speaks no TLS and waits for more, or its engine is extremely busy."""
Try = Coroutine[Any, Any, D]


async def _addresses_of(host: str, port: int) -> Sequence[Address]:
    loop = asyncio.get_running_loop()
    infos = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys((family, address) for family, _, _, _, address in infos))


class Dialer:
    """Opens connections to one engine."""

    def __init__(
        self,
        target: EngineAddress,
        tls: ssl.SSLContext | None,
        proxy: Proxy | None = None,
        *,
        resolve: Resolve = _addresses_of,
    ) -> None:
        self.name = target.authority
        """Who is called, for messages."""
        if proxy is not None:
            self.name += f" through the proxy {proxy.authority}"
        self._target = target
        self._tls = tls
        self._tunnel = proxy if tls is not None else None
        self._host = target.host if proxy is None else proxy.host
        self._port = target.port if proxy is None else proxy.port
        self._is_literal = _is_address(self._host)
        self._resolve = resolve
        self._demoted: dict[Address, float] = {}  # until when

    async def open(self, make: Callable[[], D]) -> D:
        """An open connection, which `make` gave: it is called once for each address that is tried.

        Raises OSError or UnicodeError; may be cancelled at any time.
        """
        if self._is_literal:
            return await self._try(make, self._host, self._port)
        tries: dict[asyncio.Task[D], Address] = {}
        failures: list[OSError] = []
        waiting = deque(await self._in_order())
        won: D | None = None
        try:
            while won is None and (waiting or tries):
                if waiting:
                    address = waiting.popleft()
                    begun = self._try(make, *address[1][:2])
                    tries[asyncio.ensure_future(begun)] = address
                done, _ = await asyncio.wait(
                    tries,
                    timeout=ADDRESS_HEAD_START_S if waiting else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in done:
                    address = tries.pop(task)
                    error = task.exception()
                    if error is not None:
                        self._demote(address)
                        failures.append(_as_os_error(error))
                    elif won is None:
                        won = task.result()
                    else:
                        task.result().abort()
        finally:
            await self._give_up(tries)
        if won is None:
            raise _joined(failures)
        return won

    async def _try(self, make: Callable[[], D], host: str, port: int) -> D:
        """One address. A connection that is not opened is aborted."""
        connection = make()
        try:
            if self._tunnel is None:
                await asyncio.get_running_loop().create_connection(
                    lambda: cast(asyncio.Protocol, connection),
                    host,
                    port,
                    ssl=self._tls,
                    server_hostname=self._target.host if self._tls is not None else None,
                    ssl_handshake_timeout=TLS_HANDSHAKE_S if self._tls is not None else None,
                )
            else:
                await self._through(self._tunnel, connection, host, port)
        except BaseException as error:
            connection.abort()
            if isinstance(error, ConnectionAbortedError) and "handshake" in str(error):
                raise OSError(f"{NO_HANDSHAKE} within {TLS_HANDSHAKE_S:g} s") from error
            raise
        return connection

    async def _through(self, proxy: Proxy, connection: Dialled, host: str, port: int) -> None:
        """Opens a TLS connection through the proxy: after a 2xx to CONNECT all bytes are the
        engine's (RFC 9110 9.3.6).
        """
        loop = asyncio.get_running_loop()
        transport, tunnel = await loop.create_connection(_Tunnel, host, port)
        try:
            await tunnel.establish(self._target, proxy)
            assert self._tls is not None
            protected = await loop.start_tls(
                transport,
                cast(asyncio.Protocol, connection),
                self._tls,
                server_hostname=self._target.host,
                ssl_handshake_timeout=TLS_HANDSHAKE_S,
            )
            if protected is None:
                raise OSError("the proxy hung up")
            connection.connection_made(protected)
        except BaseException:
            transport.abort()
            raise

    async def _in_order(self) -> list[Address]:
        """The addresses as the resolver orders them, families in turn; those that failed last."""
        addresses = await self._resolve(self._host, self._port)
        if not addresses:
            raise OSError(f"{self._host} has no address")
        now = asyncio.get_running_loop().time()
        self._demoted = {at: until for at, until in self._demoted.items() if until > now}
        ordered = sorted(_interleaved(addresses), key=lambda address: address in self._demoted)
        return ordered[:ENGINE_ADDRESSES_MAX]

    def _demote(self, address: Address) -> None:
        self._demoted[address] = asyncio.get_running_loop().time() + ADDRESS_DEMOTED_S

    async def _give_up(self, tries: "dict[asyncio.Task[D], Address]") -> None:
        """Ends the tries that another one has overtaken, or that have failed."""
        for task, address in tries.items():
            self._demote(address)
            task.cancel()
        if tries:
            await asyncio.wait(tries)
        for task in tries:
            if not task.cancelled() and task.exception() is None:
                task.result().abort()


class _Tunnel(asyncio.Protocol):
    """The beginning of a connection to a proxy: the CONNECT request, and the head of its answer."""

    def __init__(self) -> None:
        self._head = b""
        self._error: OSError | None = None
        self._answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None

    async def establish(self, target: EngineAddress, proxy: Proxy) -> None:
        """Raises OSError where the proxy opens no tunnel."""
        place = f"{target.host_in_url}:{target.port}"
        lines = [f"CONNECT {place} HTTP/1.1", f"Host: {place}"]
        if proxy.authorization is not None:
            lines.append(f"Proxy-Authorization: {proxy.authorization}")
        assert self._transport is not None
        self._transport.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
        await self._answered
        if self._error is not None:
            raise self._error
        status = self._head.split(b"\r\n", 1)[0].split(b" ")[1:2]
        if not status or not status[0].startswith(b"2"):
            shown = status[0].decode("latin-1")[:3] if status else "no HTTP"
            reason = ": it wants other credentials" if shown == "407" else ""
            raise OSError(f"the proxy answered CONNECT with {shown}{reason}")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._head += data
        if b"\r\n\r\n" in self._head:
            self._end(None)
        elif len(self._head) > REPLY_HEADER_BYTES_MAX:
            self._end(OSError("the proxy's answer is too long"))

    def connection_lost(self, _error: Exception | None) -> None:
        self._end(OSError("the proxy hung up"))

    def _end(self, error: OSError | None) -> None:
        if not self._answered.done():
            self._error = error
            self._answered.set_result(None)


def _is_address(host: str) -> bool:
    with suppress(ValueError):
        ip_address(host)
        return True
    return False


def _interleaved(addresses: Sequence[Address]) -> list[Address]:
    """Families in turn, beginning with the first address's (RFC 8305 section 4)."""
    first = [a for a in addresses if a[0] == addresses[0][0]]
    others = [a for a in addresses if a[0] != addresses[0][0]]
    mixed: list[Address] = []
    while first or others:
        mixed += [family.pop(0) for family in (first, others) if family]
    return mixed


def _as_os_error(error: BaseException) -> OSError:
    if isinstance(error, OSError):
        return error
    raise error


def _joined(failures: Sequence[OSError]) -> OSError:
    """One error of all addresses; each reason once."""
    reasons = dict.fromkeys(os.strerror(e.errno) if e.errno else str(e) for e in failures)
    return OSError(f"{'; '.join(reasons)} ({len(failures)} addresses tried)")
