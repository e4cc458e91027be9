"""A batch in both vendors' shapes: the traps of protocol.md sections 2.7, 3.3 and 9."""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, get_args

import msgspec
import openai.types
import pytest
import together.types

from lowtide.api.dialects import openai as openai_shape
from lowtide.api.dialects import render_batch
from lowtide.api.dialects import together as together_shape
from lowtide.api.objects.batches import BatchObject
from lowtide.core.accounts.catalogue import ModelEntry
from lowtide.core.batches.batch import TERMINAL, Batch, BatchError, Counts, Status
from lowtide.core.reporting.progress import Progress
from lowtide.core.reporting.waiting import Reason
from lowtide.core.usage import Usage

AT = datetime(2026, 11, 21, 1, 4, 35, 123456, UTC)
SAFE = {"VALIDATING", "IN_PROGRESS", "COMPLETED", "FAILED", "EXPIRED", "CANCELLED"}
LITERAL = set(get_args(openai.types.Batch.model_fields["status"].annotation))
ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
STATUSES: tuple[Status, ...] = get_args(Status)


def batch(status: Status = "in_progress", **fields: Any) -> Batch:
    values: dict[str, Any] = {
        "id": "batch_1",
        "project_id": "p",
        "user_id": "u",
        "dialect": "openai",
        "input_file_id": "file-1",
        "input_bytes": 220,
        "endpoint": "/v1/chat/completions",
        "status": status,
        "completion_window_s": 86400,
        "created_at": AT,
        "expires_at": AT + timedelta(days=1),
        **fields,
    }
    return Batch(**values)


def shown(dialect: Any, of: Batch, progress: Progress | None = None) -> dict[str, Any]:
    """As clients read it."""
    return sent(render_batch(of, progress or Progress(), dialect))


def sent(answer: msgspec.Struct) -> dict[str, Any]:
    return dict(msgspec.json.decode(msgspec.json.encode(answer)))


@pytest.mark.parametrize("status", STATUSES)
def test_together_sees_only_the_six_statuses_that_are_safe(status: Status) -> None:
    answer = shown("together", batch(status))
    assert answer["status"] in SAFE
    assert (answer["status"] != "IN_PROGRESS" and status != "validating") == (status in TERMINAL)


@pytest.mark.parametrize("status", STATUSES)
def test_openai_sees_only_statuses_of_its_sdk(status: Status) -> None:
    answer = shown("openai", batch(status))
    assert answer["status"] in LITERAL
    openai.types.Batch.model_validate(answer, strict=True)


def test_what_together_requires_is_never_null() -> None:
    answer = shown("together", batch("validating"))
    for field in (
        "id",
        "user_id",
        "input_file_id",
        "file_size_bytes",
        "status",
        "job_deadline",
        "created_at",
        "endpoint",
        "progress",
    ):
        assert answer[field] is not None, field
    assert isinstance(answer["progress"], float)
    assert answer["error"] is None
    together.types.BatchJob.model_validate(answer)


def test_together_times_are_iso_with_microseconds() -> None:
    answer = shown("together", batch("completed", completed_at=AT + timedelta(microseconds=1)))
    assert answer["created_at"] == "2026-11-21T01:04:35.123456Z"
    assert answer["completed_at"] == "2026-11-21T01:04:35.123457Z"
    assert ISO.fullmatch(answer["job_deadline"])
    assert shown("together", batch(created_at=AT.replace(microsecond=0)))["created_at"] == (
        "2026-11-21T01:04:35.000000Z"
    )


def test_openai_times_are_whole_seconds() -> None:
    answer = shown("openai", batch("cancelling", cancelling_at=AT))
    assert answer["created_at"] == 1795223075
    assert answer["cancelling_at"] == 1795223075
    assert answer["expires_at"] == 1795223075 + 86400
    assert answer["completed_at"] is None


@pytest.mark.parametrize("dialect", ["openai", "together"])
def test_counts_usage_and_metadata_are_never_null(dialect: str) -> None:
    answer = shown(dialect, batch("validating"))
    assert answer["request_counts"] == {"total": 0, "completed": 0, "failed": 0}
    assert answer["metadata"] == {}
    assert answer["usage"]["total_tokens"] == 0
    full = shown(dialect, batch(usage=Usage(10, 4, 3, 1), metadata={"a": "b"}))
    assert full["metadata"] == {"a": "b"}
    assert full["usage"] == {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 4},
        "output_tokens": 3,
        "output_tokens_details": {"reasoning_tokens": 1},
        "total_tokens": 13,
        "unreported_requests": 0,
    }


def test_progress_goes_from_nothing_to_a_hundred() -> None:
    assert shown("together", batch())["progress"] == 0.0
    third = batch(counts=Counts(total=3, completed=1))
    assert shown("together", third)["progress"] == 33.33
    done = batch("completed", counts=Counts(total=3, completed=2, failed=1))
    assert shown("together", done)["progress"] == 100.0


def test_errors_are_an_object_for_openai_and_a_sentence_for_together() -> None:
    errors = (
        BatchError("invalid_json_line", "Not JSON.", 3),
        BatchError("duplicate_custom_id", "Twice.", 9, "custom_id"),
    )
    failed = batch("failed", errors=errors, errors_total=40)
    answer = shown("openai", failed)
    assert answer["errors"] == {
        "object": "list",
        "data": [
            {"code": "invalid_json_line", "message": "Not JSON.", "line": 3, "param": None},
            {"code": "duplicate_custom_id", "message": "Twice.", "line": 9, "param": "custom_id"},
        ],
    }
    assert answer["errors_total"] == 40
    assert shown("together", failed)["error"] == (
        "line 3: Not JSON. (and 39 more errors; `errors` lists them)"
    )
    assert shown("openai", batch())["errors"] is None
    assert "errors_total" not in shown("openai", batch("failed", errors=errors, errors_total=2))


def test_an_error_of_the_whole_file_is_told_without_a_line() -> None:
    error = BatchError("token_limit_exceeded", "Too many tokens.")
    answer = shown("together", batch("failed", errors=(error,), errors_total=1))
    assert answer["error"] == "Too many tokens."


@pytest.mark.parametrize("dialect", ["openai", "together"])
def test_both_tell_stage_reason_and_estimate(dialect: str) -> None:
    progress = Progress(stage="queuing", eta_s=59.6, completion_at=AT, reason="Because.")
    answer = shown(dialect, batch(), progress)
    assert (answer["stage"], answer["reason"], answer["eta_seconds"]) == ("queuing", "Because.", 60)
    assert answer["estimated_completion_at"] in (1795223075, "2026-11-21T01:04:35.123456Z")


@pytest.mark.parametrize("dialect", ["openai", "together"])
def test_both_tell_the_cautious_end(dialect: str) -> None:
    answer = shown(dialect, batch(), Progress(cautious_eta_s=99.6, cautious_completion_at=AT))
    assert answer["cautious_eta_seconds"] == 100
    assert answer["cautious_completion_at"] in (1795223075, "2026-11-21T01:04:35.123456Z")
    unknown = shown(dialect, batch())
    assert unknown["cautious_eta_seconds"] is unknown["cautious_completion_at"] is None


def test_each_dialect_dates_what_holds_a_batch_as_it_dates_the_batch() -> None:
    holds = Reason("live", "The model m serves live traffic first.", "http://a:1 is busy.", AT)
    reported = Progress(reason=holds.public, cause=holds, causes=(holds,))
    for dialect, since in (("openai", 1795223075), ("together", "2026-11-21T01:04:35.123456Z")):
        (each,) = shown(dialect, batch(), reported)["waiting_reasons"]
        assert (each["kind"], each["reason"], each["since"]) == ("live", holds.public, since)


def test_a_page_always_says_whether_more_follows() -> None:
    assert sent(openai_shape.batch_page([], more=False)) == {
        "object": "list",
        "data": [],
        "first_id": None,
        "last_id": None,
        "has_more": False,
    }
    two = [BatchObject(id=id, status="completed") for id in ("b", "a")]
    page = openai_shape.batch_page(two, more=True)
    assert (page.first_id, page.last_id, page.has_more) == ("b", "a", True)


def test_a_model_has_its_price_in_both_shapes_and_an_owner_for_openai() -> None:
    entry = ModelEntry(
        id="org/m-1",
        input_price=Decimal("0.88"),
        output_price=Decimal("0.9"),
        context_length=4096,
    )
    prices = {"input": 0.88, "cached_input": 0.88, "output": 0.9}
    batch_prices = {"input": 0.44, "cached_input": 0.44, "output": 0.45}
    pricing = {**prices, "batch": batch_prices, "batch_discount": 0.5}
    assert sent(openai_shape.model(entry)) == {
        "id": "org/m-1",
        "object": "model",
        "created": 0,
        "owned_by": "org",
        "type": "chat",
        "size": None,
        "context_length": 4096,
        "pricing": pricing,
    }
    reported = sent(together_shape.model(entry))
    assert reported["pricing"] == {"hourly": 0.0, "base": 0.0, "finetune": 0.0, **pricing}
    assert (reported["object"], reported["type"], reported["context_length"]) == (
        "model",
        "chat",
        4096,
    )
    assert reported["organization"] == "org"
    assert openai_shape.model(ModelEntry(id="bare")).owned_by == "lowtide"
