"""What a process knows of workers, its own and others'."""

from datetime import timedelta
from zoneinfo import ZoneInfo

import msgspec
import pytest
from skipping_clock import SkippingClock

from lowtide import limits
from lowtide.core.reporting.worker_report import ReplicaReport, WorkerReport
from lowtide.core.scheduling.operating_hours import OperatingHours, span_of
from lowtide.ports.store import Store, StoreUnavailable
from lowtide.service.standings import Standings
from testkit.faults import Faulty


class Place:
    """A store of reports that counts who reads it."""

    def __init__(self, store: Store, clock: SkippingClock) -> None:
        self.clock = clock
        self.store = Faulty(store.worker_reports, ("all", "write"))
        self.standings = Standings(self.store, clock)

    async def write(self, worker_id: str, condition: str = "ready") -> None:
        now = self.clock.now()
        report = self.report(worker_id, condition)
        await self.store.write(report, forget_before=now - timedelta(days=1))

    def report(self, worker_id: str, condition: str = "ready") -> WorkerReport:
        replica = ReplicaReport(name="a", models=("m",), condition=condition, public_reason="no")
        now = self.clock.now()
        return WorkerReport(worker_id=worker_id, seen_at=now, ttl_s=30.0, replicas=(replica,))


@pytest.fixture
def place(store: Store, clock: SkippingClock) -> Place:
    return Place(store, clock)


async def test_a_process_without_a_worker_knows_what_others_wrote(place: Place) -> None:
    await place.write("w1", "unreachable")
    standing = await place.standings.now()
    hold = standing.models["m"]
    assert hold is not None
    assert (standing.live, hold.condition) == (("w1",), "unreachable")


async def test_where_no_worker_has_written_none_is_running(place: Place) -> None:
    standing = await place.standings.now()
    assert standing.is_known
    assert (standing.live, standing.gone) == ((), {})


async def test_a_worker_that_died_is_gone_after_its_time(
    place: Place, clock: SkippingClock
) -> None:
    await place.write("w1")
    clock.advance(29.0)
    assert (await place.standings.now()).live == ("w1",)
    clock.advance(2.0)
    standing = await place.standings.now()
    assert (standing.live, list(standing.gone)) == ((), ["w1"])


async def test_a_worker_that_died_while_its_clock_was_ahead_hides_nothing_for_longer(
    place: Place, clock: SkippingClock
) -> None:
    ahead = msgspec.structs.replace(place.report("w1"), seen_at=clock.now() + timedelta(hours=1))
    await place.store.write(ahead, forget_before=clock.now() - timedelta(days=1))
    died_at = clock.now()
    assert (await place.standings.now()).live == ("w1",)
    clock.advance(31.0)
    assert (await place.standings.now()).gone == {"w1": died_at}


async def test_one_look_serves_all_who_ask_within_its_time(
    place: Place, clock: SkippingClock
) -> None:
    for _ in range(50):
        await place.standings.now()
    assert place.store.calls["all"] == 1
    clock.advance(limits.STANDING_FRESH_S)
    await place.standings.now()
    assert place.store.calls["all"] == 2


async def test_the_worker_of_this_process_is_asked_itself(place: Place) -> None:
    await place.write("w1", "unreachable")
    standings = Standings(place.store, place.clock, lambda: place.report("w1"))
    assert (await standings.now()).models == {"m": None}


async def test_while_the_store_is_away_the_last_look_stands_and_grows_old(
    place: Place, clock: SkippingClock
) -> None:
    await place.write("w1")
    await place.standings.now()
    place.store.fail("all", StoreUnavailable("gone"), times=9)
    clock.advance(10.0)
    assert (await place.standings.now()).live == ("w1",)
    clock.advance(25.0)
    assert (await place.standings.now()).live == ()


async def test_hours_that_are_closed_hold_a_model(place: Place) -> None:
    await place.write("w1")
    closed = OperatingHours(*span_of("22:00-23:00"), ZoneInfo("UTC"))
    hours = {"m": closed, "unserved": closed}
    standings = Standings(place.store, place.clock, hours=lambda: hours)
    models = (await standings.now()).models
    hold = models["m"]
    assert hold is not None
    assert (hold.condition, hold.public_reason) == ("closed", "window opens 22:00")
    assert hold.since == closed.closed_since(place.clock.now())
    assert "unserved" not in models
