"""The buttons above the list: one action on the chosen batches, or on all that match the filter.

Each batch is acted on by the verb of its own page's button, one after the other, so a refusal of
one leaves the others done. What came of it is told above the list.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lowtide import limits
from lowtide.api.console.answers import show
from lowtide.api.console.batches.actions import ACTS
from lowtide.api.console.batches.filter_box import read_filter
from lowtide.api.console.failures import told_on_a_page
from lowtide.api.console.forms import Form, read_whole_form
from lowtide.api.middleware.auth import set_audit_subject
from lowtide.api.middleware.caller import identify, services_of
from lowtide.api.middleware.console_paths import HOME, ROOT
from lowtide.core.errors import LowtideError

_DONE: Final = {
    "cancel": "cancelled",
    "pause": "paused",
    "resume": "resumed",
    "retry": "retried",
    "delete": "deleted",
}


class Refused(NamedTuple):
    """A batch that could not be acted on, and why."""

    batch_id: str
    message: str


@told_on_a_page
async def act_on_selection(request: Request) -> Response:
    """Does what the pressed button says to each batch."""
    form = await read_whole_form(request)
    act = form.value("act")
    try:
        if act not in _DONE:
            raise LowtideError("invalid_request", "There is no such button.", "act")
        batch_ids, has_more = await _chosen(request, form)
    except LowtideError as error:
        return await show(request, HOME, error)
    refused: list[Refused] = []
    for batch_id in batch_ids:
        try:
            await ACTS[act](request, batch_id, {})
        except LowtideError as error:
            refused.append(Refused(batch_id, error.message))
    set_audit_subject(request, ",".join(batch_ids))
    told = _told(act, len(batch_ids) - len(refused), len(refused))
    if has_more:
        told += f" These were the newest {len(batch_ids):,}: there are more."
    return await show(request, HOME, told=told, refused=refused[: limits.CONSOLE_REFUSALS_SHOWN])


async def _chosen(request: Request, form: Form) -> tuple[Sequence[str], bool]:
    """The batches, newest first, and whether there are more than are taken at once."""
    most = limits.CONSOLE_ACTIONS_MAX
    if not form.value("all"):
        chosen = list(dict.fromkeys(form.values("batch")))
        if not chosen:
            raise LowtideError("invalid_request", "Choose batches first.", "batch")
        return chosen[:most], len(chosen) > most
    services = services_of(request)
    page = await services.batches.page(
        identify(request).project_id,
        after=None,
        limit=most,
        which=read_filter(request.query_params.get("q", ""), services.files.now()),
    )
    return [each.id for each in page.batches], page.more


def _told(act: str, done: int, refused: int) -> str:
    words = f"{done:,} batch{'' if done == 1 else 'es'} {_DONE[act]}"
    return f"{words}, {refused:,} not:" if refused else f"{words}."


ROUTES: Final = (Route(f"{ROOT}/batches", act_on_selection, methods=["POST"]),)
