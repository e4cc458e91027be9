"""The buttons above the list: one action on the chosen batches, or on all that match the filter.

Each batch is acted on by the verb of its own page's button, one after the other, so a refusal of
one leaves the others done. What came of it is told above the list. A retry is counted and asked
about first (retry_question.py), with and without the page's script.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lowtide import limits
from lowtide.api.console.answers import show
from lowtide.api.console.batches.actions import ACTS
from lowtide.api.console.batches.batch_names import names_of
from lowtide.api.console.batches.filter_box import read_filter
from lowtide.api.console.batches.retry_question import question_of
from lowtide.api.console.failures import told_on_a_page
from lowtide.api.console.forms import Form, read_whole_form
from lowtide.api.middleware.auth import set_audit_subject
from lowtide.api.middleware.caller import identify, services_of
from lowtide.api.middleware.console_paths import HOME, ROOT
from lowtide.core.batches.batch import Batch
from lowtide.core.errors import LowtideError

_DONE: Final = {
    "cancel": "cancelled",
    "pause": "paused",
    "resume": "resumed",
    "retry": "retried",
    "delete": "deleted",
}


class Acted(NamedTuple):
    """A batch that was acted on, or could not be. `batch_id`: whose page its name leads to, of a
    retry the new batch; None: there is no page any more. `message`: why not."""

    batch_id: str | None
    name: str
    message: str = ""


class Chosen(NamedTuple):
    """The batches, newest first. `unknown`: ids of none of this project; `has_more`: there are more
    than are taken at once."""

    batches: Sequence[Batch]
    unknown: Sequence[str]
    has_more: bool


@told_on_a_page
async def act_on_selection(request: Request) -> Response:
    """Does what the pressed button says to each batch; asks before it retries them."""
    form = await read_whole_form(request)
    act = form.value("act")
    try:
        if act not in _DONE:
            raise LowtideError("invalid_request", "There is no such button.", "act")
        chosen = await _chosen(request, form)
    except LowtideError as error:
        return await show(request, HOME, error)
    names = await names_of(request, chosen.batches)
    if act == "retry" and not form.value("sure"):
        return await _asked(request, chosen, names)
    done: list[Acted] = []
    refused = [Acted(None, each, "There is no such batch.") for each in chosen.unknown]
    for batch in chosen.batches:
        try:
            next_id = await ACTS[act](request, batch.id, {})
        except LowtideError as error:
            refused.append(Acted(batch.id, names[batch.id], _of_it(error.message, batch.id)))
        else:
            done.append(Acted(next_id, names[batch.id]))
    set_audit_subject(request, ",".join(each.id for each in chosen.batches))
    told = _told(act, len(done), len(refused)) + _bound_told(chosen)
    most = limits.CONSOLE_REFUSALS_SHOWN
    return await show(request, HOME, told=told, done=done[:most], refused=refused[:most])


async def _asked(request: Request, chosen: Chosen, names: dict[str, str]) -> Response:
    """The list, with the question above it, or with why there is nothing to ask."""
    question = await question_of(request, chosen.batches, names)
    if question.ended or question.cancelled:
        return await show(request, HOME, question=question, told=_bound_told(chosen) or None)
    number = len(chosen.batches) + len(chosen.unknown)
    told = (
        f"Nothing to retry in {_number(number)}: they run, every line of theirs has succeeded or"
        " runs again by now, or none of their lines could run."
    )
    return await show(request, HOME, told=told + _bound_told(chosen))


async def _chosen(request: Request, form: Form) -> Chosen:
    """Raises LowtideError where nothing is chosen."""
    most = limits.CONSOLE_ACTIONS_MAX
    services, project_id = services_of(request), identify(request).project_id
    if form.value("all"):
        which = read_filter(request.query_params.get("q", ""), services.files.now())
        page = await services.batches.page(project_id, after=None, limit=most, which=which)
        return Chosen(page.batches, (), page.more)
    ids = form.values("batch")
    if form.value("with_cancelled"):
        ids += form.values("cancelled")
    ids = list(dict.fromkeys(ids))
    if not ids:
        raise LowtideError("invalid_request", "Choose batches first.", "batch")
    known = await services.batches.get_many(project_id, ids[:most])
    batches = [known[each] for each in ids if each in known]
    unknown = [each for each in ids[:most] if each not in known]
    return Chosen(batches, unknown, len(ids) > most)


def _told(act: str, done: int, refused: int) -> str:
    words = f"{_number(done)} {_DONE[act]}"
    return f"{words}, {refused:,} not:" if refused else f"{words}."


def _bound_told(chosen: Chosen) -> str:
    if not chosen.has_more:
        return ""
    number = len(chosen.batches) + len(chosen.unknown)
    return f" These were the newest {number:,}: there are more."


def _number(batches: int) -> str:
    return f"{batches:,} batch{'' if batches == 1 else 'es'}"


def _of_it(message: str, batch_id: str) -> str:
    """The message without the batch's id: its name stands before it."""
    return message.replace(f"Batch '{batch_id}'", "It").replace(f"batch '{batch_id}'", "it")


ROUTES: Final = (Route(f"{ROOT}/batches", act_on_selection, methods=["POST"]),)
