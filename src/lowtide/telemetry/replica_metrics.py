"""What `/metrics` says of each replica: its window, why it is what it is, and what gave way."""

from collections.abc import Iterable
from typing import Final

from prometheus_client import Counter, Gauge

from lowtide.core.dispatch.replica import Replica
from lowtide.telemetry.labels import REPLICAS

WINDOW: Final = Gauge(
    "lowtide_replica_window", "Batch calls that may be in flight at present.", ["replica", "bound"]
)
OWNED: Final = Gauge(
    "lowtide_replica_owned",
    "1 where this process may send batch calls to the replica, 0 where another worker does.",
    ["replica"],
)
IN_FLIGHT: Final = Gauge(
    "lowtide_replica_in_flight", "Batch calls in flight on the replica.", ["replica"]
)
PREFILL_BUDGET: Final = Gauge(
    "lowtide_replica_prefill_budget_tokens",
    "Prompt tokens of batch calls that the engine may have before it beside live traffic.",
    ["replica"],
)
KV_USED: Final = Gauge(
    "lowtide_replica_kv_used_ratio", "Share of its KV memory that the engine uses.", ["replica"]
)
LIVE_CALLS: Final = Gauge(
    "lowtide_replica_live_calls",
    "Live calls at the engine, through this server or past it.",
    ["replica"],
)
LIVE_LOAD: Final = Gauge(
    "lowtide_replica_live_load_ratio", "Share of the engine that live traffic takes.", ["replica"]
)
POLLS_MISSED: Final = Gauge(
    "lowtide_replica_polls_missed",
    "Polls in a row that the engine left without an answer; above 3 its window is halved.",
    ["replica"],
)
REVOKED_CALLS: Final = Counter(
    "lowtide_replica_revoked_calls", "Batch calls aborted to make room for live ones.", ["replica"]
)
REVOKED_TOKENS: Final = Counter(
    "lowtide_replica_revoked_tokens",
    "Tokens that those calls had read and, by estimate, written.",
    ["replica"],
)


class ReplicaMetrics:
    """Shows replicas as they are; one for each worker."""

    def __init__(self) -> None:
        self._revoked: dict[str, tuple[int, float]] = {}
        self._bounds: dict[str, str] = {}
        self._shown: set[str] = set()

    def show(self, replica: Replica, is_owned: bool) -> None:
        """Shows a replica; called at each poll of its engine. Of one that another worker owns, only
        that is shown: its owner shows the rest.
        """
        name, controller = REPLICAS.of(replica.name), replica.controller
        self._shown.add(name)
        OWNED.labels(name).set(is_owned)
        if not is_owned:
            self._hide(name)
        if controller is None or not is_owned:
            return
        self._show_window(name, replica.bound, replica.window)
        IN_FLIGHT.labels(name).set(replica.in_flight)
        PREFILL_BUDGET.labels(name).set(controller.pacer.budget)
        if controller.metrics.kv_used is not None:
            KV_USED.labels(name).set(controller.metrics.kv_used)
        LIVE_CALLS.labels(name).set(controller.live.calls)
        LIVE_LOAD.labels(name).set(controller.live.load)
        POLLS_MISSED.labels(name).set(controller.polls_missed)
        calls, tokens = replica.guard.revoked_total, replica.guard.lost_tokens_total
        calls_before, tokens_before = self._revoked.get(name, (0, 0.0))
        REVOKED_CALLS.labels(name).inc(calls - calls_before)
        REVOKED_TOKENS.labels(name).inc(tokens - tokens_before)
        self._revoked[name] = calls, tokens

    def keep(self, names: Iterable[str]) -> None:
        """Removes the metrics of replicas with other names: they have left."""
        for name in self._shown.difference(map(REPLICAS.of, names)):
            self._hide(name)
            self._revoked.pop(name, None)
            self._shown.discard(name)
            OWNED.remove(name)

    def _hide(self, name: str) -> None:
        if (bound := self._bounds.pop(name, None)) is not None:
            WINDOW.remove(name, bound)
            for gauge in (IN_FLIGHT, PREFILL_BUDGET, LIVE_CALLS, LIVE_LOAD, POLLS_MISSED, KV_USED):
                gauge.remove(name)

    def _show_window(self, name: str, bound: str, window: float) -> None:
        before = self._bounds.get(name, bound)
        if before != bound:
            WINDOW.remove(name, before)  # a window has one bound at a time
        self._bounds[name] = bound
        WINDOW.labels(name, bound).set(int(window))
