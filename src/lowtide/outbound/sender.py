"""`ports.webhooks.WebhookSender` over sockets: one POST, one status, nothing else.

Made by wiring, one per process, for the delivery loop and for tests of endpoints. It reads an
answer's status and head and no body, follows no redirect, keeps no connection, and looks at no
proxy of the environment. Invariant: an attempt ends within `WEBHOOK_ATTEMPT_S`, whatever the other
side does.
"""

import asyncio
import ssl
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from urllib.parse import unquote, urlsplit

from lowtide import limits
from lowtide.core.webhooks.address_rules import IPNetwork, WebhookTarget, target_of
from lowtide.core.webhooks.schedule import Attempt
from lowtide.outbound.dial import (
    NotCalled,
    Resolve,
    ThreadedResolver,
    WebhookProxy,
    addresses_of,
    connect,
    read_status,
)
from lowtide.version import VERSION

_INTERIM_MAX = 4
"""1xx answers before the one that counts."""


class HttpSender:
    """Calls receivers."""

    def __init__(
        self,
        allowed: Sequence[IPNetwork] = (),
        proxy: str | None = None,
        *,
        resolve: Resolve | None = None,
        tls: Callable[[], ssl.SSLContext] = ssl.create_default_context,
    ) -> None:
        """`allowed`: networks that may be called although they are no public ones. `proxy`: the
        address of an HTTP proxy, perhaps with user and password.
        """
        self._allowed = allowed
        self._proxy = None if proxy is None else _proxy_of(proxy)
        self._threads = None if resolve is not None else ThreadedResolver()
        self._resolve: Resolve = resolve or self._threads  # type: ignore[assignment]
        self._make_tls = tls
        self._tls: ssl.SSLContext | None = None

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Attempt:
        try:
            target = target_of(url)
            async with asyncio.timeout(limits.WEBHOOK_ATTEMPT_S):
                return Attempt(await self._post(target, headers, body))
        except TimeoutError:
            return Attempt(error=f"no answer within {limits.WEBHOOK_ATTEMPT_S:.0f} seconds")
        except NotCalled as refused:
            return Attempt(error=str(refused))
        except (OSError, ValueError) as error:  # a URL that is none, a name that cannot be one
            return Attempt(error=_words_of(error))

    async def refusal(self, url: str) -> str | None:
        try:
            await addresses_of(target_of(url), self._resolve, self._allowed)
        except NotCalled as refused:
            return str(refused)
        except OSError:  # not now: it is resolved again at each attempt
            return None
        except ValueError as error:
            return str(error)
        return None

    async def aclose(self) -> None:
        if self._threads is not None:
            self._threads.close()

    async def _post(self, target: WebhookTarget, headers: Mapping[str, str], body: bytes) -> int:
        """The status. Raises NotCalled, OSError, TimeoutError."""
        addresses = await addresses_of(target, self._resolve, self._allowed)
        tls = self._tls_context() if target.is_tls else None
        reader, writer = await connect(target, addresses, tls, self._proxy)
        try:
            writer.write(_request(target, headers, body))
            await writer.drain()
            for _ in range(_INTERIM_MAX):
                if (status := await read_status(reader)) >= 200:
                    return status
            raise OSError("the answer does not come to an end of its 1xx")
        finally:
            with suppress(OSError):
                writer.transport.abort()  # nothing of it is read any more

    def _tls_context(self) -> ssl.SSLContext:
        """Made when it is needed: reading the system's certificates takes 20 ms."""
        if self._tls is None:
            self._tls = self._make_tls()
        return self._tls


def _request(target: WebhookTarget, headers: Mapping[str, str], body: bytes) -> bytes:
    lines = [
        f"POST {target.path} HTTP/1.1",
        f"Host: {target.authority}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        f"User-Agent: lowtide-webhooks/{VERSION}",
        "Connection: close",
        *(f"{name}: {value}" for name, value in headers.items()),
        "",
        "",
    ]
    return "\r\n".join(lines).encode("ascii") + body


def _proxy_of(url: str) -> WebhookProxy:
    parts = urlsplit(url)
    authorization = None
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = f"Basic {b64encode(pair.encode()).decode()}"
    return WebhookProxy(parts.hostname or "", parts.port or limits.PROXY_PORT, authorization)


def _words_of(error: OSError | ValueError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate cannot be trusted: {error.verify_message}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
