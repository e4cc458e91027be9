"""What the reports of all workers come to."""

from datetime import UTC, datetime, timedelta

from lowtide.core.reporting.standing import split, standing_of
from lowtide.core.reporting.worker_report import BatchReport, ReplicaReport, WorkerReport

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def replica(name: str = "a", condition: str = "ready", **fields: object) -> ReplicaReport:
    reported = {} if condition == "ready" else {"reason": f"{name} is {condition}", "since": ago(9)}
    reported["public_reason"] = condition
    known = {"models": ("m",), **reported, **fields}
    return ReplicaReport(name=name, condition=condition, **known)  # type: ignore[arg-type]


def worker(
    worker_id: str, *replicas: ReplicaReport, seen_s: float = 1.0, **fields: object
) -> WorkerReport:
    return WorkerReport(
        worker_id=worker_id, seen_at=ago(seen_s), ttl_s=30.0, replicas=replicas, **fields
    )  # type: ignore[arg-type]


def test_a_model_is_well_as_long_as_one_replica_takes_calls() -> None:
    standing = standing_of([worker("w", replica("a", "unreachable"), replica("b"))], NOW)
    assert standing.models == {"m": None}


def test_a_model_is_held_by_what_its_replicas_say_nearest_to_its_end_first() -> None:
    replicas = (replica("a", "misconfigured"), replica("b", "overloaded"))
    hold = standing_of([worker("w", *replicas)], NOW).models["m"]
    assert hold is not None
    assert (hold.condition, hold.public_reason) == ("overloaded", "overloaded; misconfigured")
    assert hold.reason == "b is overloaded; a is misconfigured"
    assert hold.since == ago(9)


def test_many_replicas_with_the_same_error_are_reported_once_and_many_errors_are_cut() -> None:
    same = [replica(f"r{i}", "unreachable") for i in range(9)]
    hold = standing_of([worker("w", *same)], NOW).models["m"]
    assert hold is not None
    assert hold.public_reason == "unreachable"
    assert hold.reason.endswith("; and 6 more")


def test_live_traffic_speaks_for_a_model_although_another_replica_is_out() -> None:
    replicas = (replica("a", "unreachable"), replica("b", "live_first"))
    hold = standing_of([worker("w", *replicas)], NOW).models["m"]
    assert hold is not None
    assert (hold.condition, hold.public_reason) == ("live_first", "live_first")


def test_a_shared_replica_is_as_its_owner_sees_it() -> None:
    reports = [
        worker("w1", replica("a", is_owned=False)),
        worker("w2", replica("a", "unreachable")),
        worker("w3", replica("a", is_owned=False)),
    ]
    hold = standing_of(reports, NOW).models["m"]
    assert hold is not None
    assert hold.condition == "unreachable"


def test_a_replica_may_serve_one_model_and_not_another() -> None:
    apart = (replica("a", "misconfigured"), replica("a", models=("n", "o")))
    models = standing_of([worker("w1", *apart), worker("w2", replica("b", models=()))], NOW).models
    assert models["m"] is not None
    assert (models["n"], models["o"]) == (None, None)


def test_a_worker_that_stopped_reporting_is_gone_and_what_it_said_is_no_longer_true() -> None:
    reports = [worker("w1", replica("a"), seen_s=31.0), worker("w2", replica("b", models=("n",)))]
    live, gone = split(reports, NOW)
    assert [report.worker_id for report in live] == ["w2"]
    assert [report.worker_id for report in gone] == ["w1"]
    standing = standing_of(reports, NOW)
    assert standing.gone == {"w1": ago(31.0)}
    assert standing.models["n"] is None
    hold = standing.models["m"]
    assert hold is not None
    assert hold.condition == "worker_gone"
    assert "w1" in hold.reason
    assert "w1" not in hold.public_reason


def test_a_replica_that_another_worker_took_over_is_well_again() -> None:
    reports = [worker("w1", replica("a"), seen_s=99.0), worker("w2", replica("a"))]
    assert standing_of(reports, NOW).models == {"m": None}


def test_an_error_counts_where_every_worker_has_it() -> None:
    ill, well = worker("w1", results_error="full"), worker("w2")
    assert standing_of([ill], NOW).results_error == "full"
    assert standing_of([ill, well], NOW).results_error == ""
    assert standing_of([], NOW).results_error == ""


def test_a_batch_at_several_workers_moves_when_it_moves_anywhere() -> None:
    def at_work(seconds: float, failures: int) -> tuple[BatchReport, ...]:
        words = "boom" if failures else ""
        moved_at = ago(seconds)
        return (BatchReport(id="b", moved_at=moved_at, failures=failures, last_failure=words),)

    reports = [worker("w1", batches=at_work(50, 2)), worker("w2", batches=at_work(5, 0))]
    known = standing_of(reports, NOW).batches["b"]
    assert (known.moved_at, known.failures, known.last_failure) == (ago(5), 2, "boom")


def test_all_batches_are_known_only_where_no_worker_left_any_out() -> None:
    assert standing_of([worker("w1"), worker("w2")], NOW).knows_all_batches
    assert not standing_of([worker("w1"), worker("w2", more_batches=True)], NOW).knows_all_batches
    assert not standing_of([], NOW).knows_all_batches


def test_an_endpoint_is_held_for_its_own_calls_alone() -> None:
    lacking = replica("a", "misconfigured", endpoints=("/v1/embeddings",))
    standing = standing_of([worker("w", replica("a"), lacking)], NOW)
    assert standing.models == {"m": None}
    assert standing.hold_of("m", "/v1/chat/completions") is None
    hold = standing.hold_of("m", "/v1/embeddings")
    assert hold is not None
    assert hold.condition == "misconfigured"


def test_an_endpoint_that_another_replica_offers_is_not_held() -> None:
    lacking = replica("a", "misconfigured", endpoints=("/v1/embeddings",))
    standing = standing_of([worker("w", replica("a"), lacking, replica("b"))], NOW)
    assert standing.hold_of("m", "/v1/embeddings") is None
    away = worker("w", replica("a"), lacking, replica("b", "unreachable"))
    hold = standing_of([away], NOW).hold_of("m", "/v1/embeddings")
    assert hold is not None
    assert hold.public_reason == "unreachable; misconfigured"
