"""A strip of cells: which parts of a batch have run, and where something failed.

Called by the console's page of a batch. It draws `GET /v1/batches/{id}/parts`. Neighbours of one
state are one rectangle, so that a million requests take no more bytes than they say.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import groupby

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


def strip_plot(parts: Sequence[PartObject]) -> Markup:
    """The parts side by side, each as wide as its requests are many."""
    total = sum(each.count for each in parts) or 1
    counted = Counter(each.state for each in parts)
    cells: list[Markup] = []
    at = 0
    for state, group in groupby(parts, key=lambda each: each.state):
        count = sum(each.count for each in group)
        cell = '<rect class="cell cell-{}" x="{:.3f}%" width="{:.3f}%" height="22"/>'
        cells.append(Markup(cell).format(state, 100 * at / total, 100 * count / total))
        at += count
    told = ", ".join(f"{counted[state]} {WORDS[state]}" for state in WORDS if counted[state])
    whole = '<svg class="plot-strip" role="img" aria-label="{} parts: {}">{}</svg>'
    return Markup(whole).format(len(parts), told, Markup("").join(cells))
