"""What each page shows, gathered from the services: one function for each page.

The objects are those of the HTTP API, so a person who asks with curl sees the same. `pages` renders
a whole page of it, `live_pages` its fragments again and again.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Final

import msgspec
from starlette.requests import Request

from lowtide import limits
from lowtide.api.batches.batches import estimate_of
from lowtide.api.batches.costs import costs_of
from lowtide.api.batches.lines import ListLines, lines_of
from lowtide.api.console.accounts.administration_views import (
    load_organization,
    load_organizations,
    load_project,
)
from lowtide.api.console.accounts.usage_view import load_usage
from lowtide.api.console.batches.batch_rows import (
    Context,
    row_of,
    steps_of,
    unrun_in,
    without_answer,
)
from lowtide.api.console.batches.buttons import buttons_of
from lowtide.api.console.batches.filter_box import read_filter
from lowtide.api.console.batches.history_view import history_context
from lowtide.api.console.batches.shown_lines import shown_line
from lowtide.api.console.replicas.engine_views import load_engine, load_engines, load_week
from lowtide.api.console.webhooks.webhook_views import load_webhook, load_webhooks
from lowtide.api.dialects import openai
from lowtide.api.files.uploads import public_base
from lowtide.api.middleware.caller import Caller, identify, require, services_of
from lowtide.api.objects.batches import BatchObject
from lowtide.api.openapi.routes import read_query
from lowtide.core.batches.batch import TERMINAL, Batch
from lowtide.core.batches.line import ENDPOINTS
from lowtide.core.errors import LowtideError
from lowtide.core.files.file import File
from lowtide.core.reporting.standing import Standing
from lowtide.service.batches.batches import Page
from lowtide.service.batches.new_batch import NewBatch

_URL: Final = re.compile(rb'"url"\s*:\s*"(/v1/[a-z/]+)"')


@dataclass(frozen=True, slots=True)
class View:
    """A page: its address, its template, the parts of it that change, and what fills them.

    `fragments` maps the id of an element to the template of its content.
    """

    path: re.Pattern[str]
    template: str
    load: Callable[..., Awaitable[Context]]
    fragments: Mapping[str, str] = field(default_factory=dict)


def shell_of(request: Request) -> Context:
    """What every page has: where it is, who looks, and which commands that person has."""
    settings = services_of(request).settings
    caller: Caller = identify(request)
    return {
        "base": settings.server.path_prefix,
        "csrf": request.state.csrf,
        "is_open": settings.auth.mode == "open",
        "may_read": "read" in caller.scopes,
        "may_submit": "submit" in caller.scopes,
        "may_administer": "admin" in caller.scopes,
        "project": caller.project_name,
        "path": request.scope["path"],
        "failure": None,
    }


async def load_batches(request: Request) -> Context:
    """The newest batches that `?q=` asks for, or those behind `?after=`."""
    services = services_of(request)
    after = request.query_params.get("after") or None
    typed = request.query_params.get("q", "").strip()
    wrong, page = None, Page((), more=False)
    try:
        which = read_filter(typed, services.files.now())
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
        "batches": [row_of(each, names, without_answer(each)) for each in shown],
        "after": after,
        "older": shown[-1].id if page.more else None,
        "told": None,
        "refused": (),
    }


async def load_batch(request: Request, batch_id: str) -> Context:
    """One batch, whatever of it is known now."""
    services, project_id = services_of(request), identify(request).project_id
    batch = await services.batches.get(project_id, batch_id)
    (shown,) = await _objects(request, [batch])
    names = await services.files.names(project_id, [batch.input_file_id])
    groups = (
        await services.retries.failures(project_id, batch_id) if shown.request_counts.failed else ()
    )
    tree = await _tree(request, batch)
    unrun = unrun_in(groups)
    return {
        **row_of(shown, names, unrun),
        **tree,
        **await history_context(request, batch, shown),
        "buttons": buttons_of(shown, tree["unfinished_id"]),
        "address": public_base(request),
        "failures": groups,
        "costs": (await costs_of(request, batch)).data,
        "steps": steps_of(shown),
        "output_file_id": batch.output_file_id,
        "error_file_id": batch.error_file_id,
        "is_whole": batch.status in TERMINAL,
    }


async def load_lines(request: Request, batch_id: str) -> Context:
    """A page of results, or of errors, with their requests."""
    asked = read_query(request, ListLines)
    if not asked.custom_id:
        asked = msgspec.structs.replace(asked, custom_id=None)
    batch = await services_of(request).batches.get(identify(request).project_id, batch_id)
    page = await lines_of(request, batch_id, asked)
    return {
        "batch_id": batch_id,
        "name": batch.metadata.get("name") or batch_id,
        "kind": asked.kind,
        "first": asked.first,
        "custom_id": asked.custom_id,
        "page_size": asked.limit,
        "lines": [shown_line(each) for each in page.data],
        "total": page.total,
        "has_more": page.has_more,
        "in_input_order": page.in_input_order,
    }


async def load_new(request: Request) -> Context:
    """The form for a file. Raises LowtideError for a key that may make no batches."""
    caller = identify(request)
    require(caller, ("submit",))
    bytes_max = await services_of(request).files.file_bytes_max(caller.project_id)
    return {"file_bytes_max": bytes_max, "address": public_base(request)}


async def load_draft(request: Request, file_id: str) -> Context:
    """What a batch over that file would come to, by a dry run."""
    services, caller = services_of(request), identify(request)
    require(caller, ("submit",))
    file = await services.files.get_ready(caller.project_id, file_id)
    endpoint = request.query_params.get("endpoint") or await _endpoint_in(request, file)
    window = request.query_params.get("completion_window") or None
    asked = NewBatch(input_file_id=file_id, endpoint=endpoint, completion_window=window)
    estimate = await estimate_of(request, asked)
    standing = await services.standings.now()
    return {
        "file": file,
        "endpoint": endpoint,
        "endpoints": sorted(ENDPOINTS),
        "window": window or services.settings.limits.completion_window_default,
        "estimate": estimate,
        "models": [
            {"its": each, **_served(standing, each.model, endpoint)} for each in estimate.models
        ],
        "address": public_base(request),
        "once": token_hex(16),
        "first": None,
    }


async def _endpoint_in(request: Request, file: File) -> str:
    """The endpoint that the first line names, if it is near the beginning; else that of chats."""
    length = min(file.bytes, limits.FORM_FIELD_BYTES_MAX)
    head = bytearray()
    async for block in services_of(request).files.stream(file, 0, length):
        head += block
    named = (each[1].decode() for each in _URL.finditer(head.partition(b"\n")[0]))
    return next((each for each in named if each in ENDPOINTS), "/v1/chat/completions")


def _served(standing: Standing, model: str, endpoint: str) -> Context:
    """Whether a replica would take batch calls of that model now, and why not."""
    if not standing.is_known or model not in standing.models:
        return {"is_served": False, "why": "no engine that serves it is running"}
    hold = standing.hold_of(model, endpoint)
    return {"is_served": hold is None, "why": "" if hold is None else hold.public_reason}


VIEWS: Final[Sequence[View]] = (
    View(
        re.compile(r"/(?:console(?:/batches)?)?"),
        "batches.html",
        load_batches,
        {"batches": "parts/batches.html"},
    ),
    View(
        re.compile(r"/console/batches/(?P<batch_id>[^/]+)"),
        "batch.html",
        load_batch,
        {
            "actions": "parts/actions.html",
            "batch": "parts/batch.html",
            "history": "parts/history.html",
            "details": "parts/batch_details.html",
        },
    ),
    View(re.compile(r"/console/batches/(?P<batch_id>[^/]+)/lines"), "lines.html", load_lines),
    View(re.compile(r"/console/new"), "new.html", load_new),
    View(re.compile(r"/console/new/(?P<file_id>[^/]+)"), "draft.html", load_draft),
    View(
        re.compile(r"/console/engines"),
        "engines.html",
        load_engines,
        {"engines": "parts/engines.html", "drawn": "parts/engine_plots.html"},
    ),
    View(re.compile(r"/console/week"), "week.html", load_week, {"week": "parts/week.html"}),
    View(
        re.compile(r"/console/engines/(?P<name>.+)"),
        "engine.html",
        load_engine,
        {"engines": "parts/engines.html", "drawn": "parts/engine_plots.html"},
    ),
    View(re.compile(r"/console/usage"), "usage.html", load_usage),
    View(re.compile(r"/console/webhooks"), "webhooks.html", load_webhooks),
    View(
        re.compile(r"/console/webhooks/(?P<webhook_id>[^/]+)"),
        "webhook.html",
        load_webhook,
        {"deliveries": "parts/deliveries.html"},
    ),
    View(re.compile(r"/console/admin"), "organizations.html", load_organizations),
    View(
        re.compile(r"/console/admin/organizations/(?P<organization_id>[^/]+)"),
        "organization.html",
        load_organization,
    ),
    View(
        re.compile(r"/console/admin/projects/(?P<project_id>[^/]+)"), "project.html", load_project
    ),
)


def view_of(path: str) -> tuple[View, Mapping[str, str]]:
    """The view at that path, and the parameters in it. Raises LowtideError `not_found`."""
    for view in VIEWS:
        if (found := view.path.fullmatch(path)) is not None:
            return view, found.groupdict()
    raise LowtideError("not_found", f"The console has no page {path}.")


async def _objects(request: Request, batches: Sequence[Batch]) -> list[BatchObject]:
    service = services_of(request).batches
    progress, costs = await service.progress(batches), await service.costs(batches)
    return [
        openai.batch(batch, its, cost)
        for batch, its, cost in zip(batches, progress, costs, strict=True)
    ]


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
