"""Asks the sources of engines what there is, and applies what follows to this process.

Runs in every process that calls engines: workers, and API processes for live calls. Each source has
one reading under way at most, as a task of its own, so one that hangs delays no other. Invariants:
what was found is applied in one step for all sources; a source that fails keeps what it told last
(core/replicas/found_engines.py) and is asked again; one that was taken out of the settings is
closed, and its engines leave.
"""

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Protocol

import msgspec
import structlog

from lowtide import limits
from lowtide.core.replicas.found_engines import FoundEngine, SourceView
from lowtide.core.reporting.worker_report import SourceReport
from lowtide.ports.clock import Clock
from lowtide.ports.sources import EngineSource, Listing, SourceError

log = structlog.get_logger(__name__)

Found = Mapping[str, tuple[FoundEngine, ...]]
"""The engines that may have work, by the label of their source."""

_NOW = float("-inf")


class FoundEngines(Protocol):
    """What takes over the engines that were found."""

    def found(self, found: Found) -> Mapping[str, str]:
        """Makes these the engines of the sources. Returns what could not be taken over and why, by
        the label of its source; asked again, for what hindered it may be mended meanwhile.
        """


class _Watched(msgspec.Struct, eq=False):
    source: EngineSource
    view: SourceView = SourceView()
    due_s: float = _NOW
    reading: asyncio.Task[Listing] | None = None
    left_out: str = ""
    """What of the list could not be taken over, and why."""


class SourcesLoop:
    """The sources of one process."""

    name = "sources"

    def __init__(
        self,
        clock: Clock,
        engines: FoundEngines,
        *,
        wake: Callable[[], None],
        on_update: Callable[[tuple[SourceReport, ...]], None] = lambda _: None,
    ) -> None:
        """`wake` asks for a tick; `on_update` is called at each with the state of all sources."""
        self._clock = clock
        self._engines = engines
        self._wake = wake
        self._on_update = on_update
        self._watched: dict[str, _Watched] = {}
        self._applied: Found | None = None
        self._apply_due_s = _NOW
        self._retired: list[EngineSource] = []

    def watch(self, sources: Mapping[str, EngineSource]) -> None:
        """Makes these the sources, by their labels. One that was there before goes on as it was."""
        for label, watched in list(self._watched.items()):
            if sources.get(label) is not watched.source:
                del self._watched[label]
                self._retire(watched)
        for label, source in sources.items():
            self._watched.setdefault(label, _Watched(source))
        self._applied = None  # other settings may make what was left out usable
        self._wake()

    async def tick(self, now: datetime) -> datetime | None:
        """Takes over the readings that have ended, applies what changed, and begins those due."""
        retired, self._retired = self._retired, []
        await asyncio.gather(*(source.aclose() for source in retired))
        for label, watched in self._watched.items():
            if watched.reading is not None and watched.reading.done():
                self._see(label, watched, now)
        self._apply()
        for label, watched in self._watched.items():
            if watched.reading is None and self._clock.monotonic() >= watched.due_s:
                self._begin(label, watched)
        self._on_update(self.reports())
        due_s = self._next_s()
        return None if due_s is None else now + timedelta(seconds=due_s - self._clock.monotonic())

    async def start(self, now: datetime) -> None:
        """Asks all sources once, and applies what those have told that answer within
        `limits.SOURCE_START_S`.
        """
        await self.tick(now)
        readings = [
            watched.reading for watched in self._watched.values() if watched.reading is not None
        ]
        if readings:
            await asyncio.wait(readings, timeout=limits.SOURCE_START_S)
        await self.tick(now)

    def reports(self) -> tuple[SourceReport, ...]:
        """The state of each source."""
        return tuple(
            SourceReport(
                label=label,
                engines=tuple(engine.name for engine in watched.view.engines),
                stale_since=watched.view.stale_since,
                error=_error(watched),
            )
            for label, watched in self._watched.items()
        )

    async def aclose(self) -> None:
        """Ends all looks and closes the sources."""
        for watched in self._watched.values():
            self._retire(watched)
        self._watched = {}
        readings, self._retired = self._retired, []
        await asyncio.gather(*(source.aclose() for source in readings))

    def _begin(self, label: str, watched: _Watched) -> None:
        reading = asyncio.create_task(watched.source.read(), name=f"read {label}")
        reading.add_done_callback(lambda _: self._wake())
        watched.reading = reading

    def _see(self, label: str, watched: _Watched, now: datetime) -> None:
        reading, watched.reading = watched.reading, None
        assert reading is not None and reading.done()
        before, now_s = watched.view, self._clock.monotonic()
        try:
            listing = reading.result()
        except SourceError as error:
            watched.view = before.failed(str(error), now)
            watched.due_s = now_s + limits.SOURCE_AGAIN_S
            if before.stale_since is None or before.error != watched.view.error:
                log.warning(
                    "source.stale",
                    source=label,
                    error=watched.view.error,
                    engines=len(before.engines),
                )
            return
        watched.view = before.with_engines(listing.engines, now_s)
        watched.due_s = now_s + listing.again_s
        if before.stale_since is not None:
            for_s = (now - before.stale_since).total_seconds()
            log.info("source.back", source=label, for_s=round(for_s, 1))
        _tell_change(label, before, watched.view, now_s)

    def _apply(self) -> None:
        now_s = self._clock.monotonic()
        usable = {label: each.view.usable(now_s) for label, each in self._watched.items()}
        has_left_out = any(watched.left_out for watched in self._watched.values())
        if usable == self._applied and not (has_left_out and now_s >= self._apply_due_s):
            return
        errors = self._engines.found(usable)
        for label, watched in self._watched.items():
            before, watched.left_out = watched.left_out, errors.get(label, "")
            if watched.left_out not in ("", before):
                log.warning("source.not_applied", source=label, error=watched.left_out)
        self._applied, self._apply_due_s = usable, now_s + limits.SOURCE_AGAIN_S

    def _next_s(self) -> float | None:
        """The monotonic second of the next thing to do; None: when a reading has ended."""
        now_s = self._clock.monotonic()
        due = [watched.due_s for watched in self._watched.values() if watched.reading is None]
        if any(watched.left_out for watched in self._watched.values()):
            due.append(self._apply_due_s)
        holds = (watched.view.next_usable_s(now_s) for watched in self._watched.values())
        return min([*due, *(at_s for at_s in holds if at_s is not None)], default=None)

    def _retire(self, watched: _Watched) -> None:
        if watched.reading is not None:
            watched.reading.cancel()
        self._retired.append(watched.source)


def _error(watched: _Watched) -> str:
    view = watched.view
    is_waiting = not view.has_answered and view.stale_since is None
    return "has not answered yet" if is_waiting else view.error or watched.left_out


def _tell_change(label: str, before: SourceView, after: SourceView, now_s: float) -> None:
    """Logs which engines have come and gone, and which are held because they come and go."""
    known, there = ({engine.name for engine in view.engines} for view in (before, after))
    moved = [each.name for each in after.engines if each.name in known]
    moved = sorted(set(moved) - {e.name for e in set(before.engines) & set(after.engines)})
    if known == there and not moved and before.has_answered:
        return
    held = there - {engine.name for engine in after.usable(now_s)}
    log.info(
        "source.engines",
        source=label,
        come=_shown(there - known),
        gone=_shown(known - there),
        moved=moved[: limits.MODELS_NAMED_IN_ERROR],
        held=_shown(held),
        all=len(there),
    )


def _shown(names: set[str]) -> list[str]:
    return sorted(names)[: limits.MODELS_NAMED_IN_ERROR]
