"""What a look at a page renders and sends: what differs, and no more often than it says."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from starlette.requests import Request

from lowtide import limits
from lowtide.api.console import page_looks
from lowtide.api.console.batches.batch_rows import Context, row_of
from lowtide.api.console.fragments import Fragment
from lowtide.api.console.page_looks import Look, changed, look_at
from lowtide.api.console.rendering import render
from lowtide.api.console.views import VIEWS, View
from lowtide.api.dialects import openai
from lowtide.core.accounts.ledger import Cost
from lowtide.core.batches.batch import Batch, Counts
from lowtide.core.reporting.progress import Progress
from testkit.batches import a_batch

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
SHELL = {"base": "", "csrf": "c" * 64, "is_open": False, "may_submit": True, "path": "/"}
SESSIONS = 20


@dataclass
class Page:
    """A list of batches, and what its looks rendered."""

    batches: list[Batch]
    rendered: list[str] = field(default_factory=list)
    seen: Look = ()

    async def load(self, _: Request) -> Context:
        return {
            "batches": [
                {**row_of(openai.batch(each, Progress(), Cost()), {}), **_more(each)}
                for each in self.batches
            ],
            "q": "",
            "after": None,
            "older": None,
        }

    async def look(self) -> Look:
        listed = VIEWS[0].fragments["batches"]
        view = View(re.compile("/"), "batches.html", self.load, {"batches": listed})
        self.rendered.clear()
        self.seen = await look_at(request(), view, {}, SHELL, self.seen, 0.0)
        return self.seen


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Page:
    shown = Page([running(number) for number in range(limits.CONSOLE_BATCHES_PAGE)])

    def noted(template: str, context: dict[str, Any]) -> str:
        shown.rendered.append(template)
        return render(template, context)

    monkeypatch.setattr(page_looks, "render", noted)
    return shown


def running(number: int, completed: int = 0) -> Batch:
    counts = Counts(total=1000, completed=completed)
    return a_batch(NOW, id=f"batch_{number:024d}", status="in_progress", counts=counts)


def _more(batch: Batch) -> Context:
    return {"element": f"row-{batch.id}", "owner": "key", "rate": None}


def request() -> Request:
    return Request({"type": "http"})


def sent_of(look: Look) -> dict[str, bytes]:
    return {part.element: part.digest for part in look}


def elements(parts: Sequence[page_looks.ShownPart]) -> list[str]:
    return [part.element for part in parts]


async def test_of_fifty_batches_the_one_that_moves_is_rendered_once_and_sent_alone(
    page: Page,
) -> None:
    first = await page.look()
    sessions = [sent_of(first) for _ in range(SESSIONS)]
    whole = changed(first, {})
    assert elements(whole) == ["batches"]
    page.batches[3] = running(3, completed=10)
    look = await page.look()
    reported = [changed(look, sent) for sent in sessions]
    assert page.rendered == ["parts/batch_row.html"]
    assert {tuple(elements(parts)) for parts in reported} == {(f"row-{page.batches[3].id}",)}
    assert len({id(part.event) for parts in reported for part in parts}) == 1, (
        "encoded once for all"
    )
    assert 20 * len(reported[0][0].event) < len(whole[0].event)
    html = msgspec.json.decode(reported[0][0].event.removeprefix(b"data: "))["html"]
    assert "10 of 1,000" in html
    assert html in msgspec.json.decode(changed(look, {})[0].event.removeprefix(b"data: "))["html"]


async def test_a_page_on_which_nothing_moves_renders_and_sends_nothing(page: Page) -> None:
    sent = sent_of(await page.look())
    assert changed(await page.look(), sent) == []
    assert page.rendered == []


@pytest.mark.parametrize("step", ["comes", "goes", "moves"])
async def test_a_table_whose_rows_come_go_or_move_is_sent_whole(page: Page, step: str) -> None:
    sent = sent_of(await page.look())
    match step:
        case "comes":
            page.batches.insert(0, running(99))
        case "goes":
            page.batches.pop(7)
        case "moves":
            page.batches.append(page.batches.pop(0))
    look = await page.look()
    parts = changed(look, sent)
    assert elements(parts) == ["batches"]
    html = msgspec.json.decode(parts[0].event.removeprefix(b"data: "))["html"]
    assert re.findall(r'<tbody id="row-(\w+)"', html) == [each.id for each in page.batches]
    assert changed(look, sent_of(look)) == []


async def test_a_part_is_loaded_again_when_its_time_is_over_and_at_once_after_a_step() -> None:
    loaded: list[str] = []

    async def load(_: Request) -> Context:
        return {"status": status, "fleet": None}

    async def more(_: Request, context: Context) -> Context:
        loaded.append(context["status"])
        return {}

    part = Fragment(
        "parts/fleet.html", more=more, age_s=lambda _: 5.0, step=lambda its: its["status"]
    )
    view = View(re.compile("/"), "batches.html", load, {"fleet": part})
    status, look = "in_progress", ()
    for now_s in (0.0, 2.0, 4.0, 6.0, 8.0):
        look = await look_at(request(), view, {}, SHELL, look, now_s)
    assert loaded == ["in_progress"] * 2
    status = "completed"
    look = await look_at(request(), view, {}, SHELL, look, 8.1)
    assert loaded[2:] == ["completed"]
    await look_at(request(), view, {}, SHELL, look, 10.0, is_whole=True)
    assert loaded[3:] == ["completed"], "a page that was just loaded is told what is"
