"""Asks scalers for as many replicas as are wanted: looks, decides, asks, and tells what came of it.

Runs in every worker; of several that have one scaler, the one asks it that owns its seat
(loops/replicas/ownership.py). Each scaler has one step under way at most, as a task of its own, so
one that hangs delays no other. Invariants: without a seat nothing is asked; while the store is
away, or no one knows how many are wanted, nothing is; a dry run looks, and asks nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
import structlog

from lowtide import limits
from lowtide.core.replicas.scaler_asks import (
    Bounds,
    ReplicaNeed,
    ScalerAsk,
    ScalerView,
    late,
    needed_of_all,
    next_ask,
)
from lowtide.core.reporting.worker_report import ScalerReport
from lowtide.loops.replicas.seats import Seat
from lowtide.ports.clock import Clock
from lowtide.ports.scalers import Scaler, ScalerError

log = structlog.get_logger(__name__)

Needs = Callable[[], Awaitable[Mapping[str, ReplicaNeed]]]
"""What is wanted of each model. May raise StoreError."""

OnAsk = Callable[[str, str], None]
"""Called with the label of a scaler and what came of it: an ask that was "taken", one that would
have been ("dry_run"), or "failed", for a reading as for an ask.
"""


class ScalerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What the loop is to know of a scaler. Of two with one `place`, the one goes on as the other.
    `step_s`: how long a reading and an ask may take together.
    """

    label: str
    models: tuple[str, ...]
    bounds: Bounds
    dry_run: bool = False
    step_s: float = 2 * limits.SCALER_ASK_S


class _Watched(msgspec.Struct, eq=False):
    spec: ScalerSpec
    scaler: Scaler
    seat: Seat
    view: ScalerView | None = None
    due: datetime | None = None
    step: asyncio.Task[None] | None = None
    late: str = ""
    late_since: datetime | None = None


class ScalersLoop:
    """The scalers of one process."""

    name = "scalers"

    def __init__(
        self,
        clock: Clock,
        needs: Needs,
        *,
        wake: Callable[[], None],
        on_ask: OnAsk = lambda *_: None,
        on_update: Callable[[Sequence[ScalerReport]], None] = lambda _: None,
    ) -> None:
        """`wake` asks for a tick; `on_update` is called at each with the state of all scalers."""
        self._clock = clock
        self._needs = needs
        self._wake = wake
        self._on_ask = on_ask
        self._on_update = on_update
        self._watched: dict[str, _Watched] = {}
        self._retired: list[_Watched] = []

    def watch(self, scalers: Mapping[str, tuple[ScalerSpec, Scaler, Seat]]) -> None:
        """Makes these the scalers, by their labels. One that was there before goes on as it was."""
        for label, watched in list(self._watched.items()):
            if label not in scalers or scalers[label][1] is not watched.scaler:
                self._retired.append(self._watched.pop(label))
        for label, (spec, scaler, seat) in scalers.items():
            self._watched.setdefault(label, _Watched(spec, scaler, seat)).spec = spec
        self._wake()

    async def tick(self, now: datetime) -> datetime | None:
        """Begins the steps that are due."""
        await self._close(self._retired)
        if not self._watched:
            self._on_update(())
            return None
        due = [each for each in self._watched.values() if self._is_due(each, now)]
        needs = await self._needs() if due else {}
        for watched in due:
            watched.step = asyncio.create_task(
                self._step(watched, needs, now), name=f"scale {watched.spec.label}"
            )
            watched.step.add_done_callback(lambda _: self._wake())
        self._on_update(self.reports())
        return now + timedelta(seconds=limits.SCALE_S)

    def reports(self) -> tuple[ScalerReport, ...]:
        """The state of each scaler that this process asks."""
        return tuple(
            _report(watched, watched.view)
            for watched in self._watched.values()
            if watched.view is not None and watched.seat.is_ours
        )

    async def aclose(self) -> None:
        """Ends what is under way, and closes the scalers. What they run goes on."""
        self._retired += self._watched.values()
        self._watched = {}
        await self._close(self._retired)

    async def _close(self, retired: list[_Watched]) -> None:
        gone, retired[:] = list(retired), []
        steps = [watched.step for watched in gone if watched.step is not None]
        for step in steps:
            step.cancel()
        await asyncio.gather(*steps, return_exceptions=True)
        await asyncio.gather(*(watched.scaler.aclose() for watched in gone))

    def _is_due(self, watched: _Watched, now: datetime) -> bool:
        if not watched.seat.is_ours:
            watched.view = None  # another worker asks it: what was known here grows old
            watched.due = None
            return False
        if watched.step is not None and watched.step.done():
            watched.step.result()  # an error here is one of the program's own
            watched.step = None
        return watched.step is None and (watched.due is None or now >= watched.due)

    async def _step(
        self, watched: _Watched, needs: Mapping[str, ReplicaNeed], now: datetime
    ) -> None:
        spec = watched.spec
        view = watched.view or ScalerView(since=now)
        need = needed_of_all([needs[model] for model in spec.models if model in needs])
        try:
            with watched.seat.taken():
                async with asyncio.timeout(spec.step_s):
                    view = await self._read_and_ask(watched, view, need, now)
        except ScalerError as error:
            view = self._failed(watched, view, str(error), self._clock.now())
        except TimeoutError:
            words = f"it has not answered for {spec.step_s:g} s"
            view = self._failed(watched, view, words, self._clock.now())
        watched.view = view
        is_failing = bool(view.failed_at is not None and view.failed_at >= now)
        watched.due = now + timedelta(seconds=view.again_s if is_failing else limits.SCALE_S)

    async def _read_and_ask(
        self, watched: _Watched, view: ScalerView, need: ReplicaNeed | None, now: datetime
    ) -> ScalerView:
        """Raises ScalerError, TimeoutError."""
        spec, scaler = watched.spec, watched.scaler
        status = await scaler.read()
        before, view = view, view.with_status(status)
        watched.view = view
        if before.error and not view.error:
            log.info("scaler.back", scaler=spec.label)
        if status.error:
            return self._failed(watched, view, status.error, now)
        if need is None:
            return view
        changed_at = view.asked.at if view.asked is not None else view.since
        watched.late = late(need, status, changed_at, now)
        watched.late_since = (watched.late_since or now) if watched.late else None
        number = next_ask(need, status, spec.bounds, changed_at, now)
        if now < view.since + timedelta(seconds=limits.SCALER_FIRST_S):
            return view  # engines that are listed are only now found to be there, or not
        if number is None or not watched.seat.is_ours:
            return view
        ask = ScalerAsk(number, now, need.reason, is_dry=spec.dry_run)
        if spec.dry_run:
            if view.asked is None or view.asked.replicas != number:
                log.info("scaler.would_ask", **_log_fields(spec, ask, status.target))
                self._on_ask(spec.label, "dry_run")
                return msgspec.structs.replace(view, asked=ask)
            return view
        await scaler.ask(number)
        log.info("scaler.asked", **_log_fields(spec, ask, status.target))
        self._on_ask(spec.label, "taken")
        after = msgspec.structs.replace(status, target=number)
        return msgspec.structs.replace(view, asked=ask, status=after)

    def _failed(self, watched: _Watched, view: ScalerView, words: str, now: datetime) -> ScalerView:
        after = view.failed(words, now)
        self._on_ask(watched.spec.label, "failed")
        if after.error != view.error:
            log.warning(
                "scaler.failed",
                scaler=watched.spec.label,
                error=after.error,
                again_in_s=after.again_s,
            )
        return after


def _log_fields(spec: ScalerSpec, ask: ScalerAsk, before: int) -> dict[str, Any]:
    """The fields of a log line; `before`: the number that the place was told to have."""
    return {
        "scaler": spec.label,
        "models": list(spec.models),
        "replicas": ask.replicas,
        "before": before,
        "reason": ask.reason,
    }


def _report(watched: _Watched, view: ScalerView) -> ScalerReport:
    status, asked = view.status, view.asked
    return ScalerReport(
        label=watched.spec.label,
        models=watched.spec.models,
        dry_run=watched.spec.dry_run,
        target=None if status is None else status.target,
        running=None if status is None else status.running,
        hides=status is not None and status.hides,
        asked=None if asked is None else asked.replicas,
        asked_at=None if asked is None else asked.at,
        reason="" if asked is None else asked.reason,
        error=view.error or watched.late,
        error_since=view.error_since or watched.late_since,
    )
