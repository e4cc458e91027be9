"""The engine client: one HTTP/1.1 engine URL behind `ports.engine.Engine`.

The dispatcher calls `post` once per attempt, so this is the hot path of the product: one write,
one future and one parser run per request, no task and no timer of its own. What the network does
comes back as a value. It guards the one rule that is easy to get wrong, when a request may be sent
twice: only if a kept-alive connection ended at once and without a byte of an answer, and only once.
"""

import asyncio
import math
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import msgspec

from lowtide.core.faults.outcome import Attempt, NoReply
from lowtide.core.scheduling.reply_budget import ReplyBudget
from lowtide.engines.http.connect import Dialer
from lowtide.engines.http.connection import STALE, Connection
from lowtide.engines.http.key_file import KeyFile
from lowtide.engines.http.pool import ConnectionPool
from lowtide.engines.http.redaction import Redaction
from lowtide.engines.http.request import Extras, RequestHeads, parse_proxy, parse_url
from lowtide.engines.http.stream import HttpReplyStream
from lowtide.engines.http.tls_guess import TlsGuess
from lowtide.limits import (
    CONNECT_TIMEOUT_S,
    CONNECTION_IDLE_S,
    CONNECTIONS_MAX,
    KEY_READ_EVERY_S,
    REQUEST_BLOCK_BYTES,
)

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
_KEY_REFUSED: Final = frozenset({401, 403})


def _utc_now() -> datetime:
    return datetime.now(UTC)


class HttpEngine:
    """One engine URL, e.g. `http://127.0.0.1:9001/v1`. Belongs to one event loop."""

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] = _NOTHING,
        api_key: str | None = None,
        key_file: KeyFile | None = None,
        query: Mapping[str, str] = _NOTHING,
        proxy: str | None = None,
        connections_max: int = CONNECTIONS_MAX,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        idle_s: float = CONNECTION_IDLE_S,
        verify: bool | str = True,
        utc_now: Callable[[], datetime] = _utc_now,
        replies: ReplyBudget | None = None,
    ) -> None:
        """`verify`: check the certificate of an https engine, against this bundle if it is a path.

        `key_file` stands for `api_key` and is read again when the engine refuses the key it had;
        `query` goes with every request; `proxy` is `http://user:password@host:port`. ValueError for
        a URL, header, key file or bundle that cannot work; no text has a secret in it. With https
        this reads certificates from disk. `replies` counts long replies; by default for this client
        alone. `utc_now` is only asked when a reply carries a
        Retry-After date.
        """
        if connections_max < 1:
            raise ValueError(f"connections_max must be at least 1, not {connections_max}")
        target = parse_url(url)
        self._url = target.url
        self._target = target
        self._key_file = key_file
        self._key_read_at = -math.inf
        self._key_turn = asyncio.Lock()
        tls = _tls_context(verify) if target.tls else None
        way = None if proxy is None else parse_proxy(proxy)
        self._extras = Extras(
            headers=headers,
            api_key=api_key if key_file is None else key_file.read(),
            query=query,
            proxy=None if target.tls else way,
        )
        self._heads = RequestHeads(target, self._extras)
        self._redaction = Redaction()
        self._redaction.learn(self._extras)
        self._has_answered = False
        self._guess = TlsGuess(target) if tls is None and way is None else None
        self._pool = ConnectionPool(
            Dialer(target, tls, way),
            ReplyBudget() if replies is None else replies,
            connections_max=connections_max,
            connect_timeout_s=connect_timeout_s,
            idle_s=idle_s,
            utc_now=utc_now,
        )

    @property
    def url(self) -> str:
        """The base URL, without a trailing slash."""
        return self._url

    @property
    def connections_open(self) -> int:
        """The number of open connections, idle ones included."""
        return self._pool.connections_open

    @property
    def is_idle(self) -> bool:
        """Whether no call is in flight."""
        return self._pool.is_idle

    def post(
        self, path: str, body: bytes, timeout_s: float, owner: str = ""
    ) -> Coroutine[Any, Any, Attempt]:
        """POST JSON `body` to base URL + `path`; see the port. ValueError for a malformed path."""
        if self._key_file is None:
            return self._attempt(self._post_head(path, body), body, timeout_s, owner)
        return self._post_with_key(path, body, timeout_s, owner)

    async def _post_with_key(self, path: str, body: bytes, timeout_s: float, owner: str) -> Attempt:
        used = self._extras.api_key
        attempt = await self._attempt(self._post_head(path, body), body, timeout_s, owner)
        if await self._has_new_key(attempt, used):
            return await self._attempt(self._post_head(path, body), body, timeout_s, owner)
        return attempt

    def _post_head(self, path: str, body: bytes) -> bytes:
        return b"%b%d\r\n\r\n" % (self._heads.post(path), len(body))

    def open_stream(
        self, path: str, body: bytes, timeout_s: float, owner: str = ""
    ) -> AbstractAsyncContextManager[HttpReplyStream | NoReply]:
        """POST JSON `body`, the reply block by block; see the port. ValueError as `post`."""
        if self._key_file is None:
            return self._open_stream(path, body, timeout_s, owner)
        return self._open_stream_with_key(path, body, timeout_s, owner)

    @asynccontextmanager
    async def _open_stream_with_key(
        self, path: str, body: bytes, timeout_s: float, owner: str
    ) -> AsyncIterator[HttpReplyStream | NoReply]:
        used = self._extras.api_key
        async with self._open_stream(path, body, timeout_s, owner) as opened:
            if not await self._has_new_key(opened, used):
                yield opened
                return
        async with self._open_stream(path, body, timeout_s, owner) as opened:
            yield opened

    @asynccontextmanager
    async def _open_stream(
        self, path: str, body: bytes, timeout_s: float, owner: str
    ) -> AsyncIterator[HttpReplyStream | NoReply]:
        head = self._post_head(path, body)
        deadline = asyncio.get_running_loop().time() + timeout_s
        connection: Connection | NoReply | None = self._pool.take()
        if connection is None:
            connection = await self._pool.obtain(deadline, owner)
        try:
            opened = await _begin(connection, head, body, timeout_s, deadline, owner)
            if opened is STALE:
                connection = None  # gone; its slot is taken over, or given back, by `connect`
                connection = await self._pool.connect(deadline)
                opened = await _begin(connection, head, body, timeout_s, deadline, owner)
                if opened is connection:
                    opened = _died_since(connection)
            if isinstance(opened, HttpReplyStream):
                opened.hide = self._redaction.hide
            else:
                opened = await self._explained(opened)
            yield opened
        finally:
            # A reply that was not read to its end is still an open exchange, so this closes its
            # connection, which is what makes the engine stop.
            if isinstance(connection, Connection):
                self._pool.release(connection)

    async def get(self, path: str, timeout_s: float) -> Attempt:
        """GET base URL + `path`; see the port. ValueError for a malformed path."""
        used = self._extras.api_key
        attempt = await self._attempt(self._heads.get(path), b"", timeout_s)
        if self._key_file is not None and await self._has_new_key(attempt, used):
            attempt = await self._attempt(self._heads.get(path), b"", timeout_s)
        return attempt

    async def aclose(self) -> None:
        """Closes all connections. Calls in flight end as `broken`, those that wait as `connect`."""
        await self._pool.aclose()

    async def _has_new_key(self, answer: Attempt | HttpReplyStream, used: str | None) -> bool:
        """Whether the engine refused the key `used`, and the file has another by now.

        Calls that are refused together read the file once; it is not read more than once in
        `KEY_READ_EVERY_S`, however many an engine refuses.
        """
        if isinstance(answer, NoReply) or answer.status not in _KEY_REFUSED:
            return False
        assert self._key_file is not None
        async with self._key_turn:
            now = asyncio.get_running_loop().time()
            if self._extras.api_key == used and now - self._key_read_at >= KEY_READ_EVERY_S:
                self._key_read_at = now
                self._take_key(await self._key_file.read_now())
            return self._extras.api_key != used

    def _take_key(self, key: str | None) -> None:
        """Reads the key. A file that is being written, or holds what is no key, leaves
        the old key in use.
        """
        with suppress(ValueError):
            if key is not None and key != self._extras.api_key:
                extras = msgspec.structs.replace(self._extras, api_key=key)
                self._heads = RequestHeads(self._target, extras)
                self._extras = extras
                self._redaction.learn(extras)

    async def _attempt(
        self, head: bytes, body: bytes, timeout_s: float, owner: str = ""
    ) -> Attempt:
        """One exchange, or two where the first one's connection had been closed before it."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        deadline = now + timeout_s
        connection = self._pool.take()
        if connection is None:
            obtained = await self._pool.obtain(deadline, owner)
            if isinstance(obtained, NoReply):
                return obtained
            connection, now = obtained, loop.time()
        while True:
            attempt: Attempt = STALE
            connection.hold.owner = owner
            answer = connection.expect(now, deadline)
            try:
                if len(body) <= REQUEST_BLOCK_BYTES:
                    connection.write(head + body)
                else:
                    await connection.write_blocks(head, body)
                attempt = await answer
            except BaseException:
                # The exchange is still open, so this closes the connection, which is what makes
                # the engine stop.
                self._pool.release(connection)
                raise
            if attempt is not STALE:
                break
            obtained = await self._pool.connect(deadline)  # the slot stayed ours for this
            if isinstance(obtained, NoReply):
                return _died_since(obtained)
            connection, now = obtained, loop.time()
        self._pool.release(connection)
        if isinstance(attempt, NoReply):
            return await self._explained(attempt)
        self._has_answered = True
        if attempt.status >= 300:
            hidden = self._redaction.hide(attempt.body)
            return msgspec.structs.replace(attempt, body=hidden)
        return attempt

    async def _explained(self, why: NoReply) -> NoReply:
        """The failure, explained: an engine that only ever hangs up may speak TLS on this port."""
        if self._guess is None or self._has_answered or why.kind != "broken":
            return why
        return await self._guess.explain(why)


async def _begin(
    connection: Connection | NoReply,
    head: bytes,
    body: bytes,
    silence_s: float,
    deadline: float,
    owner: str,
) -> HttpReplyStream | NoReply:
    """Sends the request and waits for the head of its reply."""
    if isinstance(connection, NoReply):
        return connection
    stream = HttpReplyStream(silence_s)
    connection.hold.owner = owner
    connection.expect(asyncio.get_running_loop().time(), deadline, stream)
    if len(body) <= REQUEST_BLOCK_BYTES:
        connection.write(head + body)
    else:
        await connection.write_blocks(head, body)
    return await stream.head() or stream


def _died_since(why: NoReply) -> NoReply:
    # Not `connect`: the request did reach an engine, which may have died of it.
    return NoReply("broken", f"{STALE.detail}; then {why.detail}")


def _tls_context(verify: bool | str) -> ssl.SSLContext:
    if isinstance(verify, str):
        is_folder = Path(verify).is_dir()
        try:
            context = ssl.create_default_context(
                cafile=None if is_folder else verify, capath=verify if is_folder else None
            )
        except OSError as exc:
            raise ValueError(f"cannot read the certificate bundle {verify}: {exc}") from exc
    else:
        context = ssl.create_default_context()
        if not verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context
