"""An answer that came as a stream, put together into the one that would have come whole.

Beside live traffic the dispatcher asks engines for streams (core/capacity/prefill.py says what
for), but a result file holds whole answers. Only requests whose stream can say all that their
answer says are streamed: those made of PLAIN_FIELDS. What a stream holds beyond text is not guessed
at: `finish` answers None then, and the request is sent again, for a whole answer. Pure. Source of
the two shapes: OpenAI's API reference, "Streaming" of chat completions and of completions.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from lowtide.core.faults.outcome import Attempt, NoReply, Reply
from lowtide.core.usage import UNREADABLE
from lowtide.limits import REPLY_BYTES_MAX

STREAMED_ENDPOINTS: Final = frozenset({"/v1/chat/completions", "/v1/completions"})

PLAIN_FIELDS: Final = frozenset(
    """
    add_generation_prompt bad_words cache_salt chat_template_kwargs frequency_penalty guided_choice
    guided_grammar guided_json guided_regex ignore_eos include_stop_str_in_output json_schema
    length_penalty logit_bias max_completion_tokens max_tokens messages metadata min_p min_tokens
    model presence_penalty priority prompt prompt_cache_key reasoning_effort repetition_penalty
    response_format safety_identifier seed service_tier skip_special_tokens
    spaces_between_special_tokens stop stop_token_ids store structured_outputs temperature top_k
    top_p truncate_prompt_tokens user
    """.split()  # noqa: SIM905 (forty lines of a list tell no more)
)
"""Fields of a request that leave its answer one text, or one text and its reasoning."""

STREAM_FIELDS: Final[Mapping[str, Any]] = {
    "stream": True,
    "stream_options": {"include_usage": True},
}
"""What is set in a body to have its answer streamed, with the usage at its end."""


def is_plain(body: bytes) -> bool:
    """Whether the answer to that request can be put together from a stream."""
    try:
        return msgspec.json.decode(body, type=dict[str, msgspec.Raw]).keys() <= PLAIN_FIELDS
    except UNREADABLE:
        return False


class _Unreadable(Exception):
    """Raised when the stream holds what this module cannot put together."""


class StreamedAnswer:
    """One stream, fed block by block."""

    def __init__(self) -> None:
        self.has_begun = False
        """Whether a first token came: the engine has read the whole prompt."""
        self._rest = b""
        self._bytes = 0
        self._head: dict[str, Any] = {}
        self._choices: dict[int, _Choice] = {}
        self._usage: Any = None
        self._error: bytes | None = None
        self._is_readable = True
        self._is_over = False

    def feed(self, block: bytes) -> None:
        """Takes the next bytes, cut anywhere."""
        self._bytes += len(block)
        lines = (self._rest + block).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            if line.startswith(b"data:"):
                self._event(line[5:].strip())

    @property
    def is_oversize(self) -> bool:
        """Whether the stream is longer than any answer may be; it is not to be read on."""
        return self._bytes > REPLY_BYTES_MAX

    def finish(self, status: int) -> Attempt | None:
        """The answer that the ended stream stands for; None when the stream does not show it."""
        if self._error is not None:
            return Reply(_status_of(self._error), self._error)
        if not self._is_readable:
            return None
        if not self._choices or not all(choice.is_over for choice in self._choices.values()):
            if self._is_over:
                return None
            return NoReply("broken", "the engine's stream ended in the middle of an answer")
        if self._usage is None:
            return None
        answer = {
            **self._head,
            "choices": [
                {"index": index, **self._choices[index].whole()} for index in sorted(self._choices)
            ],
            "usage": self._usage,
        }
        return Reply(status, msgspec.json.encode(answer))

    # -- inside ------------------------------------------------------------------------------------

    def _event(self, payload: bytes) -> None:
        if payload == b"[DONE]":
            self._is_over = True
        elif self._is_readable and self._error is None:
            try:
                self._chunk(payload)
            except (*UNREADABLE, _Unreadable):
                self._is_readable = False

    def _chunk(self, payload: bytes) -> None:
        chunk = _fields(msgspec.json.decode(payload))
        if "choices" not in chunk and chunk.get("error"):
            self._error = payload
            return
        choices = chunk.pop("choices", None) or []
        if not isinstance(choices, list):
            raise _Unreadable
        self._usage = chunk.pop("usage", None) or self._usage
        for name, value in chunk.items():
            if value is not None or name not in self._head:
                self._head[name] = _whole_object(value) if name == "object" else value
        for part in map(_fields, choices):
            index = part.pop("index", 0)
            if not isinstance(index, int):
                raise _Unreadable
            choice = self._choices.setdefault(index, _Choice())
            self.has_begun = choice.add(part) or self.has_begun


class _Choice:
    """One answer of those that were asked for."""

    def __init__(self) -> None:
        self.is_over = False
        self._is_chat = False
        self._texts: dict[str, list[str] | None] = {}
        self._role = "assistant"
        self._other: dict[str, Any] = {}

    def add(self, part: dict[str, Any]) -> bool:
        """Adds a chunk's part. Returns whether it holds a token, or the end. Raises _NotTold."""
        if "delta" in part:
            delta = _fields(part.pop("delta"))
            self._is_chat = True
            self._role = delta.pop("role", None) or self._role
        else:
            delta = {"text": part.pop("text", None)}
        is_token = False
        for name, value in delta.items():
            is_token = self._add_text(name, value) or is_token
        for name, value in part.items():
            if name == "logprobs" and value is not None:
                raise _Unreadable
            if value is not None or name not in self._other:
                self._other[name] = value
        self.is_over = self.is_over or part.get("finish_reason") is not None
        return is_token or self.is_over

    def whole(self) -> dict[str, Any]:
        """The choice as an answer without streaming has it; the caller adds its index."""
        texts = {
            name: None if pieces is None else "".join(pieces)
            for name, pieces in self._texts.items()
        }
        if self._is_chat:
            message = {"role": self._role, "content": None, **texts}
            return {"message": message, "logprobs": None, **self._other}
        return {"text": "", "logprobs": None, **texts, **self._other}

    def _add_text(self, name: str, value: object) -> bool:
        if value is None or value == []:  # engines name tool calls where there are none
            self._texts.setdefault(name, None)
            return False
        if not isinstance(value, str):
            raise _Unreadable
        pieces = self._texts.get(name)
        if pieces is None:
            pieces = self._texts[name] = []
        pieces.append(value)
        return bool(value)


def _fields(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Unreadable
    return value


def _whole_object(name: object) -> object:
    return name.removesuffix(".chunk") if isinstance(name, str) else name


class _Problem(msgspec.Struct):
    code: int | None = None


class _Problems(msgspec.Struct):
    error: _Problem


def _status_of(error: bytes) -> int:
    """The HTTP status that an error amid a stream stands for."""
    try:
        code = msgspec.json.decode(error, type=_Problems).error.code
    except UNREADABLE:
        return 500
    return code if code is not None and 400 <= code <= 599 else 500
