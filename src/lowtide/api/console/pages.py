"""The routes of the console: pages to read, and forms that change something.

A form answers with a redirection to the page it stands on, so that loading that page again repeats
nothing.
"""

from collections.abc import Sequence
from importlib.resources import files
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from lowtide.api.accounts import usage
from lowtide.api.console.accounts import administration
from lowtide.api.console.answers import base_of, html, show
from lowtide.api.console.batches import actions, first_lines, new_batch, selection
from lowtide.api.console.failures import told_on_a_page
from lowtide.api.console.forms import read_form
from lowtide.api.console.live_pages import live
from lowtide.api.console.rendering import compile_templates, render
from lowtide.api.console.session_guard import COOKIE
from lowtide.api.console.webhooks import webhooks
from lowtide.api.files import downloads
from lowtide.api.middleware.caller import services_of
from lowtide.api.middleware.console_paths import (
    ADMINISTRATION,
    HOME,
    ROOT,
    SIGN_IN,
    SIGN_OUT,
    STATIC,
    USAGE_CSV,
)
from lowtide.core.errors import LowtideError

_TYPES: Final = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


@told_on_a_page
async def page(request: Request) -> Response:
    """One page, whole."""
    return await show(request, request.scope["path"])


@told_on_a_page
async def download(request: Request) -> Response:
    """The content of a file, to be saved: text of others is never shown as a page."""
    return await downloads.content(request, request.path_params["file_id"])


@told_on_a_page
async def usage_csv(request: Request) -> Response:
    """The report as a table for a spreadsheet: what `GET /v1/usage` answers."""
    return await usage.report(request)


@told_on_a_page
async def sign_in(request: Request) -> Response:
    """The page that asks for a key."""
    asked = request.query_params.get("next", "")
    return _sign_in_page(request, _own_path(request, asked), None)


@told_on_a_page
async def sign_in_with_key(request: Request) -> Response:
    """Begins a session, and goes on to where the person wanted to go."""
    fields = await read_form(request)
    asked = _own_path(request, fields.get("next", ""))
    sessions = services_of(request).sessions
    try:
        token = await sessions.begin(fields.get("key", ""))
    except LowtideError as error:
        return _sign_in_page(request, asked, error)
    owner = await sessions.owner(token)
    if owner is not None and asked == f"{base_of(request)}{HOME}":
        asked = base_of(request) + (HOME if "read" in owner.key.scopes else ADMINISTRATION)
    response = RedirectResponse(asked, 303)
    response.set_cookie(
        COOKIE, token, path=f"{base_of(request)}/", secure=_is_https(request), httponly=True,
        samesite="strict",
    )  # fmt: skip
    return response


@told_on_a_page
async def sign_out(request: Request) -> Response:
    """Ends the session in this browser."""
    await read_form(request)
    response = RedirectResponse(f"{base_of(request)}{SIGN_IN}", 303)
    response.delete_cookie(COOKIE, path=f"{base_of(request)}/", httponly=True, samesite="strict")
    return response


@told_on_a_page
async def static(request: Request) -> Response:
    """The stylesheet, the script, the icon."""
    name: str = request.path_params["name"]
    kind = _TYPES.get(name.rpartition(".")[2])
    path = files("lowtide.api.console") / "static" / name
    if kind is None or not path.is_file():
        raise LowtideError("not_found", f"The console has no file {name}.")
    return Response(path.read_bytes(), media_type=kind)


def _sign_in_page(request: Request, asked: str, error: LowtideError | None) -> Response:
    services = services_of(request)
    csrf = services.sessions.csrf(request.cookies.get(COOKIE))
    context = {"base": base_of(request), "next": asked, "error": error, "csrf": csrf}
    return html(render("sign_in.html", context), 401 if error else 200)


def _own_path(request: Request, asked: str) -> str:
    """The path to go to after signing in: never an address of another host."""
    home = f"{base_of(request)}{HOME}"
    parts = urlsplit(asked)
    is_own = asked.startswith(home) and not asked.startswith("//") and "\\" not in asked
    return asked if is_own and not parts.scheme and not parts.netloc else home


def _is_https(request: Request) -> bool:
    public = services_of(request).settings.server.public_url or ""
    forwarded = request.headers.get("x-forwarded-proto", "")
    return "https" in (request.url.scheme, forwarded, urlsplit(public).scheme)


_ROUTES: Final = (
    Route(STATIC + "{name}", static, methods=["GET"]),
    Route(SIGN_IN, sign_in, methods=["GET"]),
    Route(SIGN_IN, sign_in_with_key, methods=["POST"]),
    Route(SIGN_OUT, sign_out, methods=["POST"]),
    Route(f"{ROOT}/live", told_on_a_page(live), methods=["GET"]),
    *selection.ROUTES,
    *actions.ROUTES,
    *first_lines.ROUTES,
    *new_batch.ROUTES,
    *administration.ROUTES,
    *webhooks.ROUTES,
    Route(USAGE_CSV, usage_csv, methods=["GET"]),
    Route(ROOT + "/files/{file_id}", download, methods=["GET"]),
    Route(HOME, page, methods=["GET"]),
    Route(ROOT, page, methods=["GET"]),
    Route(ROOT + "/{rest:path}", page, methods=["GET"]),
)


def load_routes() -> Sequence[Route]:
    """The routes in the order in which they are tried, with all templates compiled, which the first
    page would otherwise do in the event loop.
    """
    compile_templates()
    return _ROUTES
