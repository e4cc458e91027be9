"""A counter on standard error for work of unknown length, where a terminal can draw it.

Nothing is shown of work that is over before it is worth it, nor off a terminal.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from rich.markup import escape
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from lowtide.cli.terminal import console
from lowtide.limits import VALIDATE_PROGRESS_AFTER_S


@contextmanager
def delayed_counter(what: str) -> Iterator[Callable[[int, int | None], None]]:
    """The yielded function takes how many are done, and of how many where that is known."""
    started = time.monotonic()
    with ExitStack() as stack:
        progress: Progress | None = None

        def advance(done: int, total: int | None = None) -> None:
            nonlocal progress
            if progress is None:
                if not console.is_live() or time.monotonic() - started < VALIDATE_PROGRESS_AFTER_S:
                    return
                progress = stack.enter_context(_counter())
                progress.add_task(escape(what), total=None)
            progress.update(progress.task_ids[0], completed=done, total=total)

        yield advance


def _counter() -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("[bold]{task.description}"),
        MofNCompleteColumn(),
        console=console.ERR,
        transient=True,
    )
