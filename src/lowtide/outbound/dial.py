"""Opens a connection to an address that a tenant named: resolved, checked, then pinned.

`sender.py` calls it for each attempt. Invariant: the socket is connected to an IP address that
`core.webhooks.address_rules` let through in this same attempt, so a name that changes between the
check and the call leads nowhere else. The names of TLS and Host stay those of the URL.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import ip_address

import msgspec

from lowtide import limits
from lowtide.core.webhooks.address_rules import IPNetwork, WebhookTarget, refusal_of

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""The IP addresses of a host, in the order in which they are to be tried. Raises OSError."""


class NotCalled(Exception):
    """The address is none that may be called; the message says why, for a person."""


class WebhookProxy(msgspec.Struct, frozen=True):
    """An HTTP proxy on the way to every receiver. `authorization`: the header's value."""

    host: str
    port: int
    authorization: str | None = None


class ThreadedResolver:
    """The machine's resolver, in threads of its own: a name server that does not answer must not
    take the threads that blobs are read with.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(limits.WEBHOOK_RESOLVERS, "webhook-names")

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        infos = await asyncio.get_running_loop().run_in_executor(self._threads, ask)
        return list(dict.fromkeys(str(address[0]) for *_, address in infos))

    def close(self) -> None:
        """Waits for nothing: a thread ends with the answer that it waits for."""
        self._threads.shutdown(wait=False, cancel_futures=True)


async def addresses_of(
    target: WebhookTarget, resolve: Resolve, allowed: Sequence[IPNetwork]
) -> Sequence[str]:
    """The addresses to try, each of which was checked. Raises NotCalled, OSError.

    One that is refused refuses the whole name: who names it would else choose by chance.
    """
    try:
        addresses: Sequence[str] = [str(ip_address(target.host))]
    except ValueError:
        try:
            async with asyncio.timeout(limits.WEBHOOK_RESOLVE_S):
                addresses = await resolve(target.host, target.port)
        except TimeoutError:
            seconds = f"{limits.WEBHOOK_RESOLVE_S:.0f} seconds"
            raise OSError(f"the name could not be resolved within {seconds}") from None
    for address in addresses:
        if (refusal := refusal_of(address, allowed)) is not None:
            raise NotCalled(refusal)
    if not addresses:
        raise OSError("the name has no address")
    return addresses[: limits.WEBHOOK_ADDRESSES_MAX]


async def connect(
    target: WebhookTarget,
    addresses: Sequence[str],
    tls: ssl.SSLContext | None,
    proxy: WebhookProxy | None,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """An open connection to the first address that takes one. Raises OSError."""
    failure: OSError | None = None
    share_s = limits.WEBHOOK_ATTEMPT_S / (len(addresses) + 1)
    for address in addresses:
        try:
            async with asyncio.timeout(share_s):
                if proxy is not None:
                    return await _through(proxy, address, target, tls)
                return await asyncio.open_connection(
                    address,
                    target.port,
                    limit=limits.WEBHOOK_ANSWER_BYTES_MAX,
                    ssl=tls,
                    server_hostname=target.host if tls is not None else None,
                )
        except TimeoutError:
            failure = OSError(f"no connection to {address} within {share_s:.0f} seconds")
        except OSError as error:
            failure = error
    raise failure or OSError("the name has no address")


async def _through(
    proxy: WebhookProxy, address: str, target: WebhookTarget, tls: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A tunnel to the checked address; also for http://, so that the proxy resolves nothing."""
    reader, writer = await asyncio.open_connection(
        proxy.host, proxy.port, limit=limits.WEBHOOK_ANSWER_BYTES_MAX
    )
    try:
        host = f"[{address}]" if ":" in address else address
        lines = [f"CONNECT {host}:{target.port} HTTP/1.1", f"Host: {host}:{target.port}"]
        if proxy.authorization is not None:
            lines.append(f"Proxy-Authorization: {proxy.authorization}")
        writer.write("\r\n".join([*lines, "", ""]).encode())
        status = await read_status(reader)
        if status != 200:
            raise OSError(f"the proxy answered {status} to CONNECT")
        if tls is not None:
            await writer.start_tls(tls, server_hostname=target.host)
    except BaseException:
        writer.transport.abort()
        raise
    return reader, writer


async def read_status(reader: asyncio.StreamReader) -> int:
    """The status of an answer, whose head is read to its end. Raises OSError for what is none."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        raise OSError(
            f"the answer's head is longer than {limits.WEBHOOK_ANSWER_BYTES_MAX} bytes"
        ) from None
    except asyncio.IncompleteReadError:
        raise OSError("the connection was closed before an answer") from None
    version, _, rest = head.partition(b" ")
    code = rest[:3]
    if not version.startswith(b"HTTP/1.") or not code.isdigit() or rest[3:4] not in (b" ", b"\r"):
        raise OSError("the answer is not HTTP")
    return int(code)
