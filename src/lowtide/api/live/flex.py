"""Live calls that ask for the batch queue: held until their answer is there, or answered at once.

Called by the live API with what `core.live.flex` read. Guards: a client that goes takes its call
out of the queue, and whoever is refused is told whether to try again.
"""

from time import perf_counter

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from lowtide.api.http.disconnect import run_until_disconnect
from lowtide.api.http.errors import as_lowtide_error, error_response
from lowtide.api.middleware.caller import identify, services_of
from lowtide.core.errors import LowtideError
from lowtide.core.live.flex import FlexCall
from lowtide.core.live.live import LiveAnswer
from lowtide.ports.blobs import BlobError
from lowtide.ports.store import StoreError
from lowtide.telemetry import metrics

RETRY_COUNT = "x-stainless-retry-count"


class FlexEndpoint:
    """ASGI application for one call."""

    def __init__(self, call: FlexCall) -> None:
        self._call = call
        self._status = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        if self._call.background:
            await (await self._queued(request))(scope, receive, send)
            return
        began_s = perf_counter()

        async def run() -> None:
            response = await self._held(request)
            self._status = response.status_code
            await response(scope, receive, send)

        with metrics.FLEX_HELD.labels(self._call.endpoint).track_inprogress():
            try:
                await run_until_disconnect(receive, run)
            finally:
                held_s = perf_counter() - began_s
                metrics.FLEX_HELD_SECONDS.labels(self._status).observe(held_s)

    async def _held(self, request: Request) -> Response:
        caller, flex = identify(request), services_of(request).flex
        try:
            answer = await flex.hold(
                caller.project_id,
                caller.user_id,
                self._call,
                organization_id=caller.organization_id,
            )
        except (LowtideError, StoreError, BlobError) as error:
            return _refusal(error)
        return _answer(answer)

    async def _queued(self, request: Request) -> Response:
        """The answer of a background response, as it is at first."""
        caller, background = identify(request), services_of(request).background
        repeat = request.headers.get(RETRY_COUNT, "0").strip() not in ("", "0")
        batch_id, body = await background.create(
            caller.project_id, caller.user_id, self._call, repeat=repeat
        )
        if not await request.is_disconnected():
            await background.mark_answered(batch_id)
        return Response(body, media_type="application/json")


def _answer(answer: LiveAnswer) -> Response:
    return Response(answer.body, answer.status, headers={"content-type": answer.content_type})


def _refusal(error: Exception) -> Response:
    known = as_lowtide_error(error)
    assert known is not None, "caught for being known"
    no_use = known.code == "resource_unavailable" and known.retry_after_s is None
    return error_response(known, {"x-should-retry": "false"} if no_use else None)
