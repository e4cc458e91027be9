"""telemetry/replica_metrics.py: each replica as /metrics shows it."""

from prometheus_client import REGISTRY

from lowtide.core.capacity.engine_metrics import EngineMetrics, LiveSeen
from lowtide.core.capacity.window import WindowController
from lowtide.core.dispatch.replica import Replica
from lowtide.telemetry.replica_metrics import ReplicaMetrics

URL = "http://shown/v1"


def shown(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"lowtide_replica_{name}", {"replica": "shown", **labels})


def test_a_replica_shows_its_window_what_bounds_it_and_what_gave_way() -> None:
    controller = WindowController(64, window_start=64)
    one = Replica(URL, frozenset({"m"}), 64, controller=controller)
    metrics = ReplicaMetrics()
    polled = EngineMetrics(running=6, waiting=0, seats_max=12, kv_used=0.5)
    controller.observe(polled, [], 1.0)
    one.resize(1.0)
    metrics.show(one, True)
    assert shown("window", bound="seats") == 12
    assert shown("kv_used_ratio") == 0.5
    assert shown("polls_missed") == 0
    controller.observe(EngineMetrics(running=0, seats_max=100), [], 1.5, LiveSeen(in_flight=3))
    controller.observe(None, [], 2.0, LiveSeen(in_flight=3))
    one.guard.revoked_total, one.guard.lost_tokens_total = 4, 800.0
    one.resize(2.0)
    metrics.show(one, True)
    metrics.show(one, True)
    assert shown("window", bound="seats") is None
    assert shown("window", bound="start") == 64
    assert shown("live_calls") == 3
    assert shown("live_load_ratio") == 1.0
    assert shown("polls_missed") == 1
    assert shown("revoked_calls_total") == 4
    assert shown("revoked_tokens_total") == 800.0


def test_of_a_replica_that_another_worker_took_only_that_is_shown() -> None:
    one = Replica(URL, frozenset({"m"}), 64, controller=WindowController(64, window_start=64))
    metrics = ReplicaMetrics()
    metrics.show(one, False)
    assert shown("owned") == 0
    metrics.show(one, True)
    assert shown("owned") == 1
    assert shown("window", bound="start") == 64
    metrics.show(one, False)
    metrics.show(one, False)
    assert shown("owned") == 0
    assert shown("window", bound="start") is None
    assert shown("in_flight") is None


def test_a_replica_that_nobody_steers_is_not_shown() -> None:
    ReplicaMetrics().show(Replica("http://plain/v1", frozenset({"m"}), 4), True)
    assert (
        REGISTRY.get_sample_value("lowtide_replica_in_flight", {"replica": "http://plain/v1"})
        is None
    )


def test_of_a_replica_that_left_nothing_is_shown_any_more() -> None:
    one = Replica(URL, frozenset({"m"}), 64, controller=WindowController(64, window_start=64))
    metrics = ReplicaMetrics()
    metrics.show(one, True)
    metrics.keep(["shown"])
    assert shown("owned") == 1
    metrics.keep(["another"])
    assert shown("owned") is None
    assert shown("window", bound="start") is None
    assert shown("in_flight") is None
    metrics.keep([])
