"""A strip of cells: which parts of a batch have run, and where something failed.

Called by the console's page of a batch. It draws `GET /v1/batches/{id}/parts`. Neighbours of one
state, done as far, are one rectangle, so that a million requests take no more bytes than they say.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from typing import Final

from markupsafe import Markup

from lowtide.api.objects.history import PartObject

WORDS = {
    "done": "done",
    "failed": "with failures",
    "running": "running",
    "waiting": "waiting",
    "paused": "paused",
    "not_run": "not run",
}


_HEIGHT: Final = 22  # pixels
_UNFINISHED: Final = frozenset({"running", "waiting", "paused", "not_run"})


def strip_plot(parts: Sequence[PartObject], lines: str | None = None) -> Markup:
    """The parts side by side, each as wide as its requests are many. `lines`: the address of the
    page of lines, to which cells in the order of the input lead.
    """
    total = sum(each.count for each in parts) or 1
    counted = Counter(each.state for each in parts)
    cells: list[Markup] = []
    at = 0
    for (state, done_height), group in groupby(parts, key=lambda each: (each.state, _done(each))):
        run = list(group)
        count = sum(each.count for each in run)
        left, width = 100 * at / total, 100 * count / total
        cell = Markup('<rect class="cell cell-{}" x="{:.3f}%" width="{:.3f}%" height="{}"/>')
        drawn = cell.format(state, left, width, _HEIGHT)
        if done_height:
            done = Markup(
                '<rect class="cell-done" x="{:.3f}%" y="{}" width="{:.3f}%" height="{}"/>'
            )
            drawn += done.format(left, _HEIGHT - done_height, width, done_height)
        cells.append(drawn if lines is None else _leading(drawn, run, lines))
        at += count
    told = ", ".join(f"{counted[state]} {WORDS[state]}" for state in WORDS if counted[state])
    whole = '<svg class="plot-strip" role="{}" aria-label="{} parts: {}">{}</svg>'
    role = "img" if lines is None else "group"
    return Markup(whole).format(role, len(parts), told, Markup("").join(cells))


def _done(part: PartObject) -> int:
    """How high the part is filled because requests of it are done, in steps of a pixel: without it
    a batch that is paused half way looks as if nothing had run. A part with failures stays whole.
    """
    if part.state not in _UNFINISHED or not part.count:
        return 0
    return _HEIGHT * part.settled // part.count


def _leading(cell: Markup, run: Sequence[PartObject], lines: str) -> Markup:
    """The cell as a link to its first line; the script finds the one that was pointed at, by
    `data-first` and how many lines of that file there are."""
    state, first = run[0].state, run[0].place or 0
    if state == "done":
        count, query = sum(each.count for each in run), "?first="
    else:
        count = sum(each.failed or each.count - each.settled for each in run)
        query = "?kind=errors&first="
    words = f"{WORDS[state]}: {count:,} lines from line {run[0].first + 1:,} on"
    link = (
        '<a href="{}{}{}" data-first="{}" data-count="{}" aria-label="{}"><title>{}</title>{}</a>'
    )
    return Markup(link).format(lines, query, first, first, count, words, words, cell)
