"""An HTTP server of one handler, for the APIs of other systems that a test plays.

A handler answers with a status and a body, or with pieces that are sent as they come. Connections
are closed after each answer.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True, slots=True)
class PlayedCall:
    """A request, as the handler sees it; names of headers are in small letters, and so are their
    values.
    """

    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    method: str = "GET"
    body: bytes = b""


Answer = tuple[int, bytes | AsyncIterator[bytes]]
Handler = Callable[[PlayedCall], Answer]


@asynccontextmanager
async def small_http_server(handler: Handler) -> AsyncIterator[str]:
    """Serves `handler` at the address that is yielded."""
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(_serve(handler, reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


async def _serve(
    handler: Handler, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    with suppress(ConnectionError, asyncio.IncompleteReadError):
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.rstrip().split("\r\n")
            method, target, _ = first.split(" ")
            url = urlsplit(target)
            headers = dict(line.lower().split(": ", 1) for line in lines)
            sent = await reader.readexactly(int(headers.get("content-length", "0")))
            call = PlayedCall(url.path, dict(parse_qsl(url.query)), headers, method, sent)
            status, body = handler(call)
            phrase = HTTPStatus(status).phrase
            writer.write(f"HTTP/1.1 {status} {phrase}\r\nConnection: close\r\n".encode())
            if isinstance(body, bytes):
                writer.write(f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
            else:
                writer.write(b"Transfer-Encoding: chunked\r\n\r\n")
                async for piece in body:
                    writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                    await writer.drain()
                writer.write(b"0\r\n\r\n")
            await writer.drain()
        finally:
            writer.close()
