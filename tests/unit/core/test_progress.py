"""Stage, estimate and reason, decided from values alone."""

from datetime import UTC, datetime, timedelta

import pytest

from lowtide.core.batch import Batch, Counts, Status
from lowtide.core.progress import Queue, eta_s, progress_of, stage_of

START = datetime(2026, 11, 21, tzinfo=UTC)


def batch(status: Status = "in_progress", settled: int = 0, total: int = 100) -> Batch:
    return Batch(
        id="batch_1",
        project_id="p",
        user_id="u",
        dialect="openai",
        input_file_id="file-1",
        input_bytes=1,
        endpoint="/v1/chat/completions",
        status=status,
        completion_window_s=86400,
        created_at=START,
        expires_at=START + timedelta(days=1),
        first_settled_at=START if settled else None,
        counts=Counts(total=total, completed=settled),
    )


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("status", "settled", "stage"),
    [
        ("validating", 0, "validation"),
        ("in_progress", 0, "queuing"),
        ("in_progress", 1, "processing"),
        ("finalizing", 100, "aggregation"),
        ("expiring", 1, "aggregation"),
        ("cancelling", 1, "aggregation"),
        ("completed", 100, None),
        ("failed", 0, None),
        ("expired", 1, None),
        ("cancelled", 1, None),
    ],
)
def test_every_status_has_its_stage(status: Status, settled: int, stage: str | None) -> None:
    assert stage_of(batch(status, settled)) == stage


def test_the_estimate_goes_on_at_the_pace_so_far() -> None:
    assert eta_s(batch(settled=11), at(100)) == pytest.approx(890.0)
    progress = progress_of(batch(settled=11), at(100))
    assert progress.completion_at == at(990)


@pytest.mark.parametrize(
    ("settled", "total", "seconds"),
    [(0, 100, 100), (1, 100, 100), (4, 1000, 100), (50, 100, 4.9)],
)
def test_too_little_to_go_by_gives_no_estimate(settled: int, total: int, seconds: float) -> None:
    assert eta_s(batch(settled=settled, total=total), at(seconds)) is None


def test_a_small_share_is_enough_when_the_batch_is_small() -> None:
    assert eta_s(batch(settled=2, total=200), at(10)) is not None
    assert eta_s(batch(settled=5, total=1_000_000), at(10)) is not None


def test_there_is_no_estimate_outside_of_processing() -> None:
    assert eta_s(batch("finalizing", 100), at(100)) is None


def test_a_batch_that_moves_gives_no_reason() -> None:
    queue = Queue(waiting=500, leased=9)
    moving = progress_of(batch(settled=3), at(9), models=["m"], replicas={"m": None}, queue=queue)
    assert moving.reason is None


def test_its_own_requests_are_not_what_a_batch_waits_behind() -> None:
    assert progress_of(batch(), at(1), queue=Queue(waiting=90, leased=10)).reason is None
    reason = progress_of(batch(), at(1), queue=Queue(waiting=95, leased=12)).reason
    assert reason == "Queued with 7 requests of other batches for the same models."


def test_a_model_without_replica_is_a_reason_even_while_others_move() -> None:
    progress = progress_of(
        batch(settled=3), at(9), models=["m", "n"], replicas={"m": None, "n": "it is cooling down"}
    )
    assert progress.reason == "The model n is not available: it is cooling down."


def test_where_nothing_is_known_of_replicas_nothing_is_said() -> None:
    assert progress_of(batch(), at(1), models=["m"], replicas=None).reason is None


def test_a_long_list_of_models_is_cut() -> None:
    names = [f"m{i}" for i in range(8)]
    reason = progress_of(batch(), at(1), models=names, replicas={}).reason
    assert reason is not None
    assert reason.endswith("No replica serves the model m4. And 3 more models.")


def test_validation_that_does_not_start_is_a_reason_after_a_while() -> None:
    assert progress_of(batch("validating"), at(59)).reason is None
    assert "worker" in (progress_of(batch("validating"), at(60)).reason or "")


@pytest.mark.parametrize("status", ["completed", "failed", "expired", "cancelled"])
def test_a_batch_that_ended_waits_for_nothing(status: Status) -> None:
    ended = progress_of(batch(status, 3), at(999), models=["m"], replicas={})
    assert (ended.stage, ended.eta_s, ended.reason) == (None, None, None)


# ---- live traffic ----


def test_a_batch_that_waits_for_live_traffic_says_how_much_there_is() -> None:
    told = progress_of(batch(), at(9), models=("m",), replicas={"m": "live load 82 %"})
    assert told.reason == "The model m serves live traffic first: live load 82 %."


def test_a_model_that_is_not_there_is_the_better_reason() -> None:
    told = progress_of(batch(), at(9), models=("m", "n"), replicas={"m": "live load 82 %"})
    assert told.reason == "No replica serves the model n."
