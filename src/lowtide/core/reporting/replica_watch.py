"""What changed about the replicas of a worker since it was looked at last, as values.

Pure: states and counts go in once a second, events for the log and reports for the store come out
(loops/replicas/report.py). Invariants: each change is reported once; a replica that comes and goes
is reported at most `REPLICA_LINES_BURST` times at once and then once in `REPLICA_LINE_S`, with the
number of changes that were left out; a name stands for a replica, never its address.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, Literal

import msgspec

from lowtide import limits
from lowtide.core.capacity.engine_metrics import EngineMetrics
from lowtide.core.dispatch.replica import Replica
from lowtide.core.reporting.line_bound import LineBound
from lowtide.core.reporting.public_text import without_places
from lowtide.core.reporting.replica_state import ReplicaState
from lowtide.core.reporting.worker_report import ReplicaLoad, ReplicaReport

EventName = Literal["replica.lost", "replica.back", "circuit.opened", "circuit.closed"]

_AT_ONCE: Final = frozenset({"misconfigured"})
"""Lost without a wait: nothing but an operator ends it."""

_WORKING: Final = frozenset({"ready", "live_first"})


class ReplicaEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A record for the log. `left_out`: changes of the replica that were not told before it."""

    event: EventName
    replica: str
    condition: str = ""
    reason: str = ""
    remedy: str = ""
    for_s: float = 0.0
    left_out: int = 0


class ReplicaSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One replica at one moment: `state` is what `core.reporting.replica_state` says of the whole,
    `states` of its models, `calls` of (model, endpoint) where only some of a model's are held;
    `is_open` whether its circuit lets no calls pass."""

    replica: Replica
    state: ReplicaState
    is_open: bool
    is_owned: bool = True
    states: Mapping[str, ReplicaState] = {}
    calls: Mapping[tuple[str, str], ReplicaState] = {}


class _Known(msgspec.Struct):
    condition: str = "ready"
    since_s: float = 0.0
    state: ReplicaState = ReplicaState()
    is_lost: bool = False
    lost_at_s: float = 0.0
    is_open: bool = False
    opened_at_s: float = 0.0


class ReplicaWatch:
    """The replicas of one worker."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        self._bound = LineBound(limits.REPLICA_LINE_S, limits.REPLICA_LINES_BURST)

    def see(self, snapshots: Iterable[ReplicaSnapshot], now_s: float) -> list[ReplicaEvent]:
        """The events since the last call. A replica that is not among `snapshots` is forgotten."""
        known, events = self._known, []
        self._known = {}
        for snapshot in snapshots:
            name = snapshot.replica.name
            each = self._known[name] = known.get(name) or _Known(since_s=now_s)
            state = snapshot.state
            if state.condition != each.condition:
                each.condition, each.since_s = state.condition, now_s
            if state.since_s is not None:
                each.since_s = state.since_s
            each.state = state
            events += self._circuit(each, snapshot, now_s)
            events += self._lost(each, snapshot, now_s)
        return events

    def reports(
        self, snapshots: Sequence[ReplicaSnapshot], now: datetime, now_s: float
    ) -> tuple[ReplicaReport, ...]:
        """The reports of the replicas that `see` was called with, for the worker's report."""
        return tuple(
            report
            for snapshot in snapshots[: limits.REPORT_REPLICAS_MAX]
            if (known := self._known.get(snapshot.replica.name)) is not None
            for report in _reports(snapshot, known.since_s, now, now_s)
        )

    def conditions(self) -> Mapping[str, str]:
        """The last seen condition by the replica's name."""
        return {name: known.condition for name, known in self._known.items()}

    def _circuit(
        self, known: _Known, snapshot: ReplicaSnapshot, now_s: float
    ) -> list[ReplicaEvent]:
        if snapshot.is_open == known.is_open:
            return []
        known.is_open = snapshot.is_open
        if snapshot.is_open:
            known.opened_at_s = now_s
            return self._events(known, snapshot, "circuit.opened", 0.0, now_s)
        return self._events(known, snapshot, "circuit.closed", now_s - known.opened_at_s, now_s)

    def _lost(self, known: _Known, snapshot: ReplicaSnapshot, now_s: float) -> list[ReplicaEvent]:
        """Lost once it has been out for a while, back once it works."""
        is_out = known.condition not in _WORKING
        waited_s = now_s - known.since_s
        if is_out and not known.is_lost:
            if waited_s < limits.REPLICA_LOST_S and known.condition not in _AT_ONCE:
                return []
            known.is_lost, known.lost_at_s = True, known.since_s
            return self._events(known, snapshot, "replica.lost", waited_s, now_s)
        if known.is_lost and not is_out:
            known.is_lost = False
            return self._events(known, snapshot, "replica.back", now_s - known.lost_at_s, now_s)
        return []

    def _events(
        self, known: _Known, snapshot: ReplicaSnapshot, event: EventName, for_s: float, now_s: float
    ) -> list[ReplicaEvent]:
        name = snapshot.replica.name
        left_out = self._bound.admit(f"{event.partition('.')[0]} {name}", now_s)
        if left_out is None:
            return []
        state, is_bad = known.state, event in ("replica.lost", "circuit.opened")
        return [
            ReplicaEvent(
                event=event,
                replica=name,
                condition=state.condition,
                reason=_short(state.reason) if is_bad else "",
                remedy=state.remedy if is_bad else "",
                for_s=for_s,
                left_out=left_out,
            )
        ]


def _reports(
    snapshot: ReplicaSnapshot, since_s: float, now: datetime, now_s: float
) -> list[ReplicaReport]:
    """One for each state that models of the replica are in: mostly one for all. And one for each
    state of single endpoints.
    """
    parts: dict[tuple[ReplicaState, tuple[str, ...]], list[str]] = {}
    shown = sorted(snapshot.replica.models)[: limits.REPORT_MODELS_MAX]
    for model in shown:
        parts.setdefault((snapshot.states.get(model, snapshot.state), ()), []).append(model)
    for (model, endpoint), state in snapshot.calls.items():
        if model in shown:
            parts.setdefault((state, (endpoint,)), []).append(model)
    load = _load(snapshot.replica)
    return [
        ReplicaReport(
            name=snapshot.replica.name,
            models=tuple(models),
            endpoints=endpoints,
            condition=state.condition,
            reason=_short(state.reason),
            public_reason=_short(without_places(state.public_reason)),
            remedy=state.remedy,
            since=_since(state, since_s, now, now_s),
            is_owned=snapshot.is_owned,
            load=load,
        )
        for (state, endpoints), models in parts.items()
    ]


def _load(replica: Replica) -> ReplicaLoad:
    controller = replica.controller
    reported = controller.metrics if controller is not None else EngineMetrics()
    return ReplicaLoad(
        in_flight=replica.in_flight,
        window=int(replica.window),
        bound=replica.bound,
        running=reported.running,
        waiting=reported.waiting,
        kv_used=reported.kv_used,
        bounds_steps=controller is not None and controller.bounds_steps,
        sends_parts=controller is not None and controller.sends_parts,
        live_target_s=controller.ttft_slo_s if controller is not None else None,
    )


def _since(state: ReplicaState, since_s: float, now: datetime, now_s: float) -> datetime | None:
    if state.condition == "ready":
        return None
    begun_s = since_s if state.since_s is None else state.since_s
    return now - timedelta(seconds=max(0.0, now_s - begun_s))


def _short(text: str) -> str:
    return text[: limits.REPORT_TEXT_CHARS_MAX]
