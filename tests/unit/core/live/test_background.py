"""Background responses as the Responses API shows them."""

import json
from datetime import UTC, datetime
from typing import get_args

import msgspec
import pytest

from lowtide.core.batches.batch import TERMINAL, BatchError, Status
from lowtide.core.live.background import (
    STATUS_OF,
    answered,
    batch_id_of,
    failed,
    response_id,
    status_of,
    unfinished,
)
from testkit.batches import a_batch

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
BATCH = a_batch(NOON, id="batch_1f", endpoint="/v1/responses", expires_at=NOON, flex="background")


def test_every_state_of_a_batch_is_one_of_a_response() -> None:
    assert set(STATUS_OF) == set(get_args(Status))
    ends = {"completed", "failed", "cancelled"}
    assert {STATUS_OF[status] for status in TERMINAL} == ends


def test_ids_go_both_ways() -> None:
    assert response_id("batch_1f") == "resp_1f"
    assert batch_id_of("resp_1f") == "batch_1f"
    assert batch_id_of("batch_1f") is None


def test_it_is_in_progress_once_a_worker_has_it() -> None:
    running = msgspec.structs.replace(BATCH, status="in_progress")
    assert status_of(running) == "queued"
    assert status_of(running, is_leased=True) == "in_progress"
    assert status_of(BATCH, is_leased=True) == "queued"


def test_before_it_ends_it_repeats_its_request() -> None:
    fields = {"model": msgspec.Raw(b'"alias"'), "temperature": msgspec.Raw(b"0.10")}
    seen = unfinished(BATCH, "queued", fields)
    assert b'"temperature":0.10' in seen
    shown = json.loads(seen)
    assert (shown["id"], shown["status"], shown["model"]) == ("resp_1f", "queued", "alias")
    assert (shown["output"], shown["usage"], shown["error"]) == ([], None, None)
    assert shown["created_at"] == int(NOON.timestamp())


@pytest.mark.parametrize(
    ("errors", "words"),
    [((), "completion window"), ((BatchError("x", "the reason"),), "the reason")],
)
def test_a_failed_one_says_why(errors: tuple[BatchError, ...], words: str) -> None:
    batch = msgspec.structs.replace(BATCH, errors=errors)
    assert words in json.loads(unfinished(batch, "failed", {}))["error"]["message"]


def test_an_answer_comes_under_our_id() -> None:
    seen = json.loads(answered(BATCH, b'{"id":"engine","background":false,"output":[1]}'))
    assert seen == {"id": "resp_1f", "background": True, "output": [1], "service_tier": "flex"}


def test_a_refusal_becomes_its_error() -> None:
    seen = json.loads(failed(unfinished(BATCH, "completed", {}), "invalid_prompt", "too long"))
    assert seen["status"] == "failed"
    assert seen["error"] == {"code": "invalid_prompt", "message": "too long"}
