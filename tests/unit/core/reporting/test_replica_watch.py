"""What is told of replicas that come and go."""

from datetime import UTC, datetime, timedelta

from lowtide import limits
from lowtide.core.capacity.window import WindowController
from lowtide.core.dispatch.replica import Replica
from lowtide.core.reporting.replica_state import READY, Condition, ReplicaState
from lowtide.core.reporting.replica_watch import ReplicaEvent, ReplicaSnapshot, ReplicaWatch

NOW = datetime(2026, 11, 21, tzinfo=UTC)
REPLICA = Replica("http://10.0.0.1:8000/v1", frozenset({"m"}), 4, name="gpu-1")


def snapshot(condition: Condition = "ready", *, is_open: bool = False) -> ReplicaSnapshot:
    state = READY
    if condition != "ready":
        full, public = "http://10.0.0.1:8000/v1: refused", "refused by gpu-1.corp.example:8000"
        state = ReplicaState(condition, full, public, "Start it.")
    return ReplicaSnapshot(replica=REPLICA, state=state, is_open=is_open)


def names(events: list[ReplicaEvent]) -> list[str]:
    return [event.event for event in events]


def test_a_replica_that_is_well_is_no_news() -> None:
    watch = ReplicaWatch()
    assert [watch.see([snapshot()], float(second)) for second in range(5)] == [[]] * 5


def test_an_outage_is_four_lines_however_long_it_lasts() -> None:
    watch, events = ReplicaWatch(), []
    for second in range(3600):
        is_out = 10 <= second < 3000
        seen = snapshot("unreachable", is_open=True) if is_out else snapshot()
        events += watch.see([seen], float(second))
    assert names(events) == ["circuit.opened", "replica.lost", "circuit.closed", "replica.back"]
    lost, back = events[1], events[3]
    assert (lost.replica, lost.condition, lost.remedy) == ("gpu-1", "unreachable", "Start it.")
    assert "10.0.0.1" in lost.reason
    assert lost.for_s == limits.REPLICA_LOST_S
    assert back.for_s == 2990


def test_a_set_up_that_only_an_operator_mends_is_told_without_a_wait() -> None:
    assert names(ReplicaWatch().see([snapshot("misconfigured")], 5.0)) == ["replica.lost"]


def test_live_traffic_is_no_loss() -> None:
    watch = ReplicaWatch()
    assert [watch.see([snapshot("live_first")], float(second)) for second in range(99)] == [[]] * 99


def test_a_replica_that_flaps_is_no_flood_and_what_was_left_out_is_counted() -> None:
    watch, events = ReplicaWatch(), []
    for second in range(3600):
        is_out = second % 2 == 0
        events += watch.see(
            [snapshot("failing", is_open=True) if is_out else snapshot()], float(second)
        )
    assert len(events) <= limits.REPLICA_LINES_BURST + 3600 / limits.REPLICA_LINE_S
    assert sum(event.left_out + 1 for event in events) >= 3600 - limits.REPLICA_LINE_S


def test_models_of_one_replica_that_fare_differently_are_reported_apart() -> None:
    replica = Replica("http://10.0.0.1:8000/v1", frozenset({"m", "n", "o"}), 4, name="gpu-1")
    held = ReplicaState("misconfigured", "x", "it does not serve this model", "y", since_s=3.0)
    seen = ReplicaSnapshot(
        replica=replica, state=held, is_open=False, states={"m": held, "n": READY, "o": READY}
    )
    watch = ReplicaWatch()
    watch.see([seen], 5.0)
    reports = watch.reports([seen], NOW, 10.0)
    assert [(r.models, r.condition) for r in reports] == [
        (("m",), "misconfigured"),
        (("n", "o"), "ready"),
    ]
    assert [r.since for r in reports] == [NOW - timedelta(seconds=7), None]


def test_a_report_says_since_when_and_names_no_address_to_tenants() -> None:
    watch = ReplicaWatch()
    watch.see([snapshot()], 0.0)
    watch.see([snapshot("failing")], 30.0)
    watch.see([snapshot("unreachable")], 40.0)
    watch.see([snapshot("unreachable")], 50.0)
    (report,) = watch.reports([snapshot("unreachable")], NOW, 55.0)
    assert report.since == NOW - timedelta(seconds=15)
    assert report.public_reason == "refused by (address)"
    assert (report.name, report.models) == ("gpu-1", ("m",))


def test_a_report_tells_how_soon_live_calls_should_begin_where_that_steers() -> None:
    controller = WindowController(ttft_slo_s=0.5)
    steered = Replica("http://10.0.0.2:8000/v1", frozenset({"m"}), 4, controller=controller)
    for replica, target_s in ((REPLICA, None), (steered, 0.5)):
        seen = ReplicaSnapshot(replica=replica, state=READY, is_open=False)
        watch = ReplicaWatch()
        watch.see([seen], 0.0)
        (report,) = watch.reports([seen], NOW, 0.0)
        assert report.load is not None
        assert report.load.live_target_s == target_s


def test_a_state_that_knows_since_when_is_believed() -> None:
    watch = ReplicaWatch()
    state = ReplicaState("failing", "x", "x", since_s=12.0)
    seen = ReplicaSnapshot(replica=REPLICA, state=state, is_open=False)
    watch.see([seen], 50.0)
    (report,) = watch.reports([seen], NOW, 60.0)
    assert report.since == NOW - timedelta(seconds=48)


def test_a_replica_that_is_taken_out_of_the_settings_is_forgotten() -> None:
    watch = ReplicaWatch()
    watch.see([snapshot("failing")], 0.0)
    assert watch.see([], 1.0) == []
    assert watch.conditions() == {}
