"""An engine whose answers can be read, and a receiver of webhooks: one server in a thread.

The simulated engines answer filler of the right length; this one sorts short reviews by the words
in them, so that a page of results shows prompts with answers that fit. It refuses what real engines
refuse (a prompt that is too long, a picture), and one kind of line fails for a reason of its own.
"""

import asyncio
import json
from contextlib import AbstractContextManager
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from testkit.app_thread import AppThread, running_app

MODEL: Final = "Qwen/Qwen3-8B"
CONTEXT_TOKENS: Final = 4096
START_S: Final = 30.0

_TOPICS: Final = {
    "delivery": ("arrived", "courier", "parcel", "late"),
    "quality": ("broke", "leaks", "sturdy", "scratched", "works"),
    "price": ("cheap", "expensive", "price", "money"),
    "support": ("support", "answered", "refund", "hotline"),
}
_BAD: Final = ("broke", "leaks", "late", "scratched", "expensive", "never", "refund", "lost")
_GOOD: Final = ("love", "sturdy", "works", "great", "fast", "perfect", "friendly")


def running_review_engine() -> AbstractContextManager[AppThread]:
    """The engine, which serves while the context lasts; its `address` has no /v1."""
    routes = [
        Route("/v1/chat/completions", _chat, methods=["POST"]),
        Route("/v1/models", _models, methods=["GET"]),
        Route("/hooks/{name}", _hook, methods=["POST"]),
    ]
    return running_app(routes, "review-engine", START_S)


async def _models(_: Request) -> Response:
    return JSONResponse({"object": "list", "data": [{"id": MODEL, "object": "model"}]})


async def _hook(request: Request) -> Response:
    """A receiver of webhooks: one name takes them, every other one is out of order."""
    await request.body()
    return Response(status_code=204 if request.path_params["name"] == "ok" else 503)


async def _chat(request: Request) -> Response:
    body = await request.json()
    text = str(body["messages"][-1].get("content"))
    tokens = 24 + len(text) // 4
    if tokens > CONTEXT_TOKENS:
        return _refusal(
            f"This model's maximum context length is {CONTEXT_TOKENS} tokens. However, your"
            f" request has {tokens} input tokens. Please reduce the length of the input.",
        )
    if "image_url" in text:
        return _refusal(f"{MODEL} is not a multimodal model")
    if "emoji only" in text:
        return _refusal("Failed to apply chat template: no text in message 1", "template_error")
    await asyncio.sleep(0.02)
    return JSONResponse(_answer(text, tokens))


def _answer(text: str, tokens: int) -> dict[str, Any]:
    words = text.lower()
    topic = next((name for name, hints in _TOPICS.items() if any(h in words for h in hints)), "-")
    good, bad = (sum(hint in words for hint in hints) for hints in (_GOOD, _BAD))
    mood = "positive" if good > bad else "negative" if bad > good else "neutral"
    content = json.dumps({"sentiment": mood, "topic": topic})
    return {
        "id": "chatcmpl-demo",
        "object": "chat.completion",
        "created": 1767225600,
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content},
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": tokens, "completion_tokens": 14, "total_tokens": tokens + 14,
        },
    }  # fmt: skip


def _refusal(message: str, code: str = "invalid_request_error") -> Response:
    error = {"message": message, "type": "BadRequestError", "param": None, "code": code}
    return JSONResponse({"error": error}, 400)
