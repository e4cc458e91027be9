"""The time left beside a bar: the server's estimate, which only the clock moves meanwhile."""

import io

import pytest

from lowtide.api.objects.batches import CountsObject
from lowtide.cli.client.objects import BatchView
from lowtide.cli.terminal import console
from lowtide.cli.terminal.progress import BatchBar, _TimeLeftColumn
from testkit.manual_clock import ManualClock


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    made = console._Console(file=io.StringIO(), force_terminal=True, width=120)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(console, "ERR", made)


def batch(settled: int, eta_s: int | None, cautious_s: int | None = None) -> BatchView:
    return BatchView(
        id="batch_1",
        status="in_progress",
        request_counts=CountsObject(total=1000, completed=settled),
        eta_seconds=eta_s,
        cautious_eta_seconds=cautious_s,
    )


def shown(bar: BatchBar) -> str:
    assert bar._progress is not None
    return _TimeLeftColumn().render(bar._progress.tasks[0]).plain


def test_only_the_clock_moves_the_time_left_between_two_answers() -> None:
    clock = ManualClock()
    bar = BatchBar(clock=clock.monotonic)
    bar.show(batch(10, 6120))
    assert shown(bar) == "1 h 42 min left"
    clock.advance(120)
    assert shown(bar) == "1 h 40 min left"
    bar.show(batch(900, 6000), outage="the server does not answer")
    assert shown(bar) == "1 h 40 min left", "an old answer is as old as it was"
    bar.show(batch(900, 6120))
    assert shown(bar) == "1 h 42 min left", "whatever the rate of late"


def test_the_time_at_a_slow_pace_stands_where_there_is_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = ManualClock()
    bar = BatchBar(clock=clock.monotonic)
    bar.show(batch(10, 600, 840))
    clock.advance(1)
    assert shown(bar) == "9 min 59 s to 13 min 59 s left"
    monkeypatch.setattr(console, "ERR", console._Console(file=io.StringIO(), width=80))
    assert shown(bar) == "9 min 59 s left"


def test_no_time_left_is_shown_where_the_server_says_none() -> None:
    clock = ManualClock()
    bar = BatchBar(clock=clock.monotonic)
    for settled in (10, 20, 30):
        bar.show(batch(settled, None))
        clock.advance(1)
    assert shown(bar) == ""


def test_the_run_of_a_table_has_an_estimate_of_its_own() -> None:
    clock = ManualClock()
    bar = BatchBar(is_of_many=True, clock=clock.monotonic)
    for settled in (100, 200, 300):
        bar.show(batch(settled, None))
        clock.advance(1)
    assert shown(bar) == "7 s left"
