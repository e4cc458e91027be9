"""An engine that answers at once: the other side of every benchmark.

    python -m bench.backend --port 0 --delay-ms 0

prints one JSON line, `{"host": ..., "port": ..., "url": ...}`, and serves until it is terminated or
the pipe on its stdin closes. It answers POST on the four OpenAI generation paths with a body of
about 300 bytes and usage, GET /v1/models, and GET /served with the number of answers so far. Each
answer is made in advance, so that the backend costs a fraction of what it measures. Of the request
body it sees two things: a chat with `"stream":true` in it (spelled so) is answered with events, one
a word; and with `--ms-per-token` an answer takes as long as its `"max_tokens"` say,
however many calls there are.
"""

import argparse
import asyncio
import json
import os
import re
import stat
import sys
from functools import partial
from typing import Any, cast

import httptools
import uvloop

MODEL = "bench-model"
_USAGE = {"prompt_tokens": 27, "completion_tokens": 12, "total_tokens": 39}
_TEXT = "Cold water returns; the harbour sleeps under the moon."


def _answers() -> dict[bytes, dict[str, Any]]:
    choice = {"index": 0, "logprobs": None, "finish_reason": "stop"}
    message = {"role": "assistant", "content": _TEXT}
    text = {"type": "output_text", "text": _TEXT}
    output = {"type": "message", "id": "msg-1", "role": "assistant", "content": [text]}
    stamp = {"created": 1767225600, "model": MODEL, "usage": _USAGE}
    return {
        b"/v1/chat/completions": {
            "id": "chatcmpl-00000000000000000000000000000001",
            "object": "chat.completion",
            "choices": [choice | {"message": message}],
            **stamp,
        },
        b"/v1/completions": {
            "id": "cmpl-00000000000000000000000000000001",
            "object": "text_completion",
            "choices": [choice | {"text": _TEXT}],
            **stamp,
        },
        b"/v1/embeddings": {
            "object": "list",
            "data": [{"object": "embedding", "index": 0, "embedding": [0.0125] * 24}],
            "model": MODEL,
            "usage": {"prompt_tokens": 27, "total_tokens": 27},
        },
        b"/v1/responses": {
            "id": "resp_00000000000000000000000000000001",
            "object": "response",
            "created_at": 1767225600,
            "status": "completed",
            "model": MODEL,
            "output": [output],
            "usage": {"input_tokens": 27, "output_tokens": 12, "total_tokens": 39},
        },
        b"/v1/models": {"object": "list", "data": [{"id": MODEL, "object": "model"}]},
    }


def _wire(status: bytes, answer: dict[str, Any]) -> bytes:
    body = json.dumps(answer).encode()
    return (
        b"HTTP/1.1 %b\r\ndate: Thu, 01 Jan 2026 00:00:00 GMT\r\nserver: bench\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
        % (status, len(body), body)
    )


def _event_wire() -> bytes:
    """A stream of chat chunks, whole: the first event is what a client waits for."""
    events = []
    for word in _TEXT.split():
        choice = {"index": 0, "delta": {"content": f"{word} "}, "finish_reason": None}
        chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [choice]}
        events.append(json.dumps(chunk | {"created": 1767225600, "model": MODEL}))
    events.append(json.dumps({"choices": [], "usage": _USAGE}))
    body = b"".join(b"data: %b\n\n" % text.encode() for text in [*events, "[DONE]"])
    return (
        b"HTTP/1.1 200 OK\r\ndate: Thu, 01 Jan 2026 00:00:00 GMT\r\nserver: bench\r\n"
        b"content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
        b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    )


STREAM = _event_wire()
MAX_TOKENS = re.compile(rb'"max_tokens": ?(\d{1,6})\b')
WIRE = {path: _wire(b"200 OK", answer) for path, answer in _answers().items()}
NOT_FOUND = _wire(b"404 Not Found", {"error": {"message": "no such path"}})


class Backend(asyncio.Protocol):
    """One connection. Answers in order; with a delay, each answer waits on its own timer."""

    served = 0  # by all connections

    def __init__(self, delay_s: float, per_token_s: float) -> None:
        self._delay_s = self._least_delay_s = delay_s
        self._per_token_s = per_token_s
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._wire = NOT_FOUND

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._transport.abort()

    def on_url(self, url: bytes) -> None:
        self._wire = WIRE.get(url, NOT_FOUND)
        if url == b"/served":
            self._wire = _wire(b"200 OK", {"served": Backend.served})
        self._delay_s = self._least_delay_s

    def on_body(self, data: bytes) -> None:
        if b'"stream":true' in data:
            self._wire = STREAM
        if self._per_token_s and (bound := MAX_TOKENS.search(data)):
            self._delay_s = self._least_delay_s + int(bound[1]) * self._per_token_s

    def on_message_complete(self) -> None:
        Backend.served += 1
        if self._delay_s:
            self._loop.call_later(self._delay_s, self._answer_late, self._wire)
        else:
            self._transport.write(self._wire)

    def _answer_late(self, wire: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(wire)


async def serve(host: str, port: int, delay_s: float, per_token_s: float = 0.0) -> None:
    """Serve for good; where stdin is a pipe, until it ends.

    So a backend started with `stdin=PIPE` never outlives the benchmark that started it.
    """
    loop = asyncio.get_running_loop()
    made = partial(Backend, delay_s, per_token_s)
    server = await loop.create_server(made, host, port, backlog=4096)
    bound = server.sockets[0].getsockname()[1]
    address = {"host": host, "port": bound, "url": f"http://{host}:{bound}/v1"}
    sys.stdout.write(json.dumps(address) + "\n")
    sys.stdout.flush()
    if not stat.S_ISFIFO(os.fstat(sys.stdin.fileno()).st_mode):
        await server.serve_forever()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.read(4096):
        pass
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--delay-ms", type=float, default=0.0, help="before each answer")
    parser.add_argument("--ms-per-token", type=float, default=0.0, help="of max_tokens, besides")
    args = parser.parse_args()
    delays_s = args.delay_ms / 1000, args.ms_per_token / 1000
    uvloop.run(serve(args.host, args.port, *delays_s))


if __name__ == "__main__":
    main()
