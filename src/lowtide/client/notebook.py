"""Progress in a notebook: one line of HTML below the cell, replaced as the run goes on.

Stands where `cli.terminal.progress.BatchBar` stands in a terminal. Needs no widgets: a display with
an id is all, which Jupyter, Colab and VS Code have. Invariant: nothing is drawn that comes from
others without being escaped.
"""

import sys
import time
from collections import deque
from collections.abc import Callable
from html import escape
from importlib import import_module
from typing import Any, Final, Self

from lowtide.api.objects.batches import CountsObject
from lowtide.cli.client.objects import BatchView
from lowtide.cli.terminal.units import human_seconds

_SPEED_SPAN_S: Final = 30.0  # the rate is of the last half minute, as in a terminal
_BAR: Final = (
    '<div style="display:inline-block;vertical-align:middle;width:16em;height:0.6em;'
    'border-radius:0.3em;background:rgba(128,128,128,0.3)"><div style="width:{share:.1f}%;'
    'height:100%;border-radius:0.3em;background:#2a7de1"></div></div>'
)


def in_notebook() -> bool:
    """Whether this code runs in the kernel of a notebook; IPython in a terminal is none."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


class NotebookBar:
    """A run's progress, redrawn with each `show`. A context manager.

    `is_of_many` as of `BatchBar`.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, *, is_of_many: bool = False
    ) -> None:
        self._clock = clock
        self._is_of_many = is_of_many
        self._handle: Any = None
        self._seen: deque[tuple[float, int]] = deque()
        self._drawn = ""
        self.eta_s: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leaves what was drawn last below the cell."""

    def show(self, batch: BatchView, outage: str = "") -> None:
        """Draw the run as it is now; `outage` says why this may be old."""
        counts = batch.counts
        rate = self._rate(counts)
        why = outage or batch.reason or ""
        text = f"{counts.settled:,} of {counts.total:,} rows"
        if counts.failed:
            text += f", {counts.failed:,} failed"
        if rate:
            text += f", {rate:,.0f}/s" if rate >= 10 else f", {rate:.2g}/s"
        if left_s := self.eta_s if self._is_of_many else batch.eta_seconds:
            text += f", {human_seconds(left_s)} left"
        if why:
            text += f" ({why})"
        if text != self._drawn:
            self._drawn = text
            self._draw(text, 100 * counts.settled / (counts.total or 1))

    def _rate(self, counts: CountsObject) -> float:
        """Rows a second lately; also sets the time left."""
        now = self._clock()
        self._seen.append((now, counts.settled))
        while now - self._seen[0][0] > _SPEED_SPAN_S and len(self._seen) > 2:
            self._seen.popleft()
        since, before = self._seen[0]
        rate = (counts.settled - before) / (now - since) if now > since else 0.0
        self.eta_s = (counts.total - counts.settled) / rate if rate > 0 else None
        return rate

    def _draw(self, text: str, share: float) -> None:
        data = {
            "text/plain": text,
            "text/html": f"{_BAR.format(share=share)} <code>{escape(text)}</code>",
        }
        if self._handle is None:
            display = import_module("IPython.display").display
            self._handle = display(data, raw=True, display_id=True)
        else:
            self._handle.update(data, raw=True)
