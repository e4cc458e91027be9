"""What a person is told when a page cannot be shown, and a program in the same place."""

from collections.abc import Awaitable, Callable
from functools import wraps

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Scope

from lowtide.api.http.errors import STATUS_OF, as_lowtide_error, error_response
from lowtide.api.middleware.caller import services_of
from lowtide.core.errors import LowtideError
from lowtide.ports.blobs import BlobError
from lowtide.ports.store import StoreError

EXPECTED = (LowtideError, StoreError, BlobError)
"""What services raise for reasons of their own."""

Handler = Callable[[Request], Awaitable[Response]]


def failure(scope: Scope, error: Exception) -> Response:
    """The page, or the error envelope, that says what did not work; `error` is one of EXPECTED."""
    known = as_lowtide_error(error)
    assert known is not None, "one of EXPECTED"
    if not wants_html(scope):
        return error_response(known)
    from lowtide.api.console.rendering import render  # the session guard is there at each start

    base = services_of(HTTPConnection(scope)).settings.server.path_prefix
    context = {"base": base, "message": known.message, "code": known.code}
    return Response(render("failure.html", context), STATUS_OF[known.code], media_type="text/html")


def told_on_a_page(handler: Handler) -> Handler:
    """A route of the console: its failures are pages. Answers 404 where no page was asked for."""

    @wraps(handler)
    async def told(request: Request) -> Response:
        if "csrf" not in request.scope["state"]:
            raise HTTPException(404)  # `/`, asked for by a program
        try:
            return await handler(request)
        except EXPECTED as error:
            return failure(request.scope, error)

    return told


def wants_html(scope: Scope) -> bool:
    """Whether the caller is a browser that loads a page."""
    return "text/html" in HTTPConnection(scope).headers.get("accept", "")
