"""Who may see the console: the middleware before its pages, and the headers of every page.

In open mode the caller is this machine's (`middleware/local_callers.py` saw to it). In keys mode a
session cookie stands for a key (service/accounts/sessions.py); without one a page answers with the
sign-in page. Guards: a change is accepted only with the session's own CSRF token; a page loads
nothing from another host and runs no inline script or style.
"""

from typing import Final
from urllib.parse import quote

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lowtide.api.console.failures import EXPECTED, failure, wants_html
from lowtide.api.middleware.caller import caller_of, services_of
from lowtide.api.middleware.console_paths import HOME, ROOT, SIGN_IN, is_open_to_all
from lowtide.core.errors import LowtideError

COOKIE: Final = "lowtide_session"

_HEADERS: Final = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none';"
        " form-action 'self'; frame-ancestors 'none'"
    ),
    "referrer-policy": "same-origin",
    "x-frame-options": "DENY",
}


def is_console(scope: Scope) -> bool:
    """Whether a page of the console is asked for. `/` is one for browsers alone."""
    path: str = scope["path"]
    if path == HOME:
        return scope["method"] in ("GET", "HEAD") and wants_html(scope)
    return path == ROOT or path.startswith(f"{ROOT}/")


class SessionGuard:
    """ASGI middleware of the console's paths; passes all others on as they are."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        """`prefix`: `server.path_prefix`, before every address that a page names."""
        self._app = app
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not is_console(scope):
            await self._app(scope, receive, send)
            return
        begun = False

        async def guarded(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
            await send(message)

        try:
            response = await self._turned_away(scope)
            if response is None:
                await self._app(scope, receive, guarded)
                return
        except EXPECTED as error:
            if begun:
                raise
            response = failure(scope, error)
        await response(scope, receive, guarded)

    async def _turned_away(self, scope: Scope) -> Response | None:
        """Finds out who asks; the answer for a caller without a session, None for all others."""
        request = HTTPConnection(scope)
        services = services_of(request)
        token = request.cookies.get(COOKIE)
        if services.settings.auth.mode == "open":
            token = None
        elif not is_open_to_all(scope["path"]):
            owner = await services.sessions.owner(token) if token else None
            if owner is None:
                if scope["method"] != "GET" or not wants_html(scope):
                    raise LowtideError("missing_api_key", "Sign in to the console first.")
                asked = quote(self._prefix + scope["path"], safe="")
                return RedirectResponse(f"{self._prefix}{SIGN_IN}?next={asked}", 303)
            scope["state"]["caller"] = caller_of(owner)
        scope["state"]["csrf"] = services.sessions.csrf(token)
        return None
