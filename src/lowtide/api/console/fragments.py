"""The parts of a page that change while it is open, as `views` declares them. No I/O.

What all parts of a page show is loaded for each look. What one part alone shows, or what is slow
to read, that part loads for itself, no more often than it says. Invariant: a part that is not
renewed is not rendered either, so what it shows is of one moment.
"""

from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass

from starlette.requests import Request

from lowtide.api.console.batches.batch_rows import Context

More = Callable[[Request, Context], Awaitable[Context]]
"""Loads what a part alone shows, given what all parts of its page show."""


def _always(_: Context) -> float:
    return 0.0


def _alike(_: Context) -> Hashable:
    return None


@dataclass(frozen=True, slots=True)
class TableRows:
    """Rows of a table, which are sent one by one while the table around them is the same.

    `among`: the name by which the page's context has them, each a mapping with the id of its
    `element`. `template`: of the content of that element, given the `row`. `around`: the names of
    what the table shows besides its rows and what every look of one person has.
    """

    among: str
    template: str
    around: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Fragment:
    """One element of a page: the template of its content, and what fills it.

    `age_s`: for how many seconds a look at it is good; `step`: what renews it at once where it
    differs from that of the last look. Of a table with `rows` each look tells what differs.
    """

    template: str
    more: More | None = None
    age_s: Callable[[Context], float] = _always
    step: Callable[[Context], Hashable] = _alike
    rows: TableRows | None = None
