"""What the list of batches, the page of one, and the page of its lines show.

The objects are those of `/v1/batches`.
"""

from collections.abc import Hashable, Sequence

import msgspec
from starlette.requests import Request

from lowtide import limits
from lowtide.api.batches.costs import costs_of
from lowtide.api.batches.lines import ListLines, lines_of
from lowtide.api.console.batches.batch_rows import (
    Context,
    mean_rate,
    row_of,
    steps_of,
)
from lowtide.api.console.batches.buttons import buttons_of, retry_question
from lowtide.api.console.batches.ended_reason import has_good_input, title_of_errors
from lowtide.api.console.batches.filter_box import STATES_OFFERED, read_filter
from lowtide.api.console.batches.history_view import EventsOfLook
from lowtide.api.console.batches.shown_lines import shown_line
from lowtide.api.dialects import openai
from lowtide.api.files.uploads import public_base
from lowtide.api.middleware.caller import identify, services_of
from lowtide.api.objects.accounts import UsageLine
from lowtide.api.objects.batches import BatchObject
from lowtide.api.openapi.routes import read_query
from lowtide.api.replicas.engines import engines_of, totals_of
from lowtide.core.batches.batch import TERMINAL, Batch
from lowtide.core.errors import LowtideError
from lowtide.service.batches.batches import Page


async def load_batches(request: Request) -> Context:
    """The newest batches that `?q=` asks for, or those behind `?after=`."""
    services, now = services_of(request), services_of(request).files.now()
    after = request.query_params.get("after") or None
    typed = request.query_params.get("q", "").strip()
    wrong, page = None, Page((), more=False)
    try:
        which = read_filter(typed, now)
    except LowtideError as error:
        wrong = error.message
    else:
        page = await services.batches.page(
            identify(request).project_id,
            after=after,
            limit=limits.CONSOLE_BATCHES_PAGE,
            which=which,
        )
    shown = await _objects(request, page.batches)
    names = await services.files.names(
        identify(request).project_id, [each.input_file_id for each in shown]
    )
    return {
        "q": typed,
        "wrong": wrong,
        "filter_states": STATES_OFFERED,
        "batches": [
            {
                **row_of(each, names),
                "element": f"row-{each.id}",
                "owner": batch.user_id,
                "rate": mean_rate(batch, now),
            }
            for each, batch in zip(shown, page.batches, strict=True)
        ],
        "after": after,
        "older": shown[-1].id if page.more else None,
        "told": None,
        "done": (),
        "refused": (),
        "question": None,
    }


async def load_fleet(request: Request, _: Context) -> Context:
    """All engines together, for administrators: what one project waits for may be another's."""
    if "admin" not in identify(request).scopes:
        return {"fleet": None}
    return {"fleet": await totals_of(request, (await engines_of(request)).data)}


async def load_batch(request: Request, batch_id: str) -> Context:
    """One batch as it is now. `stored` and `its_events`: its record and what happened to it, for
    what the page's parts load besides."""
    services, project_id = services_of(request), identify(request).project_id
    batch = await services.batches.get(project_id, batch_id)
    (shown,) = await _objects(request, [batch])
    names = await services.files.names(project_id, [batch.input_file_id])
    groups = (
        await services.retries.failures(project_id, batch_id) if shown.request_counts.failed else ()
    )
    tree = await _tree(request, batch)
    return {
        **row_of(shown, names),
        **tree,
        "stored": batch,
        "its_events": EventsOfLook(request, batch),
        "buttons": buttons_of(shown, tree["unfinished_id"]),
        "address": public_base(request),
        "failures": groups,
        "retry_question": retry_question,
        "costs": await _costs_by_model(request, batch),
        "steps": steps_of(shown),
        "errors_title": title_of_errors(shown),
        "has_good_input": has_good_input(shown),
        "output_file_id": batch.output_file_id,
        "error_file_id": batch.error_file_id,
        "is_whole": batch.status in TERMINAL,
    }


def step_of(context: Context) -> Hashable:
    """What is done to a batch, and what becomes of it: the page shows it at once."""
    batch: BatchObject = context["batch"]
    steered = (batch.holds, batch.priority, batch.completion_window)
    errors = bool(context["failed"]), context["unfinished_id"], len(context["relatives"])
    return (batch.status, *steered, *errors, tuple(sorted(batch.metadata.items())))


def step_of_plots(context: Context) -> Hashable:
    """The same, and the minutes in which it will be done: the plot never tells others than the
    numbers above it."""
    batch: BatchObject = context["batch"]
    ends = batch.estimated_completion_at, batch.cautious_completion_at
    return step_of(context), *(None if each is None else each // 60 for each in ends)


def age_of_rest(context: Context) -> float:
    """Seconds between two looks at what changes slowly: history is written no more often."""
    if context["has_ended"]:
        return limits.CONSOLE_ENDED_REFRESH_S
    return limits.CONSOLE_HISTORY_REFRESH_S


async def load_lines(request: Request, batch_id: str) -> Context:
    """A page of results, or of errors, with their requests."""
    asked = read_query(request, ListLines)
    if not asked.custom_id:
        asked = msgspec.structs.replace(asked, custom_id=None)
    batch = await services_of(request).batches.get(identify(request).project_id, batch_id)
    wrong = None
    try:
        page = await lines_of(request, batch_id, asked)
    except LowtideError as error:
        if error.param != "custom_id":
            raise
        wrong, asked = error.message, msgspec.structs.replace(asked, custom_id=None)
        page = await lines_of(request, batch_id, asked)
    names = await services_of(request).files.names(batch.project_id, [batch.input_file_id])
    return {
        "batch_id": batch_id,
        "name": batch.metadata.get("name") or batch_id,
        "kind": asked.kind,
        "file_id": batch.output_file_id if asked.kind == "output" else batch.error_file_id,
        "first": asked.first,
        "custom_id": asked.custom_id,
        "wrong": wrong,
        "page_size": asked.limit,
        "lines": [shown_line(each) for each in page.data],
        "total": page.total,
        "has_more": page.has_more,
        "in_input_order": page.in_input_order,
        "no_request": _no_request(page.in_input_order, bool(names)),
    }


def _no_request(has_ended: bool, has_input: bool) -> str:
    """Why a line has no request beside it: the one reason that holds."""
    if not has_ended:
        return "The request is shown once the batch has ended."
    if not has_input:
        return "The request cannot be shown: the input file is deleted."
    return "The request is not shown: it is too large for a page, or not in the input any more."


async def _objects(request: Request, batches: Sequence[Batch]) -> list[BatchObject]:
    services = services_of(request)
    progress = await services.progress.of(batches)
    costs = await services.batches.costs(batches)
    return [
        openai.batch(batch, its, cost)
        for batch, its, cost in zip(batches, progress, costs, strict=True)
    ]


async def _costs_by_model(request: Request, batch: Batch) -> Sequence[UsageLine]:
    """Lists the costs of a batch with several models; one has nothing to tell beside the sum."""
    return () if batch.model is not None else (await costs_of(request, batch)).data


async def _tree(request: Request, batch: Batch) -> Context:
    """The other batches over the same input, and whether a retry may be made now."""
    tree: Sequence[Batch] = (batch,)
    if batch.retry_of is not None or batch.ended_at is not None:
        tree = await services_of(request).retries.tree(batch.project_id, batch.id)
    running = next((each for each in tree if each.ended_at is None), None)
    return {
        "relatives": [each for each in tree if each.id != batch.id],
        "unfinished_id": None if running is None else running.id,
    }
