"""What an attempt came to, as a value.

An engine client returns an `Attempt` (a `Reply`, or `NoReply` when none came); `classify` turns
it into one of five outcomes, and the dispatcher and the live routes act on the outcome alone. No
exception crosses this border: an engine's failure is data. Which kind of failure it is, and whose
fault, says the table in core/faults/fault.py.
"""

import re
from typing import Any, Final, Literal

import msgspec

from lowtide.core.faults.answer import GoodAnswer, read_answer
from lowtide.core.faults.fault import FAULTS, FaultKind, fault_of_status, fault_of_transport
from lowtide.core.usage import NO_USAGE, UNREADABLE, Usage


class Reply(msgspec.Struct, frozen=True, gc=False):
    """A complete HTTP answer of an engine. `body` is as received, not yet checked to be JSON."""

    status: int
    body: bytes
    retry_after_s: float | None = None  # parsed from Retry-After or retry-after-ms


NoReplyKind = Literal["connect", "timeout", "broken", "oversize"]


class NoReply(msgspec.Struct, frozen=True, gc=False):
    """No complete answer came.

    connect:  the request was never sent (refused, DNS, TLS, connect time-out).
    timeout:  sent, but no complete answer within the attempt's time.
    broken:   sent, and the connection ended or spoke rubbish before the answer was complete.
    oversize: the answer passed the bound on its size.
    """

    kind: NoReplyKind
    detail: str


Attempt = Reply | NoReply


class Succeeded(msgspec.Struct, frozen=True, gc=False):
    """Final: a 2xx that holds an answer. Billed. `body` is strict JSON."""

    status: int
    body: bytes
    usage: Usage


class Rejected(msgspec.Struct, frozen=True):
    """Final: goes to the error file. `body` is the engine's own JSON answer where it gave one."""

    code: str
    message: str
    status: int | None = None
    body: bytes | None = None


class Throttled(msgspec.Struct, frozen=True):
    """The engine has no room. Tried again later, costs the request no try."""

    detail: str
    retry_after_s: float | None = None


class Failed(msgspec.Struct, frozen=True):
    """The engine was asked and gave no answer: what else is known decides whose fault it is."""

    kind: FaultKind
    detail: str
    status: int | None = None
    body: bytes | None = None
    retry_after_s: float | None = None


class Interrupted(msgspec.Struct, frozen=True):
    """The call never reached the engine, or this process aborted it. Costs the request no try."""

    detail: str
    kind: FaultKind = "unreachable"


Outcome = Succeeded | Rejected | Throttled | Failed | Interrupted


def classify(attempt: Attempt, endpoint: str) -> Outcome:
    """What the wire gave for a call to `endpoint` (`/v1/...`), as an outcome."""
    if isinstance(attempt, Reply) and 200 <= attempt.status < 300:  # apart: it is nearly all
        return _classify_success(attempt.status, attempt.body, endpoint)
    match attempt:
        case Reply(status=status, body=body, retry_after_s=after):
            words = words_of(body)
            message = error_message(body) or _page_title(body)
            message = message or f"the engine answered {status}"
            kind = fault_of_status(status, words)
            return _outcome(kind, message, status, _json_or_none(body), after)
        case NoReply(kind="connect", detail=detail):
            return Interrupted(detail, fault_of_transport("connect", detail))
        case NoReply(kind=kind, detail=detail):
            return _outcome(fault_of_transport(kind, detail), detail)


def final_failure(outcome: Failed) -> Rejected:
    """What a request is recorded as whose own fault it was."""
    return Rejected(FAULTS[outcome.kind].code, outcome.detail, outcome.status, outcome.body)


def _outcome(
    kind: FaultKind,
    message: str,
    status: int | None = None,
    body: bytes | None = None,
    after_s: float | None = None,
) -> Outcome:
    fault = FAULTS[kind]
    match fault.blame:
        case "request":
            return Rejected(fault.code, message, status, body)
        case "capacity":
            return Throttled(message, after_s)
        case _:
            return Failed(kind, message, status, body, after_s)


def _classify_success(status: int, body: bytes, endpoint: str) -> Outcome:
    answer = read_answer(endpoint, body)
    if isinstance(answer, GoodAnswer):
        return Succeeded(status, answer.body, answer.usage or NO_USAGE)
    said = answer.body
    return _outcome(
        answer.kind, answer.detail, status, None if said is None else _json_or_none(said)
    )


# ---- the words of an engine ----

WORDS_BYTES_MAX: Final = 64 * 1024
"""The bytes of an error body that are searched for words: engines say what matters at its start."""


class _ErrorDetail(msgspec.Struct):
    message: str | None = None
    code: Any = None
    type: Any = None


class _ErrorBody(msgspec.Struct):
    error: _ErrorDetail | str | None = None
    message: str | None = None
    detail: Any = None
    code: Any = None


def error_message(body: bytes) -> str | None:
    """The human sentence in an engine's error body, whichever of the usual shapes it has."""
    parsed = _error_body(body)
    if parsed is None:
        return None
    if isinstance(parsed.error, _ErrorDetail):
        return parsed.error.message
    return parsed.error or parsed.message or _detail(parsed.detail)


def words_of(body: bytes) -> str:
    """All that a refusal says of its kind: its sentence, and its codes."""
    parsed = _error_body(body)
    if parsed is None:
        return _page_title(body) or body[:256].decode("utf-8", "replace")
    words = [error_message(body), parsed.code]
    if isinstance(parsed.error, _ErrorDetail):
        words += [parsed.error.code, parsed.error.type]
    return " ".join(str(word) for word in words if isinstance(word, str | int))


def _error_body(body: bytes) -> _ErrorBody | None:
    try:
        return msgspec.json.decode(body, type=_ErrorBody)
    except UNREADABLE:
        return None


def _detail(detail: object) -> str | None:
    """FastAPI's: a sentence, or a list of what is wrong with which field."""
    if isinstance(detail, str):
        return detail
    if not isinstance(detail, list):
        return None
    said = []
    for item in detail[:_DETAILS_MAX]:
        if isinstance(item, dict) and isinstance(item.get("msg"), str):
            where = item.get("loc")
            path = ".".join(map(str, where)) if isinstance(where, list) else ""
            said.append(f"{path}: {item['msg']}" if path else item["msg"])
    return "; ".join(said) or None


_DETAILS_MAX: Final = 5
_TITLE: Final = re.compile(rb"<title>\s*([^<]{1,200}?)\s*</title>", re.IGNORECASE)


def _page_title(body: bytes) -> str | None:
    """What a page of HTML says in its title, as nginx's do."""
    title = _TITLE.search(body[:WORDS_BYTES_MAX])
    return None if title is None else f"a web page: {title[1].decode('utf-8', 'replace')}"


def _json_or_none(body: bytes) -> bytes | None:
    try:
        msgspec.json.decode(body)
    except UNREADABLE:
        return None
    return body
