"""`GET /console/live?of=PATH`: the parts of a page that have changed, as server-sent events.

Each event is `{"id": ..., "html": ...}`: the new content of one element. A page is looked at once
in `CONSOLE_REFRESH_S`, however fast batches move, and sends what differs; between two looks it
costs nothing. The stream ends when the server stops, and the page asks again. With `once` it ends
after the first look, for browsers that have no connection left for a stream: `once=again` from a
page that has asked before. Pages that show the same to people with the same rights share their
looks (shared_looks.py).
"""

import asyncio
from collections.abc import AsyncIterator, Mapping

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from lowtide import limits
from lowtide.api.console.page_looks import Look, changed, look_at
from lowtide.api.console.session_guard import COOKIE
from lowtide.api.console.shared_looks import LookKey, SharedLooks
from lowtide.api.console.views import View, shell_of, view_of
from lowtide.api.files.uploads import public_base
from lowtide.api.middleware.caller import identify, services_of
from lowtide.core.errors import LowtideError
from lowtide.core.scheduling.byte_budget import ByteBudget
from lowtide.ports.blobs import BlobError
from lowtide.ports.store import StoreError
from lowtide.service.services import Services


async def live(request: Request) -> Response:
    """The stream of one page. Raises LowtideError for a page that there is not."""
    path = request.query_params.get("of", "")
    view, parameters = view_of(path)
    if "once" in request.query_params:
        reader = _Reader(request, path, view, parameters)
        changes = await reader.changes() if view.fragments else []
        return Response(b"".join(changes), media_type="text/event-stream")
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
            reader = _Reader(request, path, view, parameters)
            async for event in _stream(reader, view, services_of(request)):
                yield event
        finally:
            places.give_back(owner, 1)

    return StreamingResponse(events(), media_type="text/event-stream")


class _Reader:
    """Looks at one page again and again, and knows what of it was sent."""

    def __init__(
        self, request: Request, path: str, view: View, parameters: Mapping[str, str]
    ) -> None:
        self._request = request
        self._path = path
        self._view = view
        self._parameters = parameters
        self._sent: dict[str, bytes] = {}
        self._is_new = request.query_params.get("once") != "again"
        caller, shown = identify(request), [*request.query_params.multi_items()]
        self._key = LookKey(
            caller.project_id,
            caller.scopes,
            public_base(request),
            tuple(each for each in shown if each[0] != "once"),
        )

    async def changes(self) -> list[bytes]:
        """An event for each part that is not as it was at the last look.

        Raises LowtideError where the page is gone: it says so when it is loaded again.
        """
        if not await _is_signed_in(self._request):
            raise LowtideError("missing_api_key", "Sign in to the console first.")
        looks: SharedLooks = self._request.app.state.console_looks
        try:
            look = await looks.get(self._key, self._look, is_first=self._is_new)
        except (StoreError, BlobError):
            return []  # the page stays as it is until the storage is back
        parts = changed(look, self._sent)
        self._sent = {part.element: part.digest for part in look}
        self._is_new = False
        csrf: str = self._request.state.csrf
        return [part.event.replace(looks.csrf_mark, csrf.encode()) for part in parts]

    async def _look(self, before: Look, is_whole: bool) -> Look:
        looks: SharedLooks = self._request.app.state.console_looks
        csrf = looks.csrf_mark.decode()
        shell = {**shell_of(self._request), "csrf": csrf, "path": self._path}
        now_s = asyncio.get_running_loop().time()
        return await look_at(
            self._request, self._view, self._parameters, shell, before, now_s, is_whole=is_whole
        )


async def _stream(reader: _Reader, view: View, services: Services) -> AsyncIterator[bytes]:
    while view.fragments and not services.readiness.is_draining:
        try:
            changes = await reader.changes()
        except LowtideError:
            return
        # Sent at once, for each sending costs; a reader that is gone is noticed by the last line.
        yield b"".join([*changes, b": here\n\n"])
        await asyncio.sleep(limits.CONSOLE_REFRESH_S)


async def _is_signed_in(request: Request) -> bool:
    """Whether the session has not ended meanwhile."""
    services = services_of(request)
    if services.settings.auth.mode == "open":
        return True
    token = request.cookies.get(COOKIE)
    return token is not None and await services.sessions.owner(token) is not None
