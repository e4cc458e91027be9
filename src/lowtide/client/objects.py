"""What `lowtide.Client` gives out: a batch as it was when it was asked about, and one result.

Public. Instants are aware, in UTC; money is in dollars, exact.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec

from lowtide.api.objects.batches import LineErrorObject
from lowtide.cli.client.objects import TERMINAL, BatchView, JsonObject, read_view
from lowtide.tables.result_lines import read_result


@dataclass(frozen=True, slots=True)
class LineError:
    """Why a line of the input was refused before anything ran. `line` counts from 1."""

    code: str
    message: str
    line: int | None
    param: str | None


@dataclass(frozen=True, slots=True)
class BatchInfo:
    """A batch as the server told it last. `raw`: the whole answer.

    `status`: `validating`, `in_progress`, `finalizing`, `cancelling`, and at the end `completed`,
    `failed` (refused: see `errors`), `expired` or `cancelled`. `total`, `completed` and `failed`
    count requests. `reason`: what it waits for. `eta_s`: seconds to the end, where it is known.
    `amount`: what was charged; None where models have no price.
    """

    id: str
    status: str
    endpoint: str
    model: str | None
    total: int
    completed: int
    failed: int
    reason: str | None
    eta_s: int | None
    created_at: datetime | None
    ended_at: datetime | None
    expires_at: datetime | None
    input_tokens: int
    output_tokens: int
    amount: Decimal | None
    errors: tuple[LineError, ...]
    metadata: Mapping[str, str]
    raw: JsonObject = field(repr=False, compare=False)

    @property
    def is_over(self) -> bool:
        """Whether nothing changes any more."""
        return self.status in TERMINAL


@dataclass(frozen=True, slots=True)
class RequestResult:
    """What became of one request. `error`: why it has no answer; None where it has one.

    `text`: what the model wrote; for embeddings the vector as JSON. `body`: the engine's whole
    answer. `raw`: the line of the result file.
    """

    custom_id: str
    text: str | None
    error: str | None
    finish_reason: str | None
    tokens: int | None
    body: JsonObject | None = field(repr=False)
    raw: JsonObject = field(repr=False)


def batch_of(answer: JsonObject) -> BatchInfo:
    """Raises CommandError where the answer is no batch."""
    view = read_view(answer, BatchView)
    usage, cost = view.usage, view.cost
    return BatchInfo(
        id=view.id,
        status=view.status,
        endpoint=view.endpoint,
        model=view.model,
        total=view.counts.total,
        completed=view.counts.completed,
        failed=view.counts.failed,
        reason=view.reason,
        eta_s=view.eta_seconds,
        created_at=_instant(view.created_at),
        ended_at=_instant(view.ended_at),
        expires_at=_instant(view.expires_at),
        input_tokens=usage.input_tokens if usage else 0,
        output_tokens=usage.output_tokens if usage else 0,
        amount=cost.amount if cost else None,
        errors=tuple(map(_line_error, view.errors.data)) if view.errors else (),
        metadata=view.metadata or {},
        raw=answer,
    )


def _line_error(view: LineErrorObject) -> LineError:
    return LineError(view.code or "error", view.message, view.line, view.param)


def _instant(seconds: int | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def result_of(line: bytes) -> RequestResult:
    """One line of an output or error file."""
    read = read_result(line)
    raw: Any = msgspec.json.decode(line)
    response = raw.get("response") or {}
    return RequestResult(
        custom_id=read.custom_id,
        text=read.text,
        error=read.error,
        finish_reason=read.finish_reason,
        tokens=read.tokens,
        body=response.get("body"),
        raw=raw,
    )
