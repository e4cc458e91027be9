"""The list of engines out of what workers report."""

from datetime import UTC, datetime, timedelta

import msgspec

from lowtide.api.objects.engines import EngineLoad, SourceObject
from lowtide.api.replicas.engine_objects import engine_list
from lowtide.core.reporting.worker_report import (
    ReplicaLoad,
    ReplicaReport,
    ScalerReport,
    SourceReport,
    WorkerReport,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def report(worker: str, *replicas: ReplicaReport, age_s: float = 0.0) -> WorkerReport:
    seen_at = NOW - timedelta(seconds=age_s)
    return WorkerReport(worker_id=worker, seen_at=seen_at, ttl_s=30.0, replicas=replicas)


def test_a_replica_is_shown_once_as_the_worker_sees_it_that_may_call_it() -> None:
    load = ReplicaLoad(in_flight=3, window=8, bound="kv", running=5, bounds_steps=True)
    ours = ReplicaReport(name="b", models=("m",), load=load)
    theirs = ReplicaReport(name="b", models=("m",), is_owned=False)
    alone = ReplicaReport(name="a", models=("n",), is_owned=False)
    found = engine_list([report("w1", theirs, alone), report("w2", ours)], NOW)
    assert [(each.name, each.worker) for each in found.data] == [("a", "w1"), ("b", "w2")]
    assert found.data[1].load == EngineLoad(
        in_flight=3, window=8, bound="kv", running=5, bounds_steps=True
    )
    assert found.data[0].load is None


def test_what_holds_a_replica_is_told_with_its_remedy_and_since_when() -> None:
    held = ReplicaReport(
        name="a", condition="misconfigured", reason="401", remedy="set api_key", since=NOW
    )
    (engine,) = engine_list([report("w", held)], NOW).data
    assert (engine.condition, engine.reason, engine.remedy) == (
        "misconfigured",
        "401",
        "set api_key",
    )
    assert engine.since == NOW.timestamp()


def test_a_worker_that_fell_silent_is_named_and_its_replicas_are_not_shown() -> None:
    gone = report("w0", ReplicaReport(name="a"), age_s=31.0)
    found = engine_list([gone, report("w1")], NOW)
    assert found.data == []
    assert [(each.id, each.is_gone) for each in found.workers] == [("w1", False), ("w0", True)]


def seen(worker: str, *sources: SourceReport, replicas: tuple[str, ...] = ()) -> WorkerReport:
    reported = report(worker, *(ReplicaReport(name=name, models=("m",)) for name in replicas))
    return msgspec.structs.replace(reported, sources=sources)


def test_a_source_is_shown_once_for_all_workers_that_see_the_same() -> None:
    found = SourceReport(label="file /e.yaml", engines=("a", "b"))
    stale = SourceReport(label="file /e.yaml", stale_since=NOW, error="cannot be read")
    listed = engine_list([seen("w1", found), seen("w2", found), seen("w3", stale)], NOW)
    assert listed.sources == [
        SourceObject(
            source="file /e.yaml",
            stale_since=int(NOW.timestamp()),
            trouble="cannot be read",
            workers=("w3",),
        ),
        SourceObject(source="file /e.yaml", engines=("a", "b"), workers=("w1", "w2")),
    ]


def test_a_scaler_is_shown_as_the_worker_sees_it_that_asks_it() -> None:
    report = ScalerReport(
        label="kubernetes n/d", models=("m",), target=2, running=1, asked=2, asked_at=NOW,
        reason="work is due", error="it answers 403", error_since=NOW,
    )  # fmt: skip
    other = ScalerReport(label="command c", models=("c",), dry_run=True)
    workers = [
        msgspec.structs.replace(seen("w1"), scalers=(report,)),
        msgspec.structs.replace(seen("w2"), scalers=(other,)),
    ]
    command, kubernetes = engine_list(workers, NOW).scalers
    assert (command.scaler, command.dry_run, command.target) == ("command c", True, None)
    assert (command.asked, command.asked_at, command.reason) == (None, None, None)
    assert (kubernetes.asked, kubernetes.asked_at) == (2, int(NOW.timestamp()))
    assert kubernetes.trouble_since == int(NOW.timestamp())


def test_an_engine_that_was_found_names_its_source() -> None:
    source = SourceReport(label="file /e.yaml", engines=("found",))
    listed = engine_list([seen("w", source, replicas=("found", "named"))], NOW)
    assert [(each.name, each.source) for each in listed.data] == [
        ("found", "file /e.yaml"),
        ("named", None),
    ]
