"""The live API: four paths that go straight to the replicas (protocol.md section 2.9).

Plain ASGI under Starlette's routes, because added latency is what a live user feels. Guards: the
client's going ends the upstream call at once, a client that takes nothing for `LIVE_STALL_S` is cut
off, and every answer to an admitted or refused call says where its caller stands in the limits.
"""

import asyncio
from collections.abc import Mapping
from math import ceil
from time import perf_counter
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from lowtide import limits
from lowtide.api.http.disconnect import run_until_disconnect
from lowtide.api.http.errors import envelope, error_response
from lowtide.api.http.json_body import declared_length, read_bounded
from lowtide.api.live.flex import FlexEndpoint
from lowtide.api.middleware.caller import identify, services_of
from lowtide.core.accounts.rate_limit import LimitStatus, RateDecision
from lowtide.core.errors import LowtideError
from lowtide.core.live.flex import read_flex
from lowtide.core.live.live import LiveAnswer
from lowtide.service.live.live import AdmittedCall
from lowtide.service.live.live_attempt import LiveStream
from lowtide.service.off_loop import off_loop
from lowtide.telemetry import metrics
from lowtide.telemetry.labels import MODELS

PATHS: Final = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")


class LiveEndpoint:
    """ASGI application for one endpoint; `__name__` is what it is called in logs."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self.__name__ = endpoint.removeprefix("/v1/").replace("/", "_")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began_s = perf_counter()
        request = Request(scope, receive, send)
        caller = identify(request)
        live = services_of(request).live
        declared = declared_length(request)
        if 0 < declared <= limits.LIVE_BODY_SMALL_BYTES:
            body = await read_bounded(request, limits.LIVE_BODY_BYTES_MAX, declared)
        else:
            refused = await live.may_read(project_id=caller.project_id, key_id=caller.key_id)
            if refused is not None:
                await _too_many(None, refused, 0)(scope, receive, send)
                return
            try:
                body = await read_bounded(request, limits.LIVE_BODY_BYTES_MAX, declared)
            finally:
                live.has_read(caller.key_id)
        owner, size = caller.organization_id, len(body)
        if (call := await off_loop(owner, size, read_flex, self._endpoint, body)) is not None:
            await FlexEndpoint(call)(scope, receive, send)
            return
        admission = await live.admit(
            self._endpoint, body, project_id=caller.project_id, key_id=caller.key_id
        )
        headers = rate_headers(admission.verdict)
        if not admission.verdict.admitted:
            metrics.LIVE_REQUESTS.labels(MODELS.of(admission.model), 429).inc()
            refusal = _too_many(admission.model, admission.verdict, admission.request.tokens)
            await refusal(scope, receive, send)
            return
        exchange = _LiveResponse(admission, request, send, headers, began_s)
        with metrics.LIVE_IN_FLIGHT.labels(MODELS.of(admission.model)).track_inprogress():
            try:
                await run_until_disconnect(receive, exchange.run)
            finally:
                metrics.LIVE_REQUESTS.labels(MODELS.of(admission.model), exchange.status).inc()


class _LiveResponse:
    """One admitted call; `status` 0 until an answer has begun."""

    def __init__(
        self,
        admission: AdmittedCall,
        request: Request,
        send: Send,
        headers: Mapping[str, str],
        began_s: float,
    ) -> None:
        self.status = 0
        self._admission = admission
        self._request = request
        self._send = send
        self._headers = headers
        self._began_s = began_s

    async def run(self) -> None:
        live = services_of(self._request).live
        try:
            async with live.open(self._admission) as answer:
                if isinstance(answer, LiveStream):
                    await self._stream(answer)
                    return
        except LowtideError as error:
            await self._refuse(error)
            return
        with live.memory(self._admission) as memory:
            memory.keep(len(answer.body))
            await self._send_whole(answer)

    async def _send_whole(self, answer: LiveAnswer) -> None:
        """Sends a whole answer; the replica's place is free again by now."""
        fields = [
            (b"content-type", answer.content_type.encode("latin-1")),
            (b"content-length", b"%d" % len(answer.body)),
        ]
        if answer.retry_after_s is not None:
            fields.append((b"retry-after", b"%d" % max(1, ceil(answer.retry_after_s))))
        await self._begin(answer.status, fields)
        await self._block(answer.body, more=False)

    async def _stream(self, stream: LiveStream) -> None:
        fields = [
            (b"content-type", stream.content_type.encode("latin-1")),
            (b"x-accel-buffering", b"no"),  # nginx would keep events back to fill a buffer
        ]
        await self._begin(stream.status, fields)
        while block := await stream.read():
            await self._block(block, more=True)
        await self._block(b"", more=False)

    async def _begin(self, status: int, fields: list[tuple[bytes, bytes]]) -> None:
        self.status = status
        waited_s = perf_counter() - self._began_s
        metrics.LIVE_FIRST_BYTE.labels(MODELS.of(self._admission.model)).observe(waited_s)
        fields += [(name.encode(), value.encode()) for name, value in self._headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": fields})

    async def _block(self, block: bytes, *, more: bool) -> None:
        message = {"type": "http.response.body", "body": block, "more_body": more}
        async with asyncio.timeout(limits.LIVE_STALL_S):
            await self._send(message)

    async def _refuse(self, error: LowtideError) -> None:
        response = error_response(error, self._headers)
        self.status = response.status_code
        request = self._request
        await response(request.scope, request.receive, self._send)


def _too_many(model: str | None, verdict: RateDecision, asked: int) -> Response:
    """Sends a 429 that names the exceeded limit, with a Retry-After that
    every SDK obeys: at most 60 s.

    `model` None: refused before the body was read, because every model's requests are used up.
    """
    wait_s = min(60, max(1, ceil(verdict.retry_after_s)))
    reached = [
        f"{level.limit} {name} per minute ({level.remaining} left, {amount} asked)"
        for name, level, amount in (
            ("requests", verdict.requests, 1),
            ("tokens", verdict.tokens, asked),
        )
        if level is not None and level.remaining < min(amount, level.limit)
    ]
    what = " and ".join(reached) or "as many calls as are left this minute are being received"
    message = (
        f"Rate limit reached for {model or 'every model'}: {what}."
        f" Try again in {wait_s} s. Batch requests do not count here."
    )
    return envelope(
        429,
        message,
        "rate_limit_exceeded",
        None,
        {**rate_headers(verdict), "retry-after": str(wait_s)},
    )


def rate_headers(verdict: RateDecision) -> dict[str, str]:
    """The caller's limits and what is left of them, in OpenAI's headers; empty without a limit."""
    headers: dict[str, str] = {}
    for name, level in (("requests", verdict.requests), ("tokens", verdict.tokens)):
        if level is not None:
            headers |= _shown(name, level)
    return headers


def _shown(name: str, level: LimitStatus) -> dict[str, str]:
    return {
        f"x-ratelimit-limit-{name}": str(level.limit),
        f"x-ratelimit-remaining-{name}": str(level.remaining),
        f"x-ratelimit-reset-{name}": duration(level.reset_s),
    }


def duration(seconds: float) -> str:
    """`120ms`, `1.5s`, `6m0s`: how OpenAI writes the time until a limit is whole again."""
    whole_ms = ceil(seconds * 1000)
    if whole_ms < 1000:
        return f"{whole_ms}ms"
    minutes, rest = divmod(whole_ms / 1000, 60)
    text = f"{rest:.3f}".rstrip("0").rstrip(".") + "s"
    return f"{int(minutes)}m{text}" if minutes else text


ROUTES: Final = [Route(path, LiveEndpoint(path), methods=["POST"]) for path in PATHS]
