"""Twice a second: reads each engine's metrics, resizes its window, and chooses the calls to abort
for live traffic.

The shell around core/capacity/window.py and core/capacity/preemption.py. All engines are read at
once, each within a bound, so that a slow one does not delay the others. What the live API sees of
live traffic comes in as a function. `EngineProbeLoop`, beside it, finds out what each engine is,
and again when it has fallen silent or did not answer.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol

import msgspec
import structlog

from lowtide import limits
from lowtide.core.capacity.engine_metrics import NO_LIVE, BatchCall, EngineMetrics, LiveSeen
from lowtide.core.capacity.window import WindowController
from lowtide.core.dispatch.replica import Replica
from lowtide.core.dispatch.request import Request
from lowtide.ports.clock import Clock
from lowtide.ports.engine import EngineInfo, Prober

log = structlog.get_logger(__name__)

_NEVER = float("-inf")


class InFlightCalls(Protocol):
    """What the control loop needs of the dispatcher."""

    def calls_on(self, replica_name: str) -> Sequence[Request]:
        """The requests in flight on that replica."""

    def revoke(self, replica_name: str, requests: Sequence[Request]) -> None:
        """Aborts these calls; their requests run again later."""


class LiveCallSource(Protocol):
    """The live calls to one replica, as the live API sees them."""

    def when_asked(self, record: Callable[[int, float], None]) -> None:
        """Has `record` called before each call is sent: its prompt's tokens, monotonic seconds. It
        replaces the one given before.
        """

    def live_load(self, now_s: float, patience_s: float) -> LiveSeen:
        """The number of calls, and of those that have waited longer than that for
        their first byte.
        """


class ReplicaControl(msgspec.Struct, eq=False):
    """A replica with its controller and what is known of its engine."""

    replica: Replica
    controller: WindowController
    prober: Prober
    live_calls: LiveCallSource | None = None
    patience_s: float = limits.LIVE_WAIT_SHARE * limits.TTFT_SLO_MS / 1000
    known: EngineInfo | None = None
    probe_at_s: float = _NEVER

    def adopt(self, fresh: "ReplicaControl") -> None:
        """Takes over another way to call the engine, which is then probed afresh."""
        self.prober = fresh.prober
        self.patience_s = fresh.patience_s
        self.known = None
        self.probe_at_s = _NEVER


class ControlLoop:
    """Polls the engine metrics of this worker's replicas and resizes their windows."""

    name = "control"

    def __init__(
        self,
        controlled: Sequence[ReplicaControl],
        calls: InFlightCalls,
        clock: Clock,
        *,
        on_update: Callable[[Replica, bool], None] = lambda *_: None,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_update` is called for each replica at each poll, with whether this worker owns it;
        `wake` when a window grew.
        """
        self._controlled = controlled
        self._calls = calls
        self._clock = clock
        self._on_update = on_update
        self._wake = wake
        self.watch_live_calls()

    def watch_live_calls(self) -> None:
        """Subscribes to the live calls of all replicas, of those that have come since, too."""
        for each in self._controlled:
            if each.live_calls is not None:
                each.live_calls.when_asked(partial(self._live_asked, each))

    async def tick(self, now: datetime) -> datetime | None:
        """Polls the replicas that this worker owns: elsewhere the owner's calls would
        look like live ones.
        """
        begun_s = self._clock.monotonic()
        ours = [each for each in self._controlled if begun_s < each.replica.owned_until_s]
        before = [each.replica.in_flight for each in ours]
        readings = await asyncio.gather(*map(_read, ours))
        now_s = self._clock.monotonic()
        has_grown = False
        there = list(self._controlled)
        for each, metrics, own_max in zip(ours, readings, before, strict=True):
            if each not in there:
                continue  # it left while it was read
            window = each.replica.window
            self._steer(each, metrics, own_max, now_s)
            has_grown = has_grown or each.replica.window > window
            self._on_update(each.replica, True)
        for each in there:
            if each not in ours:
                self._on_update(each.replica, False)
        if has_grown:
            self._wake()
        return now + timedelta(seconds=limits.CONTROL_POLL_S)

    def _steer(
        self,
        each: ReplicaControl,
        metrics: EngineMetrics | None,
        own_max: int,
        now_s: float,
    ) -> None:
        replica, controller = each.replica, each.controller
        metrics = _believed(metrics, replica.priority)
        bounded = controller.metrics.bounds_steps
        requests = self._calls.calls_on(replica.name)
        calls = _own_calls(requests, now_s)
        live_load = (
            each.live_calls.live_load(now_s, each.patience_s)
            if each.live_calls is not None
            else NO_LIVE
        )
        controller.observe(metrics, calls, now_s, live_load, own_max=own_max)
        if controller.metrics.bounds_steps != bounded:
            log.info("replica.bounds_steps", replica=replica.name, bounds_steps=not bounded)
        outputs = list(controller.work.output_so_far(calls))
        waiting = controller.live.waiting
        chosen = replica.guard.revoke(metrics, calls, outputs, live_load, waiting, now_s)
        if chosen:
            controller.revoked(len(chosen), len(calls), now_s)
            self._calls.revoke(replica.name, [requests[place] for place in chosen])
            log.info("replica.preempted", replica=replica.name, calls=len(chosen))
        replica.resize(now_s)

    def _live_asked(self, each: ReplicaControl, tokens: int, now_s: float) -> None:
        """Aborts batch calls with unread prompts when a live call is about to be sent."""
        replica = each.replica
        requests = self._calls.calls_on(replica.name)
        back = replica.live_asked(tokens, _own_calls(requests, now_s), now_s)
        if not back:
            return
        for place, unread in back:
            requests[place].gave_way(unread)
        self._calls.revoke(replica.name, [requests[place] for place, _ in back])


def _believed(metrics: EngineMetrics | None, priority: int | None) -> EngineMetrics | None:
    """The scheduler class knows batch calls by a priority above 0: sent another one, or none, they
    are live calls to it, and have to be paced.
    """
    if metrics is None or not metrics.bounds_steps or (priority or 0) > 0:
        return metrics
    return msgspec.structs.replace(metrics, bounds_steps=False)


def _own_calls(requests: Sequence[Request], now_s: float) -> list[BatchCall]:
    return [
        BatchCall(
            now_s - request.sent_at_s,
            request.unread_tokens if request.prefill_done is False else request.tokens,
            prefill_done=request.prefill_done,
            stays=request.yields >= limits.YIELDS_MAX,
        )
        for request in requests
    ]


class EngineProbeLoop:
    """Finds out what each engine is; until then its replica works as one without metrics."""

    name = "probe"

    def __init__(self, controlled: Sequence[ReplicaControl], clock: Clock) -> None:
        self._controlled = controlled
        self._clock = clock

    async def tick(self, now: datetime) -> datetime | None:
        """Looks at those that are due."""
        now_s = self._clock.monotonic()
        await asyncio.gather(*(self._probe(each) for each in self._controlled if _due(each, now_s)))
        return now + timedelta(seconds=limits.PROBE_AGAIN_S)

    async def _probe(self, each: ReplicaControl) -> None:
        prober = each.prober
        info = await prober.probe()
        now_s = self._clock.monotonic()
        if each.prober is not prober:
            return  # its settings changed meanwhile: the next reading asks by the new ones
        if info is None:
            each.probe_at_s = now_s + limits.PROBE_AGAIN_S
            return
        tells = info.reader is not None or not info.is_complete
        each.probe_at_s = now_s + (limits.PROBE_AGAIN_S if tells else limits.PROBE_SILENT_S)
        each.replica.know_engine(info.kind, priority=info.priority)
        if each.known is None or each.known.kind != info.kind:
            log.info(
                "replica.known",
                replica=each.replica.name,
                engine=info.kind,
                tells=info.reader is not None,
                priority=info.priority,
                **({"missing": list(info.missing)} if info.missing else {}),
            )
        each.known = info


def _due(each: ReplicaControl, now_s: float) -> bool:
    known = each.known
    is_known = known is not None and known.reader is not None and known.is_complete
    return now_s >= each.probe_at_s and not (is_known and not each.controller.is_stale)


async def _read(each: ReplicaControl) -> EngineMetrics | None:
    """A reading of the engine's metrics; an engine without any gives an empty one."""
    if each.known is None or each.known.reader is None:
        return EngineMetrics()
    return await each.known.reader.read()
