"""A result line as a page shows it: the prompt, the answer, what went wrong, and the JSON. Pure.

Guards: nothing of it is trusted. Every part is text, bounded, and what has an unknown shape is
shown as JSON.
"""

from types import MappingProxyType
from typing import Any, Final

import msgspec

from lowtide.api.objects.lines import LineObject

TEXT_CHARS_MAX: Final = 20_000
"""Characters of one message that are shown; the JSON is a click away."""

_FINISH_WORDS: Final = MappingProxyType(
    {
        "length": "cut off at its limit of output tokens",
        "content_filter": "stopped by a content filter",
        "tool_calls": "asks for a tool",
    }
)
"""What a `finish_reason` means to who reads the answer."""

_Part = dict[str, str]


class ShownLine(msgspec.Struct, frozen=True, kw_only=True):
    """`prompt` and `answer`: messages as `{"role", "text"}`; `error`: a sentence, empty where the
    line succeeded; `finish`: why the answer ended, where that is not its natural end, and
    `finish_words` what this means; `raw`: both lines as indented JSON."""

    place: int
    line: int | None
    custom_id: str
    bytes: int
    prompt: list[_Part]
    answer: list[_Part]
    error: str
    tokens: str
    finish: str
    finish_words: str
    raw: str


def shown_line(line: LineObject) -> ShownLine:
    """What to show of `line`."""
    result, request = _decoded(line.result), _decoded(line.request)
    response = _of(result, "response")
    body = _of(response, "body")
    if not isinstance(body, dict):
        body = response if isinstance(response, dict) else {}
    usage = _of(body, "usage")
    custom_id = _of(result, "custom_id") or _of(request, "custom_id")
    return ShownLine(
        place=line.place,
        line=line.line,
        custom_id=custom_id if isinstance(custom_id, str) else "",
        bytes=line.bytes,
        prompt=_prompt(_of(request, "body")),
        answer=_answer(body),
        error=_error(result, body),
        tokens=_tokens(usage),
        finish=(finish := _finish(body)),
        finish_words=_FINISH_WORDS.get(finish, ""),
        raw=_raw(request, result),
    )


def _decoded(raw: msgspec.Raw | None) -> Any:
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return bytes(raw).decode(errors="replace")


def _of(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _prompt(body: Any) -> list[_Part]:
    messages = _of(body, "messages")
    if isinstance(messages, list):
        return [_message(each) for each in messages]
    for name in ("prompt", "input"):
        if (value := _of(body, name)) is not None:
            return [_part(name, value)]
    return []


def _answer(body: Any) -> list[_Part]:
    parts: list[_Part] = []
    for choice in _list(body, "choices"):
        message = _of(choice, "message")
        parts.append(
            _message(message) if message is not None else _part("text", _of(choice, "text"))
        )
    for each in _list(body, "data"):
        vector = _of(each, "embedding")
        if isinstance(vector, list):
            parts.append(_part("embedding", _embedding(vector)))
    for each in _list(body, "output"):
        texts = [_of(part, "text") for part in _list(each, "content")]
        parts.append(_part(str(_of(each, "type")), "\n".join(filter(None, texts)) or each))
    return parts


def _message(message: Any) -> _Part:
    role, content = _of(message, "role"), _of(message, "content")
    texts = [_content(each) for each in content] if isinstance(content, list) else [content]
    calls = [_call(each) for each in _list(message, "tool_calls")]
    text = "\n".join(each for each in (*texts, *calls) if isinstance(each, str))
    return _part(role if isinstance(role, str) else "message", text)


def _content(part: Any) -> str:
    """A part of a message; an image is named, never loaded."""
    if isinstance(text := _of(part, "text"), str):
        return text
    url = _of(_of(part, "image_url"), "url")
    if isinstance(url, str):
        return f"[image: {url[:100]}{'…' if len(url) > 100 else ''}]"
    return _json(part)


def _call(call: Any) -> str:
    function = _of(call, "function")
    return f"[tool call] {_of(function, 'name')}({_of(function, 'arguments')})"


def _embedding(vector: list[Any]) -> str:
    numbers = [each for each in vector if isinstance(each, int | float)]
    norm = sum(each * each for each in numbers) ** 0.5
    return f"{len(vector):,} dimensions, norm {norm:.4g}"


def _error(result: Any, body: Any) -> str:
    told = _of(result, "error") or _of(body, "error")
    if not told:
        return ""
    code, message = _of(told, "code"), _of(told, "message")
    text = message if isinstance(message, str) else _json(told)
    return f"{code}: {text}"[:TEXT_CHARS_MAX] if isinstance(code, str) else text[:TEXT_CHARS_MAX]


def _tokens(usage: Any) -> str:
    read = _of(usage, "prompt_tokens") or _of(usage, "input_tokens")
    written = _of(usage, "completion_tokens") or _of(usage, "output_tokens")
    parts = [f"{read:,} in" if isinstance(read, int) else "", ""]
    if isinstance(written, int):
        parts[1] = f"{written:,} out"
    return ", ".join(filter(None, parts))


def _finish(body: Any) -> str:
    reasons = [_of(choice, "finish_reason") for choice in _list(body, "choices")]
    return ", ".join(str(each)[:40] for each in reasons if each and each != "stop")


def _list(value: Any, name: str) -> list[Any]:
    items = _of(value, name)
    return items if isinstance(items, list) else []


def _part(role: str, value: Any) -> _Part:
    text = value if isinstance(value, str) else "" if value is None else _json(value)
    if len(text) > TEXT_CHARS_MAX:
        text = f"{text[:TEXT_CHARS_MAX]}… ({len(text):,} characters)"
    return {"role": role[:40], "text": text}


def _raw(request: Any, result: Any) -> str:
    shown = {name: each for name, each in (("request", request), ("result", result)) if each}
    return _json(shown)[: 4 * TEXT_CHARS_MAX]


def _json(value: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
