"""What `/metrics` says of the work: attempts by outcome, tokens, retries, states, batches, queues.

Counts are taken once a second from what the dispatcher has added up (`core.reporting.tally`), so no
request looks up a label; batches and queues come from one bounded look at the store
(loops/batches/overview.py). Labels are names, bounded in number (telemetry/labels.py), never
addresses.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from lowtide.core.batches.batch import TRANSITIONS
from lowtide.core.reporting.overview import Overview
from lowtide.core.reporting.replica_watch import ReplicaSnapshot
from lowtide.core.reporting.tally import SUCCEEDED, Tallies, Tally
from lowtide.telemetry.labels import CODES, MODELS, REPLICAS

REQUESTS: Final = Counter(
    "lowtide_requests",
    "Attempts at batch requests that ended, by outcome: `ok`, `throttled`, `interrupted` (not sent,"
    " or taken back), or an error code.",
    ["replica", "model", "code"],
)
RETRIES: Final = Counter(
    "lowtide_retries", "Attempts after which the request is sent again.", ["replica", "model"]
)
TOKENS: Final = Counter(
    "lowtide_tokens",
    "Tokens of good answers, as engines reported them; `cached` ones are `input` as well.",
    ["replica", "model", "kind"],
)
CONDITION: Final = Gauge(
    "lowtide_replica_condition",
    "1 for the condition that the replica is in: `ready`, or what holds batch calls back.",
    ["replica", "condition"],
)
CIRCUIT_OPEN: Final = Gauge(
    "lowtide_replica_circuit_open", "1 while the circuit lets no calls pass.", ["replica"]
)
CONNECTIONS: Final = Gauge(
    "lowtide_replica_connections", "Open connections for batch calls.", ["replica"]
)
COMMIT_SECONDS: Final = Histogram(
    "lowtide_commit_seconds",
    "A group commit, from the write of its segment to the end of its transaction.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
COMMIT_FAILURES: Final = Counter(
    "lowtide_commit_failures", "Group commits that failed and are tried again."
)
UNCOMMITTED: Final = Gauge(
    "lowtide_uncommitted_bytes", "Finished answers in memory that no commit has stored yet."
)
BATCHES: Final = Gauge("lowtide_batches", "Batches that have not ended, by state.", ["state"])
OLDEST: Final = Gauge(
    "lowtide_batches_oldest_seconds", "Age of the oldest batch in that state.", ["state"]
)
WAITING: Final = Gauge(
    "lowtide_batches_waiting",
    "Batches that do not move, by kind of reason, of those that are due first.",
    ["kind"],
)
AT_RISK: Final = Gauge(
    "lowtide_batches_deadline",
    "Batches whose completion window is `at_risk` or `infeasible`, of those that are due first.",
    ["verdict"],
)
QUEUE_REQUESTS: Final = Gauge(
    "lowtide_queue_requests", "Requests of batches in progress that have not settled.", ["model"]
)
QUEUE_TOKENS: Final = Gauge(
    "lowtide_queue_tokens", "Estimated prompt tokens of those requests.", ["model"]
)


class WorkMetrics:
    """Shows what one worker has counted."""

    def __init__(self) -> None:
        self._shown: dict[tuple[str, ...], int] = {}
        self._conditions: dict[str, str] = {}

    def show_work(self, tallies: Tallies) -> None:
        """Adds what was counted since the last call."""
        for replica, model, tally in tallies.all():
            self._show_tally(replica, model, tally)

    def show_replicas(
        self,
        snapshots: Iterable[ReplicaSnapshot],
        conditions: Mapping[str, str],
        connections: Mapping[str, int],
    ) -> None:
        """Shows the replicas as they are, and removes those that have left."""
        names = {}
        for snapshot in snapshots:
            name = names[snapshot.replica.name] = REPLICAS.of(snapshot.replica.name)
            CIRCUIT_OPEN.labels(name).set(snapshot.is_open)
            CONNECTIONS.labels(name).set(connections.get(snapshot.replica.name, 0))
            self._show_condition(name, conditions.get(snapshot.replica.name, "ready"))
        for gone in self._conditions.keys() - set(names.values()):
            CONDITION.remove(gone, self._conditions.pop(gone))
            CIRCUIT_OPEN.remove(gone)
            CONNECTIONS.remove(gone)

    def show_commits(self, failures: int, uncommitted_bytes: int) -> None:
        """Shows the commits; `failures` since the worker began."""
        self._add(COMMIT_FAILURES, (), ("commit failures",), failures)
        UNCOMMITTED.set(uncommitted_bytes)

    def _show_condition(self, name: str, condition: str) -> None:
        before = self._conditions.get(name, condition)
        if before != condition:
            CONDITION.remove(name, before)
        self._conditions[name] = condition
        CONDITION.labels(name, condition).set(1)

    def _show_tally(self, replica: str, model: str, tally: Tally) -> None:
        names = (REPLICAS.of(replica), MODELS.of(model))
        for code, count in ((SUCCEEDED, tally.succeeded), *tally.failed.items()):
            self._add(REQUESTS, (*names, CODES.of(code)), (replica, model, "code", code), count)
        self._add(RETRIES, names, (replica, model, "retries"), tally.retries)
        for kind, count in (
            ("input", tally.input_tokens),
            ("cached", tally.cached_tokens),
            ("output", tally.output_tokens),
        ):
            self._add(TOKENS, (*names, kind), (replica, model, kind), count)

    def _add(
        self, counter: Counter, labels: Sequence[str], key: tuple[str, ...], count: int
    ) -> None:
        before = self._shown.get(key, 0)
        if count > before:
            (counter.labels(*labels) if labels else counter).inc(count - before)
            self._shown[key] = count


class OverviewMetrics:
    """Shows what a reading of the store found."""

    def show(self, overview: Overview) -> None:
        for state in TRANSITIONS:
            if TRANSITIONS[state]:
                counted, age_s = overview.states.get(state, (0, 0.0))
                BATCHES.labels(state).set(counted)
                OLDEST.labels(state).set(age_s)
        _show_counts(WAITING, overview.waiting)
        _show_counts(AT_RISK, overview.verdicts)
        _show_counts(QUEUE_REQUESTS, _bounded(overview.queue_requests))
        _show_counts(QUEUE_TOKENS, _bounded(overview.queue_tokens))


def _bounded(by_model: Mapping[str, int]) -> dict[str, int]:
    """The counts under bounded names: those above the bound are added up."""
    counts: dict[str, int] = {}
    for model, count in by_model.items():
        name = MODELS.of(model)
        counts[name] = counts.get(name, 0) + count
    return counts


def _show_counts(gauge: Gauge, counts: Mapping[str, int]) -> None:
    gauge.clear()
    for name, count in counts.items():
        gauge.labels(name).set(count)
