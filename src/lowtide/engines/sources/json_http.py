"""JSON from the API of the system that runs the engines: Kubernetes, Ray.

The adapters of `ports.sources` and of `ports.scalers` call it. Invariant: whatever the network or
the other side does is a SourceError, which holds no token; no answer larger than
`limits.SOURCE_BYTES_MAX` is held.
"""

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import httpx
import msgspec

from lowtide import limits
from lowtide.ports.sources import SourceError

_DETAIL_CHARS_MAX = 200
_WORDS: Final = ("message", "error", "detail", "msg")
"""Fields in which Kubernetes and Ray say why they refuse."""


class StatusError(SourceError):
    """The API server answered something else than 200."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class JsonApi:
    """One API server. Its token and its certificates are read again whenever it is connected to,
    for both are exchanged while it runs.
    """

    def __init__(
        self, url: str, *, token_file: Path | None = None, ca_file: Path | None = None
    ) -> None:
        self._url = url.rstrip("/")
        self._token_file = token_file
        self._ca_file = ca_file
        self._client: httpx.AsyncClient | None = None

    async def get(self, path: str, **query: str) -> Any:
        """What it answers to GET. Raises SourceError."""
        async with self.opened(path, limits.SOURCE_READ_S, **query) as response:
            return await self._decoded(path, response)

    async def send(
        self, method: str, path: str, body: Any, media_type: str = "application/json", **query: str
    ) -> Any:
        """What it answers to a body of JSON. Raises SourceError."""
        content, headers = msgspec.json.encode(body), {"Content-Type": media_type}
        call = (method, path, query, content, headers)
        async with self._answer(*call, read_s=limits.SCALER_ASK_S) as response:
            return await self._decoded(path, response)

    @asynccontextmanager
    async def opened(self, path: str, read_s: float, **query: str) -> AsyncIterator[httpx.Response]:
        """An answer of 200 to be read piece by piece; `read_s`: the longest silence in seconds.
        Raises SourceError; StatusError for another answer; also while it is read.
        """
        async with self._answer("GET", path, query, read_s=read_s) as response:
            yield response

    @asynccontextmanager
    async def _answer(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        content: bytes | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
        *,
        read_s: float,
    ) -> AsyncIterator[httpx.Response]:
        try:
            request = self._open().build_request(
                method,
                f"{self._url}{path}",
                params=query,
                headers={**headers, **self._headers()},
                content=content,
                timeout=httpx.Timeout(limits.SOURCE_READ_S, read=read_s),
            )
            response = await self._open().send(request, stream=True)
            try:
                if response.status_code != HTTPStatus.OK:
                    words = f"{self._url}{path}: {await _refusal(response)}"
                    raise StatusError(words, response.status_code)
                yield response
            finally:
                await response.aclose()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            await self.aclose()  # the next one reads the certificates again
            words = str(error) or type(error).__name__
            raise SourceError(f"{self._url}{path}: {words}") from None

    async def _decoded(self, path: str, response: httpx.Response) -> Any:
        data = bytearray()
        async for piece in response.aiter_bytes():
            data += piece
            if len(data) > limits.SOURCE_BYTES_MAX:
                raise SourceError(f"{self._url}{path}: the answer is too long")
        try:
            return msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise SourceError(f"{self._url}{path}: the answer is no JSON") from None

    async def aclose(self) -> None:
        """Closes its connections; the next call opens others."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _open(self) -> httpx.AsyncClient:
        if self._client is None:
            self._client = httpx.AsyncClient(verify=self._trust(), trust_env=False)
        return self._client

    def _trust(self) -> ssl.SSLContext | bool:
        if self._url.startswith("http://"):
            return False  # nothing to check, and reading the system's authorities takes a while
        try:
            return ssl.create_default_context(cafile=self._ca_file)
        except OSError as error:  # ssl.SSLError among them
            raise SourceError(f"{self._ca_file}: holds no certificates: {error}") from None

    def _headers(self) -> dict[str, str]:
        if self._token_file is None:
            return {}
        try:
            token = self._token_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "is no text"
            raise SourceError(f"{self._token_file}: cannot be read: {reason}") from None
        if not token or not token.isascii() or not token.isprintable():
            raise SourceError(f"{self._token_file}: holds no token")
        return {"Authorization": f"Bearer {token}"}


async def _refusal(response: httpx.Response) -> str:
    """The status and the beginning of what the server says about it."""
    data = b""
    async for piece in response.aiter_bytes():
        data += piece
        if len(data) > limits.SOURCE_BYTES_MAX:
            break
    try:
        answer = msgspec.json.decode(data)
        fields = answer if isinstance(answer, dict) else {}
        words = next((str(fields[field]) for field in _WORDS if fields.get(field)), "")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        words = ""
    said = f": {' '.join(words.split())[:_DETAIL_CHARS_MAX]}" if words else ""
    return f"it answers {response.status_code}{said}"
