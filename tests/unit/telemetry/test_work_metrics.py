"""What /metrics says of the work: it parses, counts once, and is bounded in labels."""

from prometheus_client import REGISTRY, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from lowtide import limits
from lowtide.core.dispatch.replica import Replica
from lowtide.core.faults.outcome import Rejected, Throttled
from lowtide.core.reporting.overview import Overview
from lowtide.core.reporting.replica_state import ReplicaState
from lowtide.core.reporting.replica_watch import ReplicaSnapshot
from lowtide.core.reporting.tally import Tallies
from lowtide.core.usage import Usage
from lowtide.telemetry.labels import OTHER, Bounded
from lowtide.telemetry.work_metrics import OverviewMetrics, WorkMetrics


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


def of_replica(name: str) -> set[tuple[str, ...]]:
    """The label sets of all samples about that replica."""
    text = generate_latest(REGISTRY).decode()
    return {
        (sample.name, *sorted(sample.labels.values()))
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.labels.get("replica") == name
    }


def test_attempts_and_tokens_are_counted_once_however_often_they_are_shown() -> None:
    tallies, metrics = Tallies(), WorkMetrics()
    tallies.of("one:1", "m").add_success(Usage(input_tokens=9, cached_tokens=4, output_tokens=5))
    tallies.of("one:1", "m").add_failure(Throttled("full"), is_retried=True)
    metrics.show_work(tallies)
    metrics.show_work(tallies)
    tallies.of("one:1", "m").add_success(Usage(input_tokens=1))
    tallies.of("one:1", "m").add_failure(Rejected("bad", "no"), is_retried=False)
    metrics.show_work(tallies)
    known = {"replica": "one:1", "model": "m"}
    assert value("lowtide_requests_total", **known, code="ok") == 2
    assert value("lowtide_requests_total", **known, code="throttled") == 1
    assert value("lowtide_requests_total", **known, code="bad") == 1
    assert value("lowtide_retries_total", **known) == 1
    assert value("lowtide_tokens_total", **known, kind="input") == 10
    assert value("lowtide_tokens_total", **known, kind="cached") == 4
    assert value("lowtide_tokens_total", **known, kind="output") == 5


def test_a_replica_has_one_condition_at_a_time_and_goes_when_it_is_taken_out() -> None:
    replica, metrics = Replica("http://two:1/v1", frozenset({"m"}), 4), WorkMetrics()
    seen = ReplicaSnapshot(replica=replica, state=ReplicaState("failing"), is_open=True)
    metrics.show_replicas([seen], {"two:1": "failing"}, {"two:1": 7})
    assert value("lowtide_replica_condition", replica="two:1", condition="failing") == 1
    assert value("lowtide_replica_circuit_open", replica="two:1") == 1
    assert value("lowtide_replica_connections", replica="two:1") == 7
    metrics.show_replicas([seen], {"two:1": "ready"}, {})
    assert value("lowtide_replica_condition", replica="two:1", condition="failing") is None
    assert value("lowtide_replica_condition", replica="two:1", condition="ready") == 1
    metrics.show_replicas([], {}, {})
    assert of_replica("two:1") == set()


def test_the_page_parses_whatever_names_engines_and_models_have() -> None:
    tallies, odd = Tallies(), 'a"b\\c\nd{e="f"} 1 ☂'
    tallies.of(odd, odd).add_failure(Rejected(odd, "no"), is_retried=False)
    WorkMetrics().show_work(tallies)
    samples = of_replica(odd)
    assert ("lowtide_requests_total", odd, odd, odd) in samples


def test_labels_are_bounded_and_what_is_above_the_bound_is_added_up() -> None:
    label = Bounded(3)
    assert [label.of(f"v{number}") for number in range(5)] == ["v0", "v1", "v2", OTHER, OTHER]
    assert label.of("v1") == "v1"


def test_an_engine_that_makes_up_codes_makes_no_endless_page() -> None:
    tallies = Tallies()
    for number in range(10 * limits.METRIC_CODES_MAX):
        tallies.of("three:1", "m").add_failure(
            Rejected(f"made-up-{number}", "no"), is_retried=False
        )
    WorkMetrics().show_work(tallies)
    counts = [each for each in of_replica("three:1") if each[0] == "lowtide_requests_total"]
    assert len(counts) <= limits.METRIC_CODES_MAX + 1
    known = {"replica": "three:1", "model": "m"}
    assert (value("lowtide_requests_total", **known, code=OTHER) or 0) > limits.METRIC_CODES_MAX


def test_batches_and_queues_are_shown_as_they_are_now() -> None:
    def snapshot(**fields: dict[str, int]) -> Overview:
        kinds = ("waiting", "verdicts", "queue_requests", "queue_tokens")
        found = {kind: fields.get(kind, {}) for kind in kinds}
        return Overview(states={"validating": (2, 90.0)}, **found)

    metrics = OverviewMetrics()
    metrics.show(snapshot(waiting={"model": 3}, queue_requests={"m": 40, "n": 2}))
    assert value("lowtide_batches", state="validating") == 2
    assert value("lowtide_batches_oldest_seconds", state="validating") == 90
    assert value("lowtide_batches", state="in_progress") == 0
    assert value("lowtide_batches_waiting", kind="model") == 3
    assert value("lowtide_queue_requests", model="m") == 40
    metrics.show(snapshot(verdicts={"at_risk": 1}, queue_tokens={"n": 7}))
    assert value("lowtide_batches_waiting", kind="model") is None
    assert value("lowtide_queue_requests", model="m") is None
    assert value("lowtide_queue_tokens", model="n") == 7
    assert value("lowtide_batches_deadline", verdict="at_risk") == 1
