"""An engine whose every answer can be told from every other: it says back what it was asked.

For tests with real clients, where a lost, doubled or exchanged result has to show. A real HTTP
server on 127.0.0.1 with an event loop and a thread of its own, so that synchronous clients and
child processes can be served while a test waits. It answers the four OpenAI generation paths in
full shape. The last user message, the prompt or the input decides:

    {"any": "json"}     is answered word for word, as a model told to write JSON would
    refuse WHY          400 with WHY as the message
    wait SECONDS TEXT   "echo: wait SECONDS TEXT", after so many seconds, or at once if it `hurries`
    TEXT                "echo: TEXT"

A call without a model is refused with 400, as engines do, and not counted.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from testkit.app_thread import running_app
from testkit.patience import PATIENCE_S

START_S: Final = PATIENCE_S
"""How long the engine may take to listen, or to stop, on a busy machine."""

_CREATED: Final = 1767225600
_NO_MODEL: Final = {
    "message": "model is required", "type": "invalid_request_error", "param": "model",
    "code": "missing_field",
}  # fmt: skip


class EchoEngine:
    """Use `running_echo_engine()`; `url` is the base for clients, with /v1."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        """How often each text was asked."""
        self.url = ""
        self.stop: Callable[[], None] = lambda: None
        """Ends it early, as an engine that dies does."""
        self.hurries = False
        """Whether calls that come from now on wait no more: a test has seen what it waited for."""

    def routes(self) -> list[Route]:
        """What it answers."""
        return [
            Route(f"/v1/{path}", self._answering(shape), methods=["POST"])
            for path, shape in _SHAPES.items()
        ]

    def _answering(self, shape: Any) -> Any:
        async def answer(request: Request) -> JSONResponse:
            body = await request.json()
            if "model" not in body:
                return JSONResponse({"error": _NO_MODEL}, 400)
            asked = _asked(body)
            self.calls[asked] += 1
            word, _, rest = asked.partition(" ")
            if word == "refuse":
                error = {"message": rest, "type": "invalid_request_error", "param": None}
                return JSONResponse({"error": error | {"code": "refused"}}, 400)
            if word == "wait" and not self.hurries:
                await _wait(request, float(rest.partition(" ")[0]))
            return JSONResponse(shape(asked if asked.startswith("{") else f"echo: {asked}", body))

        return answer


@contextmanager
def running_echo_engine() -> Iterator[EchoEngine]:
    """An engine that serves while the context lasts."""
    engine = EchoEngine()
    with running_app(engine.routes(), "echo-engine", START_S) as app:
        engine.url, engine.stop = f"{app.address}/v1", app.stop
        yield engine


async def _wait(request: Request, seconds: float) -> None:
    """Waits until the time is over or the client is gone, as an engine does that
    stops computing then.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while (await request.receive())["type"] != "http.disconnect":
                pass


def _asked(body: dict[str, Any]) -> str:
    """The text that decides the answer."""
    asked = body.get("messages", body.get("input", body.get("prompt", "")))
    while isinstance(asked, list):
        asked = asked[-1]
        if isinstance(asked, dict):
            asked = asked.get("content", asked.get("text", ""))
    return str(asked)


def _usage(text: str, given: str, made: str) -> dict[str, int]:
    words = len(text.split())
    return {given: words, made: words, "total_tokens": 2 * words}


def _chat(text: str, body: dict[str, Any]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if body.get("tools"):
        call = {"name": body["tools"][0]["function"]["name"], "arguments": text}
        message = {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "call-1", "type": "function", "function": call}],
        }
    choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": _CREATED,
        "model": body["model"],
        "choices": [choice],
        "usage": _usage(text, "prompt_tokens", "completion_tokens"),
    }


def _completion(text: str, body: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": _CREATED,
        "model": body["model"],
        "choices": [{"index": 0, "text": text, "finish_reason": "stop", "logprobs": None}],
        "usage": _usage(text, "prompt_tokens", "completion_tokens"),
    }


def _embedding(text: str, body: dict[str, Any]) -> dict[str, Any]:
    numbers = [byte / 256 for byte in text.encode()[:16]]
    words = len(text.split())
    return {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": numbers}],
        "model": body["model"],
        "usage": {"prompt_tokens": words, "total_tokens": words},
    }


def _response(text: str, body: dict[str, Any]) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": []}
    message = {
        "type": "message",
        "id": "msg-1",
        "role": "assistant",
        "status": "completed",
        "content": [part],
    }
    return {
        "id": "resp-1",
        "object": "response",
        "created_at": _CREATED,
        "status": "completed",
        "model": body["model"],
        "output": [message],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": _usage(text, "input_tokens", "output_tokens")
        | {
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
        },
    }


_SHAPES: Final = {
    "chat/completions": _chat,
    "completions": _completion,
    "embeddings": _embedding,
    "responses": _response,
}


def asks(texts: list[str], model: str, *, url: str | None = "/v1/chat/completions") -> bytes:
    """An input file with a line for each text; `custom_id` is r1, r2 and so on.

    Together's lines need no method and no `url`.
    """
    lines = []
    for number, text in enumerate(texts, 1):
        line: dict[str, Any] = {"custom_id": f"r{number}"}
        if url is not None:
            line |= {"method": "POST", "url": url}
        body = {"model": model, "messages": [{"role": "user", "content": text}]}
        lines.append(json.dumps(line | {"body": body}))
    return "".join(line + "\n" for line in lines).encode()
