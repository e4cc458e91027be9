"""What the body of a 2xx says: an answer, or a failure that looks like one.

Called by core/faults/outcome.py for every success, so a good body is parsed once and by the C
decoder alone. What fails there is read again leniently: Python's kind of JSON (NaN, half an emoji,
a byte order mark) is put right, since the tokens were computed and will be paid for. Invariant:
what comes out as a `GoodAnswer` is strict JSON, an object, and holds what its endpoint promises.
"""

from typing import Final

import msgspec

from lowtide.core.ascii_json import strict_json
from lowtide.core.faults.fault import FaultKind, fault_of_status
from lowtide.core.usage import UNREADABLE, Usage, WireUsage, usage_from


class GoodAnswer(msgspec.Struct, frozen=True, gc=False):
    """`body` is strict JSON. `usage` None: the engine reported none."""

    body: bytes
    usage: Usage | None


class NoAnswer(msgspec.Struct, frozen=True):
    """A 2xx that is no answer; `body` is JSON if there was any."""

    kind: FaultKind
    detail: str
    body: bytes | None = None


class _Choice(msgspec.Struct, gc=False):
    finish_reason: str | None = None


class _Answer(msgspec.Struct, gc=False):
    usage: WireUsage | None = None
    choices: list[_Choice] | None = None
    error: msgspec.Raw = msgspec.Raw(b"")
    object: str | None = None
    status: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"")
    output: msgspec.Raw = msgspec.Raw(b"")


class _Problem(msgspec.Struct):
    message: object = None
    code: object = None
    type: object = None


_answer: Final = msgspec.json.Decoder(_Answer)
_object: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_problem: Final = msgspec.json.Decoder(_Problem)

EMBEDDINGS: Final = "/v1/embeddings"
RESPONSES: Final = "/v1/responses"
_ABORTED: Final = frozenset({"abort", "aborted", "error"})
"""`finish_reason` of a choice that an engine gave up (SGLang, vLLM, OpenRouter)."""


def read_answer(endpoint: str, body: bytes) -> GoodAnswer | NoAnswer:
    """What the body of a 2xx from that endpoint comes to."""
    try:
        answer = _answer.decode(body)
    except msgspec.ValidationError:
        return _read_odd(endpoint, body)
    except UNREADABLE:
        return _read_lax(endpoint, body)
    failure = _failure(endpoint, answer, body)
    if failure is not None:
        return failure
    return GoodAnswer(body, None if answer.usage is None else usage_from(answer.usage))


def _failure(endpoint: str, answer: _Answer, body: bytes) -> NoAnswer | None:
    if answer.choices:
        for choice in answer.choices:
            if choice.finish_reason in _ABORTED:
                detail = f"the engine gave up the answer (finish_reason {choice.finish_reason})"
                return NoAnswer("bad_answer", detail, body)
        return None
    if answer.object == "error" or _is_there(answer.error):
        return _error_in(bytes(answer.error) or body, body)
    if endpoint == RESPONSES:
        return _response_failure(answer, body)
    if endpoint == EMBEDDINGS:
        return None if _is_there(answer.data) else NoAnswer("bad_answer", _LACKS % "data", body)
    return NoAnswer("bad_answer", _LACKS % "choices", body)


_LACKS: Final = "the engine's answer has no %s"


def _response_failure(answer: _Answer, body: bytes) -> NoAnswer | None:
    match answer.status:
        case "queued" | "in_progress":
            detail = (
                f"the engine took the request for later (status {answer.status});"
                " send it without `background`"
            )
            return NoAnswer("background", detail, body)
        case "failed" | "cancelled":
            return NoAnswer("bad_answer", f"the engine's response has {answer.status}", body)
        case "incomplete":  # all its tokens went into reasoning: an answer, if a poor one
            return None
        case _ if _is_there(answer.output):
            return None
    return NoAnswer("bad_answer", _LACKS % "output", body)


def _error_in(raw: bytes, body: bytes) -> NoAnswer:
    """An error object with status 200: its own code says what kind it is."""
    try:
        problem = _problem.decode(raw)
    except UNREADABLE:
        problem = _Problem(message=raw.decode("utf-8", "replace").strip('"'))
    message = problem.message if isinstance(problem.message, str) else ""
    status = _status(problem.code)
    detail = message or f"the engine answered 200 with an error of code {status}"
    return NoAnswer(
        fault_of_status(status, f"{detail} {problem.code} {problem.type}"), detail, body
    )


def _status(code: object) -> int:
    if isinstance(code, str) and code.isdigit() and len(code) == 3:
        code = int(code)
    return code if isinstance(code, int) and 400 <= code <= 599 else 500


def _is_there(raw: msgspec.Raw) -> bool:
    """Whether the field has a value that holds something. A long one is not copied."""
    view = memoryview(raw)
    if view.nbytes > _EMPTY_BYTES_MAX:
        return True
    return b"".join(bytes(view).split()) not in (b"", b"null", b"[]", b"{}", b'""', b"false")


_EMPTY_BYTES_MAX: Final = 16


def _read_odd(endpoint: str, body: bytes) -> GoodAnswer | NoAnswer:
    """Reads JSON with a field of an unusual type: usage of any type is no reason to refuse."""
    try:
        fields = _object.decode(body)
    except UNREADABLE:
        return NoAnswer("bad_answer", "the engine's answer is not a JSON object", body)
    usage: Usage | None = None
    answer = _Answer()
    for name, raw in fields.items():
        if name not in _Answer.__struct_fields__:
            continue
        try:
            part = _answer.decode(b'{"%b":%b}' % (name.encode(), bytes(raw)))
        except UNREADABLE:
            if name == "choices":
                answer.choices = [_Choice()] if _is_there(raw) else None
            continue
        setattr(answer, name, getattr(part, name))
    failure = _failure(endpoint, answer, body)
    if failure is not None:
        return failure
    usage = None if answer.usage is None else usage_from(answer.usage)
    return GoodAnswer(body, usage)


def _read_lax(endpoint: str, body: bytes) -> GoodAnswer | NoAnswer:
    """Reads what is not JSON for a strict reader: nearly JSON, a web page, nothing,
    or half an answer.
    """
    start = body[:256].lstrip(b"\xef\xbb\xbf \t\r\n")
    if not start:
        return NoAnswer("bad_answer", "the engine's answer is empty")
    if start.startswith(b"<"):
        return NoAnswer("page", "the engine answered with a page of HTML")
    mended = strict_json(body)
    if mended is None or mended == body:
        return NoAnswer("bad_answer", "the engine's answer is not a JSON object")
    return read_answer(endpoint, mended)
