"""`GET /console/live?of=PATH`: the parts of a page that have changed, as server-sent events.

Each event is `{"id": ..., "html": ...}`: the new content of one element. A page renders its parts
once in `CONSOLE_REFRESH_S`, however fast batches move, and sends what differs; between two looks it
costs nothing. The stream ends when the server stops, and the page asks again.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from hashlib import sha256

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from lowtide import limits
from lowtide.api.console.rendering import render
from lowtide.api.console.session_guard import COOKIE
from lowtide.api.console.views import View, shell_of, view_of
from lowtide.api.middleware.caller import identify, services_of
from lowtide.core.errors import LowtideError
from lowtide.core.scheduling.byte_budget import ByteBudget
from lowtide.ports.blobs import BlobError
from lowtide.ports.store import StoreError


async def live(request: Request) -> Response:
    """The stream of one page. Raises LowtideError for a page that there is not."""
    path = request.query_params.get("of", "")
    view, parameters = view_of(path)
    places: ByteBudget = request.app.state.console_streams
    owner = identify(request).organization_id
    if not places.take(owner, 1):
        raise LowtideError(
            "rate_limit_exceeded",
            "Too many pages of this console are open: this one is not updated by itself.",
            retry_after_s=limits.DOWNLOADS_RETRY_AFTER_S,
        )

    async def events() -> AsyncIterator[bytes]:
        try:
            async for event in _changes(request, path, view, parameters):
                yield event
        finally:
            places.give_back(owner, 1)

    return StreamingResponse(events(), media_type="text/event-stream")


async def _changes(
    request: Request, path: str, view: View, parameters: Mapping[str, str]
) -> AsyncIterator[bytes]:
    services, sent = services_of(request), dict[str, bytes]()
    while view.fragments and not services.readiness.is_draining and await _is_signed_in(request):
        try:
            loaded = await view.load(request, **parameters)
        except (StoreError, BlobError):
            pass  # the page stays as it is until the storage is back
        except LowtideError:
            return  # it is gone: the page says so when it is loaded again
        else:
            context = {**shell_of(request), **loaded, "path": path}
            for element, template in view.fragments.items():
                html = render(template, context)
                digest = sha256(html.encode()).digest()
                if sent.get(element) != digest:
                    sent[element] = digest
                    told = msgspec.json.encode({"id": element, "html": html})
                    yield b"data: " + told + b"\n\n"
        yield b": here\n\n"  # a reader that is gone is noticed by what cannot be sent
        await asyncio.sleep(limits.CONSOLE_REFRESH_S)


async def _is_signed_in(request: Request) -> bool:
    """Whether the session has not ended meanwhile."""
    services = services_of(request)
    if services.settings.auth.mode == "open":
        return True
    token = request.cookies.get(COOKIE)
    return token is not None and await services.sessions.owner(token) is not None
