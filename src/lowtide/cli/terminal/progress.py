"""Progress bars, on standard error and only where a terminal can draw them.

Elsewhere the same calls leave one line for each change of a batch's state, so that a log tells the
story without being flooded.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Self

from rich.console import RenderableType
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from lowtide.cli.client.objects import BatchView
from lowtide.cli.terminal import console
from lowtide.cli.terminal.units import human_whole_seconds

_BAR_COLUMNS = 24  # so that counts, rate and time left fit beside it in 80 columns
_WIDE_COLUMNS = 100  # with room for the time left at a slow pace, too
_SPEED_SPAN_S = 30.0  # the rate is of the last half minute; so is the time left of a table's run

_WORDS = {
    "validating": "checking every line",
    "in_progress": "running",
    "finalizing": "putting the results in order",
    "cancelling": "cancelling",
}
"""What each state means to a person who waits."""


@contextmanager
def transfer_bar(what: str) -> Iterator[Callable[[int, int | None], None]]:
    """A bar for bytes going up or down; the yielded function takes bytes done and bytes in all."""
    if not console.is_live():
        yield lambda _done, _total: None
        return
    progress = Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console.ERR,
        transient=True,
    )
    with progress:
        task = progress.add_task(escape(what), total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def delayed_bar(what: str, after_s: float) -> Iterator[Callable[[int, int], None]]:
    """A bar for work that is mostly over before it is worth one: appears after `after_s`."""
    started = time.monotonic()
    with ExitStack() as stack:
        bar: Callable[[int, int | None], None] | None = None

        def advance(done: int, total: int) -> None:
            nonlocal bar
            if bar is None and time.monotonic() - started > after_s:
                bar = stack.enter_context(transfer_bar(what))
            if bar is not None:
                bar(done, total)

        yield advance


class _RateColumn(ProgressColumn):
    """Requests a second over the last half minute."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        if not speed:
            return Text("")
        return Text(f"{speed:,.0f}/s" if speed >= 10 else f"{speed:.2g}/s", style="cyan")


class _TimeLeftColumn(ProgressColumn):
    """`1 h 42 min left` as the server estimates it, less what has passed since it was asked, with
    the time at a slow pace where there is room; nothing while it does not say.
    """

    def render(self, task: Task) -> Text:
        now_s = task.get_time()
        ends_s = [task.fields["ends_s"]]
        if console.ERR.width >= _WIDE_COLUMNS:
            ends_s.append(task.fields["cautious_ends_s"])
        if task.fields["is_of_many"]:
            ends_s = [None if (left_s := task.time_remaining) is None else now_s + left_s]
        left = [round(each - now_s) for each in ends_s if each is not None]
        if not left or left[0] <= 0:
            return Text("")
        return Text(f"{' to '.join(map(human_whole_seconds, left))} left", style="cyan")


class _BatchProgress(Progress):
    """A bar, and below it the reason for waiting, where there is one."""

    reason = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self.reason:
            yield Text(console.printable(self.reason), style="yellow", overflow="fold")


class BatchBar:
    """A batch's progress, redrawn with each `show`. A context manager.

    `quiet` draws and writes nothing at all, for `--json`. `is_of_many`: the run of a table, whose
    rows go into batches one after another. No server estimates that one's end, so the bar does.
    """

    def __init__(
        self,
        *,
        quiet: bool = False,
        is_of_many: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._quiet = quiet
        self._shown: str | None = None
        self._progress: _BatchProgress | None = None
        if not quiet and console.is_live():
            self._progress = _BatchProgress(
                TextColumn("[bold]{task.description}"),
                BarColumn(bar_width=_BAR_COLUMNS),
                TaskProgressColumn(),
                TextColumn("{task.fields[counts]}"),
                _RateColumn(),
                _TimeLeftColumn(),
                console=console.ERR,
                transient=True,
                speed_estimate_period=_SPEED_SPAN_S,
                get_time=clock,
            )
            self._task = self._progress.add_task(
                "waiting",
                total=None,
                counts="",
                ends_s=None,
                cautious_ends_s=None,
                is_of_many=is_of_many,
            )

    def __enter__(self) -> Self:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    @property
    def eta_s(self) -> float | None:
        """Seconds to the end at the rate of late, for those who poll where the server does not say;
        None off a terminal or while unknown."""
        return self._progress.tasks[0].time_remaining if self._progress is not None else None

    def show(self, batch: BatchView, outage: str = "") -> None:
        """Draws the batch as it is now; `outage` says why this may be old."""
        if self._progress is None:
            self._tell(batch, outage)
            return
        counts = batch.counts
        failed = f", [red]{counts.failed:,} failed[/]" if counts.failed else ""
        self._progress.update(
            self._task,
            description=_WORDS.get(batch.status, batch.status),
            completed=counts.settled,
            total=counts.total or None,
            counts=f"{counts.settled:,}/{counts.total:,}{failed}" if counts.total else "",
        )
        self._progress.reason = outage or batch.reason or ""
        if not outage:  # what is shown then is of the last answer, and so is its instant
            now_s = self._progress.get_time()
            self._progress.update(
                self._task,
                ends_s=_plus(now_s, batch.eta_seconds),
                cautious_ends_s=_plus(now_s, batch.cautious_eta_seconds),
            )

    def _tell(self, batch: BatchView, outage: str) -> None:
        """Writes a line, off a terminal, when the state or the reason for waiting changed."""
        why = outage or batch.reason or ""
        story = _WORDS.get(batch.status, batch.status) + (f" ({why})" if why else "")
        if self._quiet or story == self._shown:
            return
        self._shown = story
        console.info(f"batch {escape(batch.id)}: {escape(story)}")


def _plus(now_s: float, seconds: int | None) -> float | None:
    return None if seconds is None else now_s + seconds
