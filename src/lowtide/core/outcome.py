"""What an attempt came to, as a value.

An engine client returns an `Attempt` (a `Reply`, or `NoReply` when none came); `classify` turns
it into one of five outcomes, and the dispatcher acts on the outcome alone. No exception crosses
this
border: an engine's failure is data. Source of the classification: scheduling.md section 2(j).
"""

from typing import Final, Literal

import msgspec

from lowtide.core.usage import NO_USAGE, UNREADABLE, Usage, usage_of


class Reply(msgspec.Struct, frozen=True):
    """A complete HTTP answer of an engine. `body` is as received, not yet checked to be JSON."""

    status: int
    body: bytes
    retry_after_s: float | None = None  # parsed from Retry-After or retry-after-ms


NoReplyKind = Literal["connect", "timeout", "broken", "oversize"]


class NoReply(msgspec.Struct, frozen=True):
    """No complete answer came.

    connect:  the request was never sent (refused, DNS, TLS, connect time-out).
    timeout:  sent, but no complete answer within the attempt's time.
    broken:   sent, and the connection ended or spoke rubbish before the answer was complete.
    oversize: the answer passed the bound on its size.
    """

    kind: NoReplyKind
    detail: str


Attempt = Reply | NoReply


class Succeeded(msgspec.Struct, frozen=True):
    """Final: a 2xx JSON answer. Billed."""

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


class Transient(msgspec.Struct, frozen=True):
    """Worth another try, a bounded number of times; `engine_died` makes the request a suspect."""

    code: str
    detail: str
    status: int | None = None
    body: bytes | None = None
    retry_after_s: float | None = None
    engine_died: bool = False


class Interrupted(msgspec.Struct, frozen=True):
    """Never reached the engine, or we took it back ourselves. Costs the request no try."""

    detail: str


Outcome = Succeeded | Rejected | Throttled | Transient | Interrupted

THROTTLE_STATUSES: Final = frozenset({429, 503})
TRANSIENT_STATUSES: Final = frozenset({408, 409, 425})
"""Client-error statuses that may pass; every other 4xx is final."""


def classify(attempt: Attempt) -> Outcome:
    """Turn what the wire gave into what it means for the request."""
    match attempt:
        case NoReply(kind="connect", detail=detail):
            return Interrupted(detail)
        case NoReply(kind="timeout", detail=detail):
            return Transient("timeout", detail)
        case NoReply(kind="broken", detail=detail):
            return Transient("engine_error", detail, engine_died=True)
        case NoReply(detail=detail):
            return Rejected("response_too_large", detail)
        case Reply(status=status, body=body) if 200 <= status < 300:
            return _classify_success(status, body)
        case Reply(status=status, retry_after_s=after) if status in THROTTLE_STATUSES:
            return Throttled(f"the engine answered {status}", after)
        case Reply(status=status, body=body, retry_after_s=after) if (
            status >= 500 or status in TRANSIENT_STATUSES
        ):
            detail = error_message(body) or f"the engine answered {status}"
            return Transient("engine_error", detail, status, _json_or_none(body), after)
        case Reply(status=status, body=body):
            message = error_message(body) or f"the engine answered {status}"
            return Rejected("request_rejected", message, status, _json_or_none(body))


def final_failure(outcome: Transient) -> Rejected:
    """What a request that used up its tries is recorded as."""
    return Rejected(outcome.code, outcome.detail, outcome.status, outcome.body)


class _ErrorDetail(msgspec.Struct):
    message: str | None = None


class _ErrorBody(msgspec.Struct):
    error: _ErrorDetail | str | None = None
    message: str | None = None
    detail: str | None = None


def error_message(body: bytes) -> str | None:
    """The human sentence in an engine's error body, whichever of the usual shapes it has."""
    try:
        parsed = msgspec.json.decode(body, type=_ErrorBody)
    except UNREADABLE:
        return None
    if isinstance(parsed.error, _ErrorDetail):
        return parsed.error.message
    return parsed.error or parsed.message or parsed.detail


def _classify_success(status: int, body: bytes) -> Outcome:
    try:
        usage = usage_of(body)
    except UNREADABLE:
        return Transient("engine_error", "the engine's answer is not a JSON object", status)
    return Succeeded(status, body, usage if usage is not None else NO_USAGE)


def _json_or_none(body: bytes) -> bytes | None:
    try:
        msgspec.json.decode(body)
    except UNREADABLE:
        return None
    return body
