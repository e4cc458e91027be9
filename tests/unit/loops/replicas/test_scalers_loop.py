"""Scalers are asked for what is wanted: by one process, with a reason, and not without need."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
import structlog

from lowtide import limits
from lowtide.core.replicas.scaler_asks import Bounds, ReplicaNeed, ScalerStatus
from lowtide.loops.replicas.ownership import OwnershipLoop
from lowtide.loops.replicas.scalers import ScalersLoop, ScalerSpec
from lowtide.loops.replicas.seats import Seat, SeatsLoop
from lowtide.ports.scalers import ScalerError
from lowtide.ports.store import Store, StoreUnavailable
from testkit.manual_clock import ManualClock

HOLD_S = 100.0


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first ask need not wait, but where that is what is tested."""
    monkeypatch.setattr(limits, "SCALER_FIRST_S", 0.0)


class Place:
    """A scaler of the test's own."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.reported = ScalerStatus(target=0, running=0)
        self.error = ""
        self.hangs: asyncio.Event | None = None
        self.statuses = 0
        self.is_closed = False

    async def read(self) -> ScalerStatus:
        self.statuses += 1
        if self.hangs is not None:
            await self.hangs.wait()
        if self.error:
            raise ScalerError(self.error)
        return self.reported

    async def ask(self, replicas: int) -> None:
        self.asked.append(replicas)
        self.reported = ScalerStatus(target=replicas, running=replicas)

    async def check(self) -> None:
        raise AssertionError("for doctor alone")

    async def aclose(self) -> None:
        self.is_closed = True


class Process:
    """A process with one scaler of `m`."""

    def __init__(self, place: Place, clock: ManualClock | None = None, **more: Any) -> None:
        self.clock = clock or ManualClock()
        self.place = place
        self.need: ReplicaNeed | None = ReplicaNeed(replicas=0, hold_s=HOLD_S)
        self.is_away = False
        self.counted: list[str] = []
        self.seat = Seat("scaler s", self.clock)
        self.loop = ScalersLoop(
            self.clock,
            self._needs,
            wake=lambda: None,
            on_ask=lambda _, what: self.counted.append(what),
        )
        self.spec = ScalerSpec(label="s", models=("m",), bounds=Bounds(0, 4), **more)
        self.loop.watch({"s": (self.spec, place, self.seat)})
        self.owns()

    def owns(self, for_s: float = float("inf")) -> None:
        self.seat.own_until(self.clock.monotonic() + for_s)

    async def _needs(self) -> Mapping[str, ReplicaNeed]:
        if self.is_away:
            raise StoreUnavailable("away")
        return {"m": self.need} if self.need is not None else {}

    def wants(self, replicas: int, **more: Any) -> None:
        self.need = ReplicaNeed(replicas=replicas, hold_s=HOLD_S, reason="why", **more)

    async def step(self, after_s: float = limits.SCALE_S) -> None:
        """A tick after so many seconds, and the end of what it began."""
        await self.loop.tick(self.clock.advance(after_s))
        for _ in range(8):
            await asyncio.sleep(0)


@pytest.fixture
async def process() -> Process:
    return Process(Place())


async def test_it_asks_when_more_are_wanted_and_again_when_fewer_are(process: Process) -> None:
    await process.step()
    assert process.place.asked == []
    process.wants(2)
    with structlog.testing.capture_logs() as logs:
        await process.step()
        await process.step()
    assert process.place.asked == [2]
    (line,) = logs
    assert (line["event"], line["replicas"], line["before"]) == ("scaler.asked", 2, 0)
    assert (line["scaler"], line["models"], line["reason"]) == ("s", ["m"], "why")
    process.wants(0)
    await process.step()
    assert process.place.asked == [2], "not before a start's time has passed"
    await process.step(HOLD_S)
    assert process.place.asked == [2, 0]
    assert process.counted == ["taken", "taken"]


async def test_the_first_ask_waits_until_engines_were_called(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SCALER_FIRST_S", 12.0)
    process.wants(1)
    for _ in range(3):
        await process.step()
    assert process.place.asked == []
    await process.step()
    assert process.place.asked == [1]


async def test_after_a_start_it_waits_a_start_before_it_takes_any_away(process: Process) -> None:
    process.place.reported = ScalerStatus(target=3, running=3)
    await process.step()
    await process.step(HOLD_S / 2)
    assert process.place.asked == []
    await process.step(HOLD_S)
    assert process.place.asked == [0]


async def test_a_dry_run_says_what_it_would_ask_and_asks_nothing() -> None:
    process = Process(Place(), dry_run=True)
    process.wants(3)
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            await process.step()
    assert process.place.asked == []
    assert [line["event"] for line in logs] == ["scaler.would_ask"]
    (report,) = process.loop.reports()
    assert (report.dry_run, report.asked, report.target) == (True, 3, 0)
    assert process.counted == ["dry_run"]


async def test_what_it_asked_and_why_is_reported(process: Process) -> None:
    process.wants(1)
    await process.step()
    (report,) = process.loop.reports()
    assert (report.label, report.models, report.asked, report.reason) == ("s", ("m",), 1, "why")
    assert (report.asked_at, report.target) == (process.clock.now(), 1)


async def test_failures_are_told_once_and_asked_again_ever_later(process: Process) -> None:
    process.place.error = "no route"
    process.wants(1)
    with structlog.testing.capture_logs() as logs:
        for _ in range(40):
            await process.step()
    assert [line["event"] for line in logs] == ["scaler.failed"]
    assert logs[0]["error"] == "no route"
    assert process.place.statuses == 6, "after 5, 10, 20, 40 and 80 s; the next after 160 s"
    (report,) = process.loop.reports()
    assert report.error == "no route"
    process.place.error = ""
    with structlog.testing.capture_logs() as logs:
        await process.step(limits.SCALER_AGAIN_S_MAX)
        await process.step()
    assert process.place.asked == [1]
    assert [line["event"] for line in logs][:1] == ["scaler.back"]
    assert process.loop.reports()[0].error == ""


async def test_an_engine_that_falls_again_and_again_is_started_ever_later(
    process: Process,
) -> None:
    process.wants(1)
    for _ in range(60):
        await process.step()
        if process.place.reported.target:
            process.place.reported = ScalerStatus(target=0, running=0, error="replica 0 has ended")
        else:
            process.place.reported = ScalerStatus(target=0, running=0)
    assert 3 <= len(process.place.asked) <= 6
    assert process.loop.reports()[0].error == "replica 0 has ended"


async def test_what_should_have_come_long_ago_is_told_since_then(process: Process) -> None:
    process.wants(1)
    await process.step()
    assert process.loop.reports()[0].error == ""
    await process.step(2 * HOLD_S)
    since = process.clock.now()
    await process.step()
    (report,) = process.loop.reports()
    assert "no engine answers" in report.error
    assert report.error_since == since
    process.wants(1, present=1)
    await process.step()
    assert process.loop.reports()[0].error_since is None


async def test_while_the_store_is_away_nothing_is_asked(process: Process) -> None:
    process.wants(2)
    process.is_away = True
    with pytest.raises(StoreUnavailable):
        await process.step()
    assert (process.place.statuses, process.place.asked) == (0, [])
    process.is_away = False
    process.need = None  # a model that is not known
    await process.step()
    assert (process.place.statuses, process.place.asked) == (1, [])


async def test_a_scaler_that_hangs_delays_no_other_and_is_given_up_in_time() -> None:
    slow, quick = Place(), Place()
    slow.hangs = asyncio.Event()
    process = Process(slow, step_s=0.01)
    spec = ScalerSpec(label="q", models=("m",), bounds=Bounds(0, 4))
    process.loop.watch({"s": (process.spec, slow, process.seat), "q": (spec, quick, process.seat)})
    process.wants(1)
    await process.step()
    assert quick.asked == [1]
    async with asyncio.timeout(10):
        while not any(report.error for report in process.loop.reports()):
            await asyncio.sleep(0.001)
            await process.step()
    assert "has not answered" in {r.label: r for r in process.loop.reports()}["s"].error


async def test_of_two_workers_one_asks_and_the_other_takes_over_when_it_is_gone(
    store: Store,
) -> None:
    place, clock = Place(), ManualClock()
    one, two = Process(place, clock), Process(place, clock)
    members = [
        OwnershipLoop(f"w{n} scalers", store.ownership, clock, {"scaler s": each.seat}, (), Work())
        for n, each in enumerate((one, two))
    ]
    for each in (one, two):
        each.wants(2)
    seats = [SeatsLoop(member, lambda: True) for member in members]
    for _ in range(3):
        for seat in seats:
            await seat.tick(clock.now())
        for each in (one, two):
            await each.step()
    assert place.asked == [2]
    acting, other = sorted((one, two), key=lambda each: not each.loop.reports())
    assert acting.loop.reports() and not other.loop.reports()
    heir = seats[[one, two].index(other)]
    place.reported = ScalerStatus(target=0, running=0)
    for _ in range(12):  # the acting one has died: nothing of it ticks any more
        await heir.tick(clock.now())
        await other.step()
    assert place.asked == [2, 2]
    assert other.loop.reports()


async def test_a_seat_that_is_lost_before_the_ask_asks_nothing(process: Process) -> None:
    process.place.hangs = asyncio.Event()
    process.wants(2)
    process.owns(for_s=10.0)
    await process.step()
    assert process.seat.calls == 1, "whoever takes over waits for its end"
    process.clock.advance(20.0)
    process.place.hangs.set()
    await process.step()
    assert (process.place.asked, process.seat.calls) == ([], 0)
    assert process.loop.reports() == ()


async def test_one_that_is_taken_out_of_the_settings_is_closed_and_left_as_it_is(
    process: Process,
) -> None:
    process.wants(1)
    await process.step()
    process.loop.watch({})
    await process.step()
    assert (process.place.is_closed, process.place.asked) == (True, [1])
    assert process.loop.reports() == ()


class Work:
    def announce(self) -> None:
        pass

    def release_replicas(self, replica_names: frozenset[str], models: frozenset[str]) -> None:
        pass
