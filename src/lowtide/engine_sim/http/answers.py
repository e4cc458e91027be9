"""The bodies of answers: whole ones, and the events of streams, in OpenAI's shapes."""

import base64
import itertools
import json
import random
import time
from array import array
from collections.abc import Iterator
from typing import Any, Final

from lowtide.engine_sim.http.asking import Ask
from lowtide.engine_sim.http.tokenizer import TOKEN_BYTES

DIMENSIONS: Final = 64
_numbers: Final = itertools.count(1)

Body = dict[str, Any]


def usage(ask: Ask, made: int) -> Body:
    """The usage object after so many generated tokens."""
    prompt, cached = ask.prompt_tokens, ask.cached_tokens
    if ask.kind == "response":
        return {
            "input_tokens": prompt,
            "output_tokens": made,
            "total_tokens": prompt + made,
            "input_tokens_details": {"cached_tokens": cached},
            "output_tokens_details": {"reasoning_tokens": 0},
        }
    if ask.kind == "embedding":
        return {"prompt_tokens": prompt, "total_tokens": prompt}
    return {
        "prompt_tokens": prompt,
        "completion_tokens": made,
        "total_tokens": prompt + made,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def whole(ask: Ask) -> Body:
    """The answer to a call without a stream."""
    if ask.kind == "embedding":
        return _embeddings(ask)
    if ask.kind == "response":
        return _response(ask, "completed", _identity("resp"))
    made = sum(request.output_tokens for request in ask.requests)
    choices = []
    for index, answer in enumerate(ask.answers):
        shape: Body = {"text": answer}
        if ask.kind == "chat":
            shape = {"message": {"role": "assistant", "content": answer}}
        choices.append(
            {"index": index, **shape, "finish_reason": ask.finish_reason, "logprobs": None}
        )
    kind = "chat.completion" if ask.kind == "chat" else "text_completion"
    return _head(ask, kind) | {"choices": choices, "usage": usage(ask, made)}


class Stream:
    """The events of one streamed answer; each method gives bytes to write."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._head = _head(
            ask, "chat.completion.chunk" if ask.kind == "chat" else "text_completion"
        )
        self._response_id = _identity("resp")
        self._sent = [0] * len(ask.requests)
        self._sequence = itertools.count()

    def opening(self) -> bytes:
        """The events before the first token."""
        if self._ask.kind == "response":
            begun = _response(self._ask, "in_progress", self._response_id)
            part = {"type": "output_text", "text": "", "annotations": []}
            item = {"type": "message", "id": "msg_1", "role": "assistant", "content": []}
            return b"".join((
                self._typed("response.created", response=begun),
                self._typed("response.in_progress", response=begun),
                self._typed("response.output_item.added", output_index=0, item=item),
                self._typed("response.content_part.added", **_PLACE, part=part),
            ))  # fmt: skip
        if self._ask.kind == "chat":
            indices = range(len(self._ask.requests))
            return b"".join(
                self._chunk(i, {"delta": {"role": "assistant", "content": ""}}) for i in indices
            )
        return b""

    def tokens(self, made: list[int]) -> bytes:
        """What came since the last call; `made` counts the tokens of each choice."""
        return b"".join(self._deltas(made))

    def closing(self) -> bytes:
        """The events after the last token."""
        ask = self._ask
        if ask.kind == "response":
            response = _response(ask, "completed", self._response_id)
            item, text = response["output"][0], ask.answers[0]
            return b"".join((
                self._typed("response.output_text.done", **_PLACE, text=text),
                self._typed("response.content_part.done", **_PLACE, part=item["content"][0]),
                self._typed("response.output_item.done", output_index=0, item=item),
                self._typed("response.completed", response=response),
            ))  # fmt: skip
        empty: Body = {"delta": {}} if ask.kind == "chat" else {"text": ""}
        ends = [
            self._chunk(i, empty | {"finish_reason": ask.finish_reason})
            for i in range(len(ask.requests))
        ]
        if ask.include_usage:
            made = sum(request.output_tokens for request in ask.requests)
            ends.append(_event(self._head | {"choices": [], "usage": usage(ask, made)}))
        return b"".join((*ends, b"data: [DONE]\n\n"))

    def _deltas(self, made: list[int]) -> Iterator[bytes]:
        for index, (count, sent) in enumerate(zip(made, self._sent, strict=True)):
            if count <= sent:
                continue
            self._sent[index] = count
            answer = self._ask.answers[index]
            text = answer[sent * TOKEN_BYTES : count * TOKEN_BYTES]
            if self._ask.kind == "response":
                yield self._typed("response.output_text.delta", **_PLACE, delta=text)
            elif self._ask.kind == "chat":
                yield self._chunk(index, {"delta": {"content": text}})
            else:
                yield self._chunk(index, {"text": text})

    def _chunk(self, index: int, shape: Body) -> bytes:
        choice = {"index": index, "logprobs": None, "finish_reason": None} | shape
        return _event(self._head | {"choices": [choice]})

    def _typed(self, kind: str, **fields: object) -> bytes:
        body = {"type": kind, "sequence_number": next(self._sequence), **fields}
        return f"event: {kind}\n".encode() + _event(body)


_PLACE: Final = {"item_id": "msg_1", "output_index": 0, "content_index": 0}


def _event(body: Body) -> bytes:
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


def _identity(prefix: str) -> str:
    return f"{prefix}-sim-{next(_numbers)}"


def _head(ask: Ask, kind: str) -> Body:
    prefix = "chatcmpl" if ask.kind == "chat" else "cmpl"
    return {
        "id": _identity(prefix),
        "object": kind,
        "created": int(time.time()),
        "model": ask.model,
    }


def _response(ask: Ask, status: str, identity: str) -> Body:
    done = status == "completed"
    part = {"type": "output_text", "text": ask.answers[0], "annotations": [], "logprobs": []}
    message = {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": status,
        "content": [part],
    }
    return {
        "id": identity,
        "object": "response",
        "created_at": int(time.time()),
        "status": status,
        "model": ask.model,
        "output": [message] if done else [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": usage(ask, ask.requests[0].output_tokens) if done else None,
    }


def _embeddings(ask: Ask) -> Body:
    size = ask.body.get("dimensions") or DIMENSIONS
    data = []
    for index, request in enumerate(ask.requests):
        chance = random.Random(hash(tuple(request.pieces)))
        numbers = [chance.uniform(-1.0, 1.0) for _ in range(size)]
        vector: object = numbers
        if ask.body.get("encoding_format") == "base64":
            vector = base64.b64encode(array("f", numbers).tobytes()).decode()
        data.append({"object": "embedding", "index": index, "embedding": vector})
    head = {"id": _identity("embd"), "object": "list", "created": int(time.time())}
    return head | {"model": ask.model, "data": data, "usage": usage(ask, 0)}
