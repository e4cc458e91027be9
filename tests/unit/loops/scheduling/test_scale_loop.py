"""loops/scheduling/scale.py: what is wanted is shown, and a change is logged once."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest
import structlog

from lowtide import limits
from lowtide.core.scheduling.wanted_replicas import Wanted
from lowtide.loops.scheduling.scale import ScaleLoop
from lowtide.ports.store import StoreUnavailable
from lowtide.service.scale import ModelScale, ScaleService
from lowtide.telemetry import scale_metrics

NOW = datetime(2026, 11, 23, tzinfo=UTC)


class Reported:
    """A service that tells what it is set to."""

    def __init__(self) -> None:
        self.replicas: int | None = 0
        self.shown: list[list[str]] = []

    async def all(self) -> Mapping[str, ModelScale]:
        if self.replicas is None:
            raise StoreUnavailable("away")
        wanted = Wanted(replicas=self.replicas, reason="why")
        return {
            "m": ModelScale(model="m", wanted=wanted, present=0, in_flight=0, work_seconds=None)
        }

    def show(self, found: Mapping[str, ModelScale], _: datetime) -> None:
        self.shown.append(list(found))


async def test_a_number_that_changes_is_logged_once_and_all_are_shown() -> None:
    reported = Reported()
    loop = ScaleLoop(cast(ScaleService, reported), reported.show)
    with structlog.testing.capture_logs() as logs:
        for number in (0, 2, 2, 0):
            reported.replicas = number
            assert await loop.tick(NOW) == NOW + timedelta(seconds=limits.SCALE_S)
    assert [line["replicas"] for line in logs] == [2, 0]
    assert reported.shown == [["m"]] * 4


async def test_what_cannot_be_read_is_shown_as_absent() -> None:
    reported = Reported()
    reported.replicas = None
    with pytest.raises(StoreUnavailable):
        await ScaleLoop(cast(ScaleService, reported), reported.show).tick(NOW)
    assert reported.shown == [[]]


def test_the_backlog_is_shown_by_deadline_with_all_that_is_due_before() -> None:
    due = [(NOW - timedelta(hours=1), 1, 5.0), (NOW + timedelta(hours=3), 2, 7.0)]
    due.append((NOW + timedelta(days=9), 4, 1.0))
    scale_metrics.begin_scale()
    scale_metrics.show_scale("m", Wanted(replicas=3, trusted=False), 1, 60.0, due, NOW)
    shown = {
        label: scale_metrics.BACKLOG_REQUESTS.labels("m", label)._value.get()
        for label in scale_metrics.WITHIN
    }
    assert shown == {"1h": 1, "6h": 3, "24h": 3, "7d": 7}
    assert scale_metrics.BACKLOG_WORK.labels("m", "6h")._value.get() == 12
    assert scale_metrics.WANTED.labels("m")._value.get() == 3
    assert scale_metrics.TRUSTED.labels("m")._value.get() == 0
    scale_metrics.begin_scale()
    assert not list(scale_metrics.WANTED.collect()[0].samples)
