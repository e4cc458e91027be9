"""What `lowtide doctor` tells of workers and their replicas."""

from datetime import UTC, datetime, timedelta

from lowtide.cli.doctor.states import findings_of
from lowtide.core.reporting.worker_report import ReplicaReport, WorkerReport

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def report(
    worker_id: str, *replicas: ReplicaReport, age_s: float = 1.0, results_error: str = ""
) -> WorkerReport:
    return WorkerReport(
        worker_id=worker_id,
        seen_at=NOW - timedelta(seconds=age_s),
        ttl_s=30,
        replicas=replicas,
        results_error=results_error,
    )


def test_replicas_are_told_as_their_owners_see_them() -> None:
    bad = ReplicaReport(
        name="gpu-1", models=("m",), condition="misconfigured", reason="gpu-1: 401",
        remedy="Set api_key.", since=NOW,
    )  # fmt: skip
    slow = ReplicaReport(name="gpu-2", models=("m",), condition="unreachable", reason="refused")
    well = ReplicaReport(name="gpu-3", models=("m",))
    others = ReplicaReport(name="gpu-4", condition="unreachable", is_owned=False)
    found = {each.name: each for each in findings_of([report("w", bad, slow, well, others)], NOW)}
    assert {name: each.verdict for name, each in found.items()} == {
        "state of gpu-1": "fail",
        "state of gpu-2": "warn",
        "state of gpu-3": "ok",
    }
    assert found["state of gpu-1"].remedy == "Set api_key."
    assert "since 2026-11-21 00:00:00 UTC" in found["state of gpu-1"].what


def test_a_worker_that_died_is_told_and_what_it_said_is_not() -> None:
    well = ReplicaReport(name="gpu-1", models=("m",))
    (found,) = findings_of([report("w", well, age_s=90.0)], NOW)
    assert (found.name, found.verdict) == ("worker w", "warn")
    assert "has not been heard of since" in found.what


def test_a_worker_whose_clock_is_ahead_is_told_with_the_remedy() -> None:
    (found,) = findings_of([report("w", age_s=-90.0)], NOW)
    assert (found.name, found.verdict) == ("worker w", "warn")
    assert "90 s or more ahead" in found.what
    assert "time server" in found.remedy
    assert findings_of([report("w", age_s=-1.0)], NOW) == []


def test_what_stops_a_worker_fails() -> None:
    (found,) = findings_of([report("w", results_error="disk full")], NOW)
    assert (found.verdict, "disk full" in found.what) == ("fail", True)


def test_where_no_worker_ever_ran_nothing_is_said() -> None:
    assert findings_of([], NOW) == []
