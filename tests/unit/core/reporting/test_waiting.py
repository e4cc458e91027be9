"""Why a batch waits: one sentence for its tenant, one for operators, each for the right cause."""

from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import msgspec
import pytest

from lowtide.core.batches.batch import Batch, Counts, Status
from lowtide.core.reporting.standing import NOTHING_KNOWN, Asleep, Hold, Standing
from lowtide.core.reporting.waiting import NO_QUEUE, REMEDIES, Kind, Queue, Reason, waiting
from lowtide.core.reporting.worker_report import BatchReport
from testkit.batches import a_batch

START = datetime(2026, 11, 21, tzinfo=UTC)
WELL = Standing(live=("w1",), models={"m": None, "n": None}, knows_all_batches=True)
INSIDE = "http://10.0.0.1:8000/v1: no connection to gpu-1.corp.example:8000"
"""What an operator may read."""


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def batch(
    status: Status = "in_progress",
    completed: int = 0,
    failed: int = 0,
    last: datetime | None = None,
) -> Batch:
    return a_batch(
        START,
        status=status,
        in_progress_at=START,
        first_settled_at=START if completed or failed else None,
        last_settled_at=last,
        counts=Counts(total=100, completed=completed, failed=failed),
    )


def with_models(**models: Hold | None) -> Standing:
    return Standing(live=("w1",), models=models, knows_all_batches=True)


def with_batch(**fields: object) -> Standing:
    known = BatchReport(id="batch_1", **{"moved_at": START, **fields})  # type: ignore[arg-type]
    return Standing(
        live=("w1",), models={"m": None}, batches={"batch_1": known}, knows_all_batches=True
    )


def reason_of(job: Batch, standing: Standing = WELL, **asked: Any) -> Reason | None:
    """The gravest of `reasons_of`."""
    return next(iter(reasons_of(job, standing, **asked)), None)


def reasons_of(
    job: Batch,
    standing: Standing = WELL,
    *,
    after_s: float = 20.0,
    models: tuple[str, ...] = ("m",),
    queue: Queue = NO_QUEUE,
    in_flight_max: int | None = None,
) -> tuple[Reason, ...]:
    found = waiting(job, at(after_s), models, standing, queue, in_flight_max)
    for each in found:
        for inside in ("10.0.0.1", "gpu-1", "/srv", "http://"):
            assert inside not in each.public
    assert len({each.kind for each in found}) == len(found)
    return found


def public(reason: Reason | None) -> str | None:
    return reason.public if reason is not None else None


# ---- workers and storage ----


@pytest.mark.parametrize("status", ["validating", "in_progress", "finalizing", "cancelling"])
def test_no_worker_at_all_is_said_at_once_and_in_every_state(status: Status) -> None:
    reported = reason_of(batch(status), Standing(), after_s=0.0)
    assert public(reported) == "No worker is running, so nothing is done."


def test_a_worker_that_died_is_told_with_its_last_sign_of_life() -> None:
    reported = reason_of(batch(), Standing(gone={"w1": at(-90), "w2": at(-40)}))
    assert reported is not None
    assert reported.public == (
        "No worker is running: the last one was heard of at 2026-11-20 23:59:20 UTC."
    )
    assert reported.since == at(-40)


def test_storage_that_takes_no_results_is_told_without_its_path() -> None:
    standing = Standing(live=("w1",), results_error="Not a directory: '/srv/lowtide/blobs/x'")
    reported = reason_of(batch(completed=50), standing)
    assert reported is not None
    assert reported.public.startswith("Results cannot be stored: the server's storage")
    assert "/srv/lowtide/blobs/x" in reported.full


def test_storage_that_is_away_is_why_a_file_is_not_validated_though_a_worker_runs() -> None:
    standing = Standing(live=("w1",), validation_error="the bucket at http://s3:9000 refuses")
    reported = reason_of(batch("validating"), standing, after_s=1.0)
    assert reported is not None
    assert reported.public == "The input file cannot be read: the server's storage does not answer."
    assert "http://s3:9000" in reported.full


def test_a_file_that_is_being_validated_waits_for_nothing_at_first() -> None:
    standing = Standing(live=("w1",), validating={"batch_1": at(1)})
    assert reason_of(batch("validating"), standing, after_s=9.0) is None
    assert public(reason_of(batch("validating"), standing, after_s=90.0)) == (
        "The input file is being validated since 2026-11-21 00:00:01 UTC."
    )


def test_a_file_that_waits_behind_another_says_so() -> None:
    standing = Standing(live=("w1",), validating={"batch_2": at(1)})
    assert public(reason_of(batch("validating"), standing)) == (
        "The input file waits while those of other batches are validated."
    )


def test_only_where_nothing_is_known_it_is_asked_whether_a_worker_runs() -> None:
    assert "is a worker running?" in (public(reason_of(batch("validating"), NOTHING_KNOWN)) or "")
    assert public(reason_of(batch("validating"))) == "The input file waits to be validated."


# ---- models ----


def test_a_model_that_is_held_is_a_reason_even_while_others_move() -> None:
    hold = Hold("unreachable", INSIDE, "no connection to gpu-1.corp.example:8000", at(3))
    reported = reason_of(batch(completed=3), with_models(m=None, n=hold), models=("m", "n"))
    assert reported is not None
    assert reported.public == (
        "The model n is not available since 2026-11-21 00:00:03 UTC: no connection to (address)."
    )
    assert INSIDE in reported.full
    assert reported.since == at(3)


def test_where_nothing_is_known_of_replicas_nothing_is_said() -> None:
    assert reason_of(batch(), NOTHING_KNOWN) is None


def test_a_long_list_of_models_is_cut() -> None:
    reported = public(reason_of(batch(), with_models(), models=tuple(f"m{i}" for i in range(8))))
    assert reported is not None
    assert reported.startswith("No replica serves the model m0.")
    assert reported.endswith("No replica serves the model m4. And 3 more models.")


def test_a_batch_that_waits_for_live_traffic_says_how_much_there_is() -> None:
    live = Hold("live_first", "live load 82 %", "live load 82 %")
    assert public(reason_of(batch(), with_models(m=live))) == (
        "The model m serves live traffic first: live load 82 %."
    )
    assert public(reason_of(batch(), with_models(m=live), models=("m", "n"))) == (
        "No replica serves the model n."
    )


def test_hours_that_are_closed_are_told() -> None:
    closed = Hold("closed", "window opens 22:00", "window opens 22:00")
    assert public(reason_of(batch(), with_models(m=closed))) == (
        "The model m is not available: window opens 22:00."
    )


# ---- the batch itself ----


def test_a_batch_whose_own_requests_fail_is_told_so_with_the_engine_s_words() -> None:
    failing = with_batch(failures=12, last_failure="engine_error: boom at http://10.0.0.1:8000")
    reported = reason_of(batch(), failing)
    assert reported is not None
    assert reported.public == (
        "12 attempts at requests of this batch failed lately, and are tried again;"
        " the last: engine_error: boom at (address)."
    )
    assert "10.0.0.1" in reported.full


def test_a_failure_now_and_then_is_no_reason() -> None:
    assert reason_of(batch(completed=9), with_batch(failures=1, last_failure="timeout: x")) is None


def test_a_batch_that_burns_is_told_so() -> None:
    burning = with_batch(last_failure="invalid_request: no such field")
    assert public(reason_of(batch(completed=2, failed=30), burning)) == (
        "30 of the 32 finished requests of this batch failed;"
        " the last: invalid_request: no such field."
    )


def test_what_holds_the_model_comes_before_what_the_batch_does() -> None:
    failing = with_batch(failures=12, last_failure="engine_error: boom")
    held = Standing(
        live=("w1",), models={"m": Hold("failing", INSIDE, "boom")}, batches=failing.batches
    )
    assert (public(reason_of(batch(), held)) or "").startswith("The model m is not available")


# ---- its turn ----


def test_its_own_requests_are_not_what_a_batch_waits_behind() -> None:
    assert reason_of(batch(), queue=Queue(waiting=90, leased=10)) is None
    assert public(reason_of(batch(), queue=Queue(waiting=95, leased=12))) == (
        "Queued with 7 requests of other batches for the same models."
    )


def test_a_bound_of_the_organization_is_told_before_the_queue() -> None:
    reported = reason_of(batch(), queue=Queue(waiting=95, leased=12), in_flight_max=12)
    assert "may have 12 requests at engines" in (public(reported) or "")


def test_a_batch_that_moves_gives_no_reason() -> None:
    queue = Queue(waiting=500, leased=9)
    moving = with_batch(moved_at=at(15))
    assert reason_of(batch(completed=3), moving, queue=queue) is None


def test_a_batch_that_has_begun_and_is_nobody_s_turn_now_is_queued() -> None:
    queue = Queue(waiting=500, leased=9)
    assert "Queued with 412" in (public(reason_of(batch(completed=3), queue=queue)) or "")


def test_what_holds_another_endpoint_is_no_reason() -> None:
    hold = Hold("misconfigured", f"{INSIDE}: no route", "the engine does not offer this endpoint")
    standing = msgspec.structs.replace(WELL, calls={("m", "/v1/embeddings"): hold})
    assert reason_of(batch(), standing, after_s=2.0) is None
    embeddings = msgspec.structs.replace(batch(), endpoint="/v1/embeddings")
    assert "does not offer" in (public(reason_of(embeddings, standing, after_s=2.0)) or "")


def test_a_batch_whose_engine_is_silent_says_since_when() -> None:
    silent = with_batch(moved_at=at(5))
    assert reason_of(batch(completed=3), silent, after_s=20.0) is None
    reported = reason_of(batch(completed=3), silent, after_s=60.0)
    assert reported is not None
    assert reported.public == (
        "Its requests are with the engine, which has answered none of them since"
        " 2026-11-21 00:00:05 UTC."
    )
    assert reported.since == at(5)


def test_a_batch_of_which_nothing_came_back_says_so_soon() -> None:
    begun = with_batch(moved_at=at(2))
    assert reason_of(batch(), begun, after_s=2.0) is None
    assert "answered none" in (public(reason_of(batch(), begun, after_s=6.0)) or "")


@pytest.mark.parametrize("status", ["finalizing", "expiring", "cancelling"])
def test_a_batch_whose_results_take_long_to_write_says_since_when(status: Status) -> None:
    field = "cancelling_at" if status == "cancelling" else "finalizing_at"
    job = msgspec.structs.replace(batch(status), **{field: at(5)})
    assert reason_of(job, after_s=20.0) is None
    reported = reason_of(job, after_s=60.0)
    assert reported is not None
    assert (reported.kind, reported.since) == ("assembly", at(5))


def test_clocks_that_are_a_moment_apart_make_no_batch_stand() -> None:
    assert reason_of(batch(completed=3), with_batch(moved_at=at(61.5)), after_s=60.0) is None


def test_an_instant_from_a_clock_that_was_ahead_hides_no_standstill() -> None:
    assert reason_of(batch(completed=3), with_batch(moved_at=at(300)), after_s=60.0) is not None


@pytest.mark.parametrize("status", ["validating", "finalizing", "cancelling"])
def test_a_batch_dated_ahead_says_why_it_stands_in_every_state(status: Status) -> None:
    ahead = {"created_at": at(300), "finalizing_at": at(300), "cancelling_at": at(300)}
    assert reason_of(msgspec.structs.replace(batch(status), **ahead), after_s=60.0) is not None


def test_workers_that_begin_again_and_again_hide_no_batch_of_which_nothing_settled() -> None:
    reported = reason_of(batch(), with_batch(moved_at=at(58)), after_s=60.0)
    assert reported is not None
    assert "answered none of them" in reported.public


def test_workers_that_begin_again_and_again_hide_no_batch_of_which_some_settled() -> None:
    stands = batch(completed=3, last=at(2))
    restarted = with_batch(moved_at=at(59))
    reported = reason_of(stands, restarted, after_s=60.0)
    assert reported is not None
    assert (reported.kind, reported.since) == ("silent", at(2))
    assert reason_of(batch(completed=3, last=at(31)), restarted, after_s=60.0) is None


def test_a_batch_that_nobody_takes_says_so_after_a_while() -> None:
    assert reason_of(batch(), after_s=20.0) is None
    assert "no worker has taken it yet" in (public(reason_of(batch(), after_s=60.0)) or "")


@pytest.mark.parametrize("settled", [0, 40])
@pytest.mark.parametrize(
    "standing",
    [
        Standing(),
        Standing(gone={"w1": START}),
        WELL,
        Standing(live=("w1",), results_error="full"),
        with_models(),
        with_models(m=Hold("overloaded", "x", "x")),
        with_batch(),
    ],
)
def test_while_nothing_moves_there_is_a_reason(standing: Standing, settled: int) -> None:
    assert reason_of(batch(completed=settled), standing, after_s=3600.0) is not None


@pytest.mark.parametrize("status", ["completed", "failed", "expired", "cancelled"])
def test_a_batch_that_ended_waits_for_nothing(status: Status) -> None:
    assert reason_of(batch(status, 3), Standing()) is None


# ---- several at once ----


def kinds(found: tuple[Reason, ...]) -> list[str]:
    return [each.kind for each in found]


def test_a_model_that_is_away_and_the_turn_of_others_are_both_told_the_gravest_first() -> None:
    hold = Hold("unreachable", INSIDE, "no connection", at(3))
    found = reasons_of(batch(), with_models(m=hold), queue=Queue(waiting=95, leased=12))
    assert kinds(found) == ["model", "queue"]
    assert found[0].since == at(3)
    assert found[1].public == "Queued with 7 requests of other batches for the same models."


def test_live_traffic_a_bound_and_the_turn_of_others_are_told_with_their_numbers() -> None:
    live = Hold("live_first", "live load 82 %", "live load 82 %", at(4))
    found = reasons_of(
        batch(), with_models(m=live), queue=Queue(waiting=95, leased=12), in_flight_max=12
    )
    assert kinds(found) == ["live", "bound", "queue"]
    for number, each in zip(("82 %", "12 requests", "7 requests"), found, strict=True):
        assert number in each.public
    assert [each.since for each in found] == [at(4), None, None]


def test_a_paused_batch_says_what_would_hold_it_besides_and_is_not_in_the_queue() -> None:
    paused = msgspec.structs.replace(batch(), holds=("user",), held_at=at(7))
    standing = msgspec.structs.replace(with_models(m=None), results_error="full: '/srv/x'")
    found = reasons_of(paused, standing, queue=Queue(waiting=95, leased=12), after_s=3600.0)
    assert kinds(found) == ["paused", "storage"]
    assert found[0].since == at(7)


def test_without_a_worker_what_follows_from_it_is_not_told_again() -> None:
    gone = Hold("worker_gone", "w1 is gone", "its worker is gone", at(-90))
    standing = Standing(gone={"w1": at(-90)}, models={"m": gone})
    assert kinds(reasons_of(batch(), standing, after_s=3600.0)) == ["no_worker"]
    assert kinds(reasons_of(batch("validating"), standing, after_s=3600.0)) == ["no_worker"]
    assert kinds(reasons_of(batch("finalizing"), standing, after_s=3600.0)) == ["no_worker"]


def test_each_kind_of_condition_has_a_remedy_in_its_words_or_beside_them() -> None:
    assert set(get_args(Kind)) - set(REMEDIES) == {"paused"}


def asleep(**fields: object) -> Standing:
    sleep = Asleep(**fields)  # type: ignore[arg-type]
    return Standing(live=("w1",), models={}, asleep={"m": sleep}, knows_all_batches=True)


def test_a_model_at_zero_says_when_it_wakes() -> None:
    reported = reason_of(batch(), asleep(wake_at=datetime(2026, 11, 22, 3, 10, 40, tzinfo=UTC)))
    assert reported is not None
    assert reported.kind == "model"
    assert reported.public == "The model m is scaled to zero, wakes at 2026-11-22 03:10 UTC."


def test_one_that_is_being_started_says_so_and_operators_read_what_fails() -> None:
    reported = reason_of(batch(), asleep(error="http://10.0.0.1: it answers 403."))
    assert reported is not None
    assert reported.public == "The model m is scaled to zero, and is asked to start."
    assert (
        reported.full == f"{reported.public} What starts it fails: http://10.0.0.1: it answers 403."
    )


def test_a_model_at_zero_beside_one_that_runs_is_told() -> None:
    standing = msgspec.structs.replace(asleep(wake_at=START), models={"n": None})
    reported = reason_of(batch(), standing, models=("n", "m"))
    assert reported is not None and "m is scaled to zero" in reported.public
    assert standing.is_away("m") and not standing.is_away("n")
