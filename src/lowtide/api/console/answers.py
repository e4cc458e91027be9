"""The answers that the console's routes share: a page of HTML, and the way on after a form.

`form_on` makes a route of what a form does. Invariant: a form is read, and its token checked,
before anything is done; what is refused then is told on the page that has the form.
"""

from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from lowtide.api.console.failures import Handler, told_on_a_page
from lowtide.api.console.forms import read_form
from lowtide.api.console.page_looks import whole_context
from lowtide.api.console.rendering import render
from lowtide.api.console.shared_looks import SharedLooks
from lowtide.api.console.views import shell_of, view_of
from lowtide.api.http.errors import STATUS_OF
from lowtide.api.middleware.caller import services_of
from lowtide.api.middleware.console_paths import HOME, ROOT
from lowtide.core.errors import LowtideError

Fields = Mapping[str, str]
FormHandler = Callable[[Request, Fields], Awaitable[Response]]


def form_on(page: str) -> Callable[[FormHandler], Handler]:
    """Makes a route of what a form does with its fields. `page`: the path of the page that has the
    form and shows a refusal, with the route's parameters in braces.
    """

    def route(act: FormHandler) -> Handler:
        @told_on_a_page
        @wraps(act)  # the audit log names it
        async def sent(request: Request) -> Response:
            fields = await read_form(request)
            try:
                answer = await act(request, fields)
            except LowtideError as error:
                return await show(request, page.format(**request.path_params), error)
            looks: SharedLooks = request.app.state.console_looks
            looks.forget()
            return answer

        return sent

    return route


async def show(
    request: Request, path: str, failure: LowtideError | None = None, **more: Any
) -> Response:
    """The page at that path, with what did not work above it. `more` takes the place of what the
    page would show by itself. Raises LowtideError where there is no such page, or nothing to show
    on it.
    """
    view, parameters = view_of(path)
    shell = {**shell_of(request), "path": path, "failure": failure, "is_live": bool(view.fragments)}
    shown = await whole_context(request, view, parameters)
    text = render(view.template, {**shell, **shown, **more})
    return html(text, 200 if failure is None else STATUS_OF[failure.code])


async def show_secret(request: Request, path: str, **shown: Any) -> Response:
    """The page with a secret in it, which no cache may keep. Raises what `show` raises."""
    answer = await show(request, path, **shown)
    answer.headers["cache-control"] = "no-store"
    return answer


def html(text: str, status: int = 200) -> Response:
    """A page."""
    return Response(text, status, media_type="text/html")


def base_of(request: Request) -> str:
    """What stands before every address: `server.path_prefix`."""
    return services_of(request).settings.server.path_prefix


def go_to(request: Request, path: str) -> Response:
    """Leads to that page: loading it again repeats nothing."""
    return RedirectResponse(base_of(request) + path, 303)


def go_to_batch(request: Request, batch_id: str | None) -> Response:
    """Leads to the page of a batch; None: to the list."""
    return go_to(request, HOME if batch_id is None else f"{ROOT}/batches/{batch_id}")
