"""Every page: its address, its template, the parts of it that change, and what fills them.

The functions that fill them are in the rooms of their concepts; the objects are those of the HTTP
API, so a person who asks with curl sees the same. `pages` renders a whole page, `live_pages` its
fragments again and again.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from starlette.requests import Request

from lowtide import limits
from lowtide.api.console.accounts.administration_views import (
    load_organization,
    load_organizations,
    load_project,
)
from lowtide.api.console.accounts.usage_view import load_usage
from lowtide.api.console.batches.batch_rows import (
    Context,
)
from lowtide.api.console.batches.batch_views import (
    age_of_rest,
    load_batch,
    load_batches,
    load_fleet,
    load_lines,
    step_of,
    step_of_plots,
)
from lowtide.api.console.batches.draft_views import load_draft, load_new
from lowtide.api.console.batches.history_view import (
    age_of_strip,
    load_events,
    load_plots,
    load_strip,
)
from lowtide.api.console.fragments import Fragment, TableRows
from lowtide.api.console.replicas.engine_views import (
    load_drawn,
    load_engine,
    load_engines,
    load_week,
)
from lowtide.api.console.webhooks.webhook_views import load_webhook, load_webhooks
from lowtide.api.middleware.caller import Caller, identify, services_of
from lowtide.core.errors import LowtideError


@dataclass(frozen=True, slots=True)
class View:
    """A page: its address, its template, what fills it, and by the ids of their elements the parts
    of it that change.
    """

    path: re.Pattern[str]
    template: str
    load: Callable[..., Awaitable[Context]]
    fragments: Mapping[str, Fragment] = field(default_factory=dict)


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


def _age_of_history(_: Context) -> float:
    return limits.CONSOLE_HISTORY_REFRESH_S


_ENGINES: Final = {
    "engines": Fragment("parts/engines.html"),
    "drawn": Fragment("parts/engine_plots.html", more=load_drawn, age_s=_age_of_history),
}

VIEWS: Final[Sequence[View]] = (
    View(
        re.compile(r"/(?:console(?:/batches)?)?"),
        "batches.html",
        load_batches,
        {
            "fleet": Fragment("parts/fleet.html", more=load_fleet, age_s=_age_of_history),
            "batches": Fragment(
                "parts/batches.html", rows=TableRows("batches", "parts/batch_row.html", ("older",))
            ),
        },
    ),
    View(
        re.compile(r"/console/batches/(?P<batch_id>[^/]+)"),
        "batch.html",
        load_batch,
        {
            "actions": Fragment("parts/actions.html", age_s=age_of_rest, step=step_of),
            "batch": Fragment("parts/batch.html"),
            "history": Fragment("parts/history.html", load_plots, age_of_rest, step_of_plots),
            "strip": Fragment("parts/strip.html", load_strip, age_of_strip, step_of),
            "details": Fragment("parts/batch_details.html", load_events, age_of_rest, step_of),
        },
    ),
    View(re.compile(r"/console/batches/(?P<batch_id>[^/]+)/lines"), "lines.html", load_lines),
    View(re.compile(r"/console/new"), "new.html", load_new),
    View(re.compile(r"/console/new/(?P<file_id>[^/]+)"), "draft.html", load_draft),
    View(
        re.compile(r"/console/engines"),
        "engines.html",
        load_engines,
        _ENGINES,
    ),
    View(
        re.compile(r"/console/week"), "week.html", load_week, {"week": Fragment("parts/week.html")}
    ),
    View(
        re.compile(r"/console/engines/(?P<name>.+)"),
        "engine.html",
        load_engine,
        _ENGINES,
    ),
    View(re.compile(r"/console/usage"), "usage.html", load_usage),
    View(re.compile(r"/console/webhooks"), "webhooks.html", load_webhooks),
    View(
        re.compile(r"/console/webhooks/(?P<webhook_id>[^/]+)"),
        "webhook.html",
        load_webhook,
        {"deliveries": Fragment("parts/deliveries.html")},
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
        if (matched := view.path.fullmatch(path)) is not None:
            return view, matched.groupdict()
    raise LowtideError("not_found", f"The console has no page {path}.")
