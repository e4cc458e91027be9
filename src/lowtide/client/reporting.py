"""What a run in a Python program says while it goes on: a bar, and sentences on standard error.

A bar in a terminal, HTML in a notebook, a line for each change elsewhere. With `progress=False`
nothing is shown, and the sentences go to the logger `lowtide`.
"""

import logging
from contextlib import ExitStack
from typing import Final, Self

from rich.markup import escape

from lowtide.api.objects.batches import CountsObject
from lowtide.cli.client.objects import BatchView
from lowtide.cli.tables.row_counts import RowCounts
from lowtide.cli.terminal import console
from lowtide.cli.terminal.progress import BatchBar
from lowtide.client.notebook import NotebookBar, in_notebook

_logger = logging.getLogger("lowtide")
_REASONS_SHOWN: Final = 3


class Reporter:
    """Sentences, and, as a context manager, the bar of one run."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: BatchBar | NotebookBar | None = None
        self._stack = ExitStack()
        self.counts = CountsObject()

    def say(self, text: str) -> None:
        """Says one sentence to the person who waits."""
        if self._quiet:
            _logger.info("%s", text)
        else:
            console.info(escape(text))

    def __enter__(self) -> Self:
        if not self._quiet:
            self._bar = NotebookBar(is_of_many=True) if in_notebook() else BatchBar(is_of_many=True)
            self._stack.enter_context(self._bar)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self._bar = None

    @property
    def eta_s(self) -> float | None:
        return self._bar.eta_s if self._bar is not None else None

    def show(self, batch: BatchView, outage: str = "") -> None:
        """Shows the batch as `BatchBar.show` does, and keeps its counts."""
        self.counts = batch.counts
        if self._bar is not None:
            self._bar.show(batch, outage)

    def summarize(self, rows: int, counts: RowCounts, *, is_whole: bool) -> None:
        """Says how many rows have answers, and why others have none."""
        failed = f"{counts.failed:,} failed" if counts.failed else "none failed"
        self.say(f"{rows:,} rows: {rows - counts.failed:,} succeeded, {failed}.")
        for reason, count in counts.reasons.most_common(_REASONS_SHOWN):
            self.say(f"  {count:,} x {reason} (row {counts.examples[reason]:,})")
        if len(counts.reasons) > _REASONS_SHOWN:
            self.say("  and others: see the column _error.")
        if not is_whole:
            self.say("A batch did not complete: it expired, or somebody cancelled it.")
