"""Why lines failed: the failure as its error line says it, and groups of failures that are alike.

A worker groups the failures of a commit, the store adds them to the batch's in that transaction,
and assembly counts them anew, exactly. Pure. Invariants: only failures cost anything here; a batch
has at most `FAILURE_SHAPES_MAX` groups and one more for all others.
"""

import re
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any, Final

import msgspec

from lowtide import limits
from lowtide.core.faults.fault import fault_of_status

OTHER: Final = "other"
"""The code of the group for all shapes above the bound."""

# Words that hold a digit and nothing but hexadecimal digits (ids), then all other numbers.
_VARYING: Final = re.compile(r"\b(?=[0-9a-f-]*\d)[0-9a-f]{8,}(?:-[0-9a-f]+)*\b|\d+")


_REFUSAL_CODES: Final = frozenset(
    {
        "BadRequestError", "UnprocessableEntityError", "bad_request", "context_length_exceeded",
        "exceed_context_size_error", "invalid_request", "invalid_request_error", "invalid_value",
        "missing_required_parameter", "string_above_max_length", "template_error",
        "unsupported_parameter", "unsupported_value",
    }
)  # fmt: skip
"""Codes of a 400 or 422 about the request, as vLLM, SGLang, llama.cpp and OpenAI name them."""


class LineFailure(msgspec.Struct, frozen=True, gc=False):
    """A failed line: its code and message, as whoever reads the error file finds them."""

    code: str
    message: str
    custom_id: str = ""


class FailureExample(msgspec.Struct, frozen=True):
    """One line of a group; `line` counts from 1."""

    line: int
    custom_id: str
    message: str


class FailureGroup(msgspec.Struct, frozen=True):
    """Failures with one code and one shape of message, which is the message with `#` for each
    number and id in it. `requests`: how many."""

    code: str
    shape: str
    requests: int
    examples: tuple[FailureExample, ...] = ()

    @property
    def key(self) -> tuple[str, str]:
        return self.code, self.shape

    @property
    def is_incurable(self) -> bool:
        """Whether an engine refused what the requests say, so that it refuses them again. Where
        its words blame the set-up, as a model that it lacks, a retry may do."""
        words = self.examples[0].message if self.examples else self.shape
        if self.code in _REFUSAL_CODES:
            return fault_of_status(400, words) == "content"
        if not (self.code.isdigit() and len(self.code) == 3):
            return False
        return fault_of_status(int(self.code), words) == "content"

    @property
    def id(self) -> str:
        """What a retry names the group by."""
        return group_id(self.code, self.shape)

    def with_more(self, more: "FailureGroup") -> "FailureGroup":
        examples = (*self.examples, *more.examples)[: limits.FAILURE_EXAMPLES_MAX]
        return FailureGroup(self.code, self.shape, self.requests + more.requests, examples)


class _Detail(msgspec.Struct, gc=False):
    code: str | int | None = None
    message: Any = None
    type: Any = None


class _Response(msgspec.Struct, gc=False):
    status_code: int = 0
    body: Any = None


class _ErrorLine(msgspec.Struct, gc=False):
    custom_id: str = ""
    error: _Detail | None = None
    response: _Response | None = None


_decode = msgspec.json.Decoder(_ErrorLine).decode


def read_failure(output: bytes) -> LineFailure:
    """What a line of an error file says. Never raises: an engine's words may be anything."""
    try:
        line = _decode(output)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return LineFailure("unknown", "the error line cannot be read")
    if line.error is not None:
        return _failure(line.error.code, line.error.message, None, line.custom_id)
    response = line.response or _Response()
    body = response.body if isinstance(response.body, dict) else {}
    detail = body.get("error", body)  # older engines have the fields in the body itself
    if not isinstance(detail, dict):
        detail = {"message": detail}
    code = detail.get("code")
    if not isinstance(code, str | int):
        code = detail.get("type")
    return _failure(code, detail.get("message"), response.status_code, line.custom_id)


class FailureCount:
    """Groups of failures as they are counted one by one, in the order in which they first come."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str], FailureGroup] = {}
        self._ids: dict[tuple[str, str], str] = {}

    def add(self, line: int, failure: LineFailure) -> str:
        """Counts the line; the id of the group that has it."""
        example = FailureExample(line, failure.custom_id, failure.message)
        group = FailureGroup(failure.code, shape_of(failure.message), 1, (example,))
        key = add_to(self._groups, group)
        if key not in self._ids:
            self._ids[key] = group_id(*key)
        return self._ids[key]

    @property
    def groups(self) -> tuple[FailureGroup, ...]:
        return tuple(self._groups.values())


def add_to(groups: dict[tuple[str, str], FailureGroup], more: FailureGroup) -> tuple[str, str]:
    """Counts `more` among `groups`, which is changed; the key of the group that now has it."""
    if more.key not in groups and len(groups.keys() - {(OTHER, "")}) >= limits.FAILURE_SHAPES_MAX:
        more = FailureGroup(OTHER, "", more.requests, more.examples)
    known = groups.get(more.key)
    groups[more.key] = more if known is None else known.with_more(more)
    return more.key


def group_id(code: str, shape: str) -> str:
    """Twelve hexadecimal digits, the same for that code and shape in every batch."""
    return blake2b(f"{code}\0{shape}".encode(), digest_size=6).hexdigest()


def most_frequent(groups: Iterable[FailureGroup]) -> Sequence[FailureGroup]:
    """The largest first; `other` comes last."""
    return sorted(groups, key=lambda each: (each.code == OTHER, -each.requests, each.key))


def shape_of(message: str) -> str:
    """Messages of one shape differ in numbers and ids alone."""
    return _VARYING.sub("#", message)[: limits.FAILURE_SHAPE_CHARS]


OTHER_ID: Final = group_id(OTHER, "")
"""The id of the group for all shapes above the bound."""


def _failure(code: object, message: object, status: int | None, custom_id: str) -> LineFailure:
    name = str(code) if code not in (None, "") else str(status or "unknown")
    text = message if isinstance(message, str) and message else f"status {status or 'unknown'}"
    chars = limits.FAILURE_CODE_CHARS
    return LineFailure(
        _storable(name[:chars]), _storable(text[: limits.FAILURE_MESSAGE_CHARS]), custom_id
    )


def _storable(text: str) -> str:
    """PostgreSQL has no U+0000 in a text."""
    return text.replace("\0", "\ufffd")
