"""One look at a page: what each of its parts shows now, rendered where it may differ from before.

Called by `live_pages` through `shared_looks`, and by `answers` for a whole page. Invariant: a part
whose digest is that of the last look shows the same, so it needs no sending.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from hashlib import sha256

import msgspec
from starlette.requests import Request

from lowtide import limits
from lowtide.api.console.batches.batch_rows import Context
from lowtide.api.console.fragments import Fragment, TableRows
from lowtide.api.console.rendering import render
from lowtide.api.console.views import View


class ShownPart:
    """The content of one element as an event, and the digest of it. `within`: the element that
    holds this one, whose event has it, too; empty for a part of the page. `of`: what it was made
    of; `at_s`: when, by the clock of the event loop.
    """

    __slots__ = ("_event", "_html", "at_s", "digest", "element", "of", "within")

    def __init__(
        self,
        element: str,
        digest: bytes,
        html: Callable[[], str],
        *,
        within: str = "",
        of: Hashable | Context = None,
        at_s: float = 0.0,
    ) -> None:
        self.element = element
        self.digest = digest
        self.within = within
        self.of = of
        self.at_s = at_s
        self._html = html
        self._event = b""

    @property
    def event(self) -> bytes:
        """The server-sent event, encoded once for all who need it."""
        if not self._event:
            told = msgspec.json.encode({"id": self.element, "html": self._html()})
            self._event = b"data: " + told + b"\n\n"
        return self._event


Look = Sequence[ShownPart]


async def whole_context(request: Request, view: View, parameters: Mapping[str, str]) -> Context:
    """All that a page shows besides its shell. Raises LowtideError where there is nothing."""
    context = await view.load(request, **parameters)
    for fragment in view.fragments.values():
        if fragment.more is not None:
            context |= await fragment.more(request, context)
    return context


async def look_at(
    request: Request,
    view: View,
    parameters: Mapping[str, str],
    shell: Context,
    before: Look,
    now_s: float,
    *,
    is_whole: bool = False,
) -> Look:
    """All parts of the page. `before`: the last look; `is_whole`: none of it is good enough that is
    older than a look that is shared. Raises LowtideError where there is nothing to show.
    """
    context = {**shell, **await view.load(request, **parameters)}
    known = {part.element: part for part in before}
    parts: list[ShownPart] = []
    for element, fragment in view.fragments.items():
        if fragment.rows is not None:
            parts += _table(element, fragment, fragment.rows, context, known)
            continue
        age_max_s = fragment.age_s(context)
        if is_whole:
            age_max_s = min(age_max_s, limits.CONSOLE_LOOK_SHARED_S)
        last, step = known.get(element), fragment.step(context)
        if last is None or now_s - last.at_s >= age_max_s or last.of != step:
            more = {} if fragment.more is None else await fragment.more(request, context)
            html = render(fragment.template, {**context, **more})
            last = _part(element, html, of=step, at_s=now_s)
        parts.append(last)
    return parts


def _table(
    element: str,
    fragment: Fragment,
    rows: TableRows,
    context: Context,
    known: Mapping[str, ShownPart],
) -> Iterator[ShownPart]:
    """The table, which is rendered whole only for who needs it, and each of its rows."""
    listed: Sequence[Context] = context[rows.among]
    around = [*(context[name] for name in rows.around), *(row["element"] for row in listed)]
    digest = sha256(msgspec.json.encode(around)).digest()
    yield ShownPart(element, digest, lambda: render(fragment.template, context))
    for row in listed:
        last = known.get(row["element"])
        if last is None or last.of != row:
            html = render(rows.template, {**context, "row": row})
            last = _part(row["element"], html, within=element, of=row)
        yield last


def _part(
    element: str, html: str, *, within: str = "", of: Hashable | Context, at_s: float = 0.0
) -> ShownPart:
    digest = sha256(html.encode()).digest()
    return ShownPart(element, digest, lambda: html, within=within, of=of, at_s=at_s)


def changed(look: Look, sent: Mapping[str, bytes]) -> list[ShownPart]:
    """The parts to send to a page that was sent those digests, by element. Rows of a table that is
    sent are in it.
    """
    differ = [part for part in look if sent.get(part.element) != part.digest]
    whole = {part.element for part in differ}
    return [part for part in differ if part.within not in whole]
