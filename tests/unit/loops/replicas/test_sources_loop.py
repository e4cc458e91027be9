"""loops/replicas/sources.py: sources are asked, and what they tell is taken over."""

import asyncio
from collections.abc import Mapping
from datetime import datetime

import pytest
import structlog

from lowtide import limits
from lowtide.core.replicas.found_engines import FoundEngine
from lowtide.loops.replicas.sources import Found, SourcesLoop
from lowtide.ports.sources import Listing, SourceError
from testkit.manual_clock import ManualClock


def engine(name: str, port: int = 8000) -> FoundEngine:
    return FoundEngine(name, "10.0.0.1", port)


class ListedSource:
    """A source that tells what it is set to; with `hangs`, once the event is set."""

    def __init__(self, *engines: FoundEngine, again_s: float = 0.5) -> None:
        self.engines: tuple[FoundEngine, ...] | SourceError = engines
        self.again_s = again_s
        self.hangs: asyncio.Event | None = None
        self.readings = 0
        self.is_closed = False

    async def read(self) -> Listing:
        self.readings += 1
        if self.hangs is not None:
            await self.hangs.wait()
        if isinstance(self.engines, SourceError):
            raise self.engines
        return Listing(self.engines, self.again_s)

    async def aclose(self) -> None:
        self.is_closed = True


class TakenOver:
    """What was taken over, list by list, and what is left out of the next one."""

    def __init__(self) -> None:
        self.lists: list[dict[str, list[str]]] = []
        self.left_out: dict[str, str] = {}

    def found(self, found: Found) -> Mapping[str, str]:
        self.lists.append({label: [e.name for e in each] for label, each in found.items()})
        return self.left_out


class Bench:
    """A loop with its sources, turned by hand."""

    def __init__(self, **sources: ListedSource) -> None:
        self.clock = ManualClock()
        self.taken = TakenOver()
        self.wakes = 0
        self.due_at: datetime | None = None
        self.loop = SourcesLoop(self.clock, self.taken, wake=self._wake)
        self.loop.watch(sources)

    def _wake(self) -> None:
        self.wakes += 1

    async def turn(self, seconds: float = 0.0) -> None:
        """Time passes, looks begin; those that end are taken over."""
        now = self.clock.advance(seconds)
        await self.loop.tick(now)
        for _ in range(4):  # a look that does not hang ends within these turns of the event loop
            await asyncio.sleep(0)
        self.due_at = await self.loop.tick(now)

    @property
    def due_s(self) -> float | None:
        if self.due_at is None:
            return None
        return (self.due_at - self.clock.now()).total_seconds()


async def test_what_a_source_tells_is_taken_over_once_and_asked_for_again() -> None:
    source = ListedSource(engine("a"))
    bench = Bench(file=source)
    await bench.turn()
    assert bench.taken.lists[-1] == {"file": ["a"]}
    assert bench.due_s == source.again_s
    lists = len(bench.taken.lists)
    await bench.turn(0.5)
    assert (source.readings, len(bench.taken.lists)) == (2, lists), (
        "nothing new, nothing to take over"
    )
    source.engines = (engine("b"),)
    await bench.turn(0.5)
    assert bench.taken.lists[-1] == {"file": ["b"]}


async def test_a_source_that_fails_keeps_its_engines_and_is_told_once() -> None:
    source = ListedSource(engine("a"))
    bench = Bench(file=source)
    await bench.turn()
    with structlog.testing.capture_logs() as logs:
        source.engines = SourceError("cannot be read")
        for _ in range(3):
            await bench.turn(limits.SOURCE_AGAIN_S)
    assert [line["event"] for line in logs] == ["source.stale"]
    (report,) = bench.loop.reports()
    assert (report.engines, report.error) == (("a",), "cannot be read")
    assert report.stale_since is not None
    assert bench.taken.lists[-1] == {"file": ["a"]}
    with structlog.testing.capture_logs() as logs:
        source.engines = (engine("a"),)
        await bench.turn(limits.SOURCE_AGAIN_S)
    assert [line["event"] for line in logs] == ["source.back"]
    assert bench.loop.reports()[0].stale_since is None


async def test_a_source_that_hangs_delays_no_other() -> None:
    slow, quick = ListedSource(engine("s")), ListedSource(engine("q"))
    slow.hangs = asyncio.Event()
    bench = Bench(slow=slow, quick=quick)
    await bench.turn()
    assert bench.taken.lists[-1] == {"slow": [], "quick": ["q"]}
    assert [each.error for each in bench.loop.reports()] == ["has not answered yet", ""]
    quick.engines = ()
    await bench.turn(0.5)
    assert (slow.readings, bench.taken.lists[-1]) == (1, {"slow": [], "quick": []})
    wakes = bench.wakes
    slow.hangs.set()
    await bench.turn()
    assert bench.taken.lists[-1] == {"slow": ["s"], "quick": []}
    assert bench.wakes > wakes, "the end of a look asks for a turn"


async def test_one_that_comes_and_goes_is_held_until_it_has_stayed() -> None:
    source = ListedSource(engine("a"))
    bench = Bench(file=source)
    for _ in range(limits.SOURCE_DEPARTURES_FREE + 1):
        source.engines = (engine("a"),)
        await bench.turn(0.5)
        source.engines = ()
        await bench.turn(0.5)
    source.engines = (engine("a"),)
    source.again_s = 2 * limits.SOURCE_HOLD_S
    with structlog.testing.capture_logs() as logs:
        await bench.turn(0.5)
    assert [line["held"] for line in logs if line["event"] == "source.engines"] == [["a"]]
    assert bench.taken.lists[-1] == {"file": []}
    assert bench.due_s == limits.SOURCE_HOLD_S
    await bench.turn(limits.SOURCE_HOLD_S)
    assert bench.taken.lists[-1] == {"file": ["a"]}


async def test_a_source_that_was_taken_out_is_closed_and_its_engines_leave() -> None:
    gone, stays = ListedSource(engine("g")), ListedSource(engine("s"))
    bench = Bench(gone=gone, stays=stays)
    await bench.turn()
    bench.loop.watch({"stays": stays})
    await bench.turn()
    assert bench.taken.lists[-1] == {"stays": ["s"]}
    assert (gone.is_closed, stays.is_closed) == (True, False)
    assert [report.label for report in bench.loop.reports()] == ["stays"]


async def test_what_cannot_be_taken_over_is_told_once_and_tried_again() -> None:
    source = ListedSource(engine("a"), again_s=60.0)
    bench = Bench(file=source)
    bench.taken.left_out = {"file": "a is left out: its key is gone"}
    with structlog.testing.capture_logs() as logs:
        await bench.turn()
        await bench.turn(limits.SOURCE_AGAIN_S)
    assert [line["event"] for line in logs].count("source.not_applied") == 1
    assert bench.loop.reports()[0].error == "a is left out: its key is gone"
    assert bench.due_s == limits.SOURCE_AGAIN_S
    lists = len(bench.taken.lists)
    bench.taken.left_out = {}
    await bench.turn(limits.SOURCE_AGAIN_S)
    assert len(bench.taken.lists) == lists + 1
    assert bench.loop.reports()[0].error == ""
    await bench.turn(limits.SOURCE_AGAIN_S)
    assert len(bench.taken.lists) == lists + 1


async def test_the_start_waits_for_sources_that_answer_and_a_while_for_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "SOURCE_START_S", 0.01)
    slow, quick = ListedSource(engine("s")), ListedSource(engine("q"))
    slow.hangs = asyncio.Event()
    bench = Bench(slow=slow, quick=quick)
    await bench.loop.start(bench.clock.now())
    assert bench.taken.lists[-1] == {"slow": [], "quick": ["q"]}
    await bench.loop.aclose()
    assert slow.is_closed
    assert quick.is_closed


async def test_without_sources_there_is_nothing_to_do() -> None:
    bench = Bench()
    await bench.turn()
    assert bench.due_at is None
