"""A single call on its way through a batch: out of its body a line, out of a result line an answer.

Pure. The HTTP API asks `read_flex` of every live call whether it goes to the batch queue;
service/flex makes lines of those that do, and reads their results. Invariants: what asks for the
queue is told to no engine, all other fields are as the client wrote them, byte for byte; and an
answer says the tier that it was given.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from lowtide.core.ascii_json import quote
from lowtide.core.bodies.body_bounds import require_bounded
from lowtide.core.bodies.sse import CONTENT_TYPE
from lowtide.core.errors import LowtideError, missing_parameter
from lowtide.core.faults.outcome import Reply
from lowtide.core.live.live import LiveAnswer, answer_of
from lowtide.core.usage import UNREADABLE

_CHAT: Final = "/v1/chat/completions"
_RESPONSES: Final = "/v1/responses"
_OURS: Final = ("service_tier", "background", "stream", "stream_options")
"""Fields that say how to answer, which is not the engine's to know."""
_TIMEOUT_CODES: Final = frozenset({"timeout"})
_NULL: Final = msgspec.Raw(b"null")
_EMPTY: Final = frozenset({b"", b"null", b'""', b"[]", b"{}", b"false", b"0"})
"""Values of a message that its chunk leaves out."""


class FlexCall(msgspec.Struct, frozen=True, kw_only=True):
    """One call for the batch queue. `fields` are those of its body, raw."""

    endpoint: str
    model: str
    fields: Mapping[str, msgspec.Raw]
    background: bool = False
    streams: bool = False

    @property
    def size(self) -> int:
        """The approximate bytes of the call's line."""
        return sum(len(memoryview(raw)) for raw in self.fields.values())

    def line(self, number: int) -> bytes:
        """The call's line in the input file of a batch, which `number_of` finds
        again by its result.
        """
        kept = {name: bytes(raw) for name, raw in self.fields.items() if name not in _OURS}
        return b'{"custom_id":"%d","method":"POST","url":%b,"body":%b}\n' % (
            number,
            quote(self.endpoint),
            _object(kept).translate(None, b"\r\n"),  # in JSON they stand between tokens alone
        )


class _Asked(msgspec.Struct):
    model: str | None = None
    service_tier: msgspec.Raw = msgspec.Raw(b"null")
    background: msgspec.Raw = msgspec.Raw(b"null")
    stream: msgspec.Raw = msgspec.Raw(b"null")
    store: msgspec.Raw = msgspec.Raw(b"null")


_asked = msgspec.json.Decoder(_Asked)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


def read_flex(endpoint: str, body: bytes) -> FlexCall | None:
    """The call, if it asks for the batch queue; None for one that goes to an engine at once.

    Raises LowtideError for what a call to the queue cannot have.
    """
    if b"flex" not in body and b"background" not in body:
        return None  # every live call comes by here, and few are ours
    require_bounded(body)  # before it costs what it costs to read it
    try:
        asked = _asked.decode(body)
        background = endpoint == _RESPONSES and bytes(asked.background) == b"true"
        if bytes(asked.service_tier) != b'"flex"' and not background:
            return None
        fields = _fields.decode(body)
    except UNREADABLE:
        return None  # the live path says what is wrong with it
    if not asked.model:
        raise missing_parameter("model")
    streams = bytes(asked.stream) == b"true"
    _check(endpoint, background=background, streams=streams, kept=bytes(asked.store) != b"false")
    return FlexCall(
        endpoint=endpoint,
        model=asked.model,
        fields=fields,
        background=background,
        streams=streams,
    )


def _check(endpoint: str, *, background: bool, streams: bool, kept: bool) -> None:
    if background and streams:
        raise LowtideError(
            "invalid_request",
            "A background response cannot be streamed here: leave out 'stream' and retrieve the"
            " response by its id.",
            "stream",
        )
    if background and not kept:
        raise LowtideError(
            "invalid_request",
            "A background response is kept until it is retrieved: 'store' cannot be false.",
            "store",
        )
    if streams and endpoint != _CHAT:
        raise LowtideError(
            "invalid_request",
            "With service_tier 'flex' only chat completions can be streamed: leave out 'stream'.",
            "stream",
        )


class _Failure(msgspec.Struct):
    code: str | None = None
    message: str = ""


class _Given(msgspec.Struct):
    status_code: int
    body: msgspec.Raw


class _ResultLine(msgspec.Struct):
    custom_id: str
    response: _Given | None = None
    error: _Failure | None = None


_result_line = msgspec.json.Decoder(_ResultLine)


class Result(msgspec.Struct, frozen=True):
    """What became of the call of line `number`: an engine's answer, or a failure without one."""

    number: int
    reply: Reply | None
    code: str = ""
    message: str = ""


def read_result(line: bytes) -> Result:
    """An output or error line of a batch of single calls. Raises ValueError for any other."""
    result = _result_line.decode(line)
    number = int(result.custom_id)
    if result.response is not None:
        return Result(number, Reply(result.response.status_code, bytes(result.response.body)))
    error = result.error or _Failure()
    return Result(number, None, error.code or "", error.message)


def answer_to(call: FlexCall, result: Result) -> LiveAnswer:
    """The answer as the engine gave it, with the tier. Raises LowtideError
    where no engine answered.
    """
    if result.reply is None:
        raise failure(result)
    answer = answer_of(result.reply)
    if answer.status >= 300:
        return answer
    body = with_fields(answer.body, {"service_tier": "flex"})
    if call.streams:
        return LiveAnswer(answer.status, CONTENT_TYPE, events_of(call, body))
    return msgspec.structs.replace(answer, body=body)


def failure(result: Result) -> LowtideError:
    """Why there is no answer."""
    if result.code in _TIMEOUT_CODES:
        return LowtideError("engine_timeout", f"The engine did not answer: {result.message}.")
    return LowtideError("engine_error", f"The engine gave no answer: {result.message}")


def with_fields(body: bytes, more: Mapping[str, Any]) -> bytes:
    """A JSON object with these fields set; the others keep their bytes and their places."""
    values = {name: bytes(raw) for name, raw in _fields.decode(body).items()}
    values.update((name, msgspec.json.encode(value)) for name, value in more.items())
    return _object(values)


def _object(values: Mapping[str, bytes]) -> bytes:
    return b"{%b}" % b",".join(b"%b:%b" % (quote(name), value) for name, value in values.items())


class _Choice(msgspec.Struct):
    """What an engine means by a field is not looked at: no object is made for anything within."""

    index: msgspec.Raw = msgspec.Raw(b"0")
    message: msgspec.Raw = _NULL
    logprobs: msgspec.Raw = _NULL
    finish_reason: msgspec.Raw = _NULL


class _Completion(msgspec.Struct):
    id: msgspec.Raw = _NULL
    created: msgspec.Raw = _NULL
    model: msgspec.Raw = _NULL
    service_tier: msgspec.Raw = _NULL
    usage: msgspec.Raw = _NULL
    choices: msgspec.Raw = _NULL


_completion = msgspec.json.Decoder(_Completion)
_choice = msgspec.json.Decoder(_Choice)
_items = msgspec.json.Decoder(list[msgspec.Raw])


def events_of(call: FlexCall, body: bytes) -> bytes:
    """A finished chat completion as the stream of events that its client asked for.

    One chunk has each choice whole, the next one ends it, as OpenAI's own streams do; usage comes
    last, for clients that asked for it.
    """
    answer = _completion.decode(body)
    head: dict[str, Any] = {
        "id": answer.id,
        "created": answer.created,
        "model": answer.model,
        "service_tier": answer.service_tier,
        "object": "chat.completion.chunk",
    }
    choices = [_choice.decode(raw) for raw in _objects_in(answer.choices)]
    chunks = [
        *(head | {"choices": [_opening(choice)]} for choice in choices),
        *(head | {"choices": [_ending(choice)]} for choice in choices),
    ]
    if _wants_usage(call):
        chunks.append(head | {"choices": [], "usage": answer.usage})
    events = [b"data: %b\n\n" % msgspec.json.encode(chunk) for chunk in chunks]
    return b"".join(events) + b"data: [DONE]\n\n"


def _opening(choice: _Choice) -> dict[str, Any]:
    message = _fields.decode(choice.message) if _is_object(choice.message) else {}
    delta: dict[str, Any] = {
        name: value for name, value in message.items() if bytes(value) not in _EMPTY
    }
    if calls := delta.get("tool_calls"):
        numbered = enumerate(map(_fields.decode, _objects_in(calls)))
        delta["tool_calls"] = [{"index": place, **tool} for place, tool in numbered]
    return {
        "index": choice.index,
        "delta": delta,
        "logprobs": choice.logprobs,
        "finish_reason": None,
    }


def _objects_in(raw: msgspec.Raw) -> list[msgspec.Raw]:
    """The objects of a JSON list; of anything else none."""
    return (
        list(filter(_is_object, _items.decode(raw))) if bytes(memoryview(raw)[:1]) == b"[" else []
    )


def _is_object(raw: msgspec.Raw) -> bool:
    return bytes(memoryview(raw)[:1]) == b"{"


def _ending(choice: _Choice) -> dict[str, Any]:
    has_reason = bytes(choice.finish_reason) not in _EMPTY
    reason = choice.finish_reason if has_reason else "stop"
    return {"index": choice.index, "delta": {}, "finish_reason": reason}


def _wants_usage(call: FlexCall) -> bool:
    options = msgspec.json.decode(call.fields.get("stream_options", msgspec.Raw(b"null")))
    return isinstance(options, dict) and options.get("include_usage") is True
