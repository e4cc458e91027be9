"""The HTTP server: OpenAI-compatible, in front of the simulated engine, in real time.

An ASGI application; `simulator` makes it, runs the engine's task beside it and takes both down.
What goes wrong on purpose (`faults`) happens here when it concerns HTTP. Connections are cut at
their transports, for which the server that runs the application is asked: see `serving`.
"""

import asyncio
import contextlib
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from lowtide.engine_sim.http import answers, asking
from lowtide.engine_sim.http.exposition import exposition
from lowtide.engine_sim.http.operations import operation_routes
from lowtide.engine_sim.http.options import ServerOptions
from lowtide.engine_sim.real_time.faults import EngineFaults
from lowtide.engine_sim.real_time.realtime import Call, RealTimeEngine

Cut = Callable[[object], None]
"""Ends the connection of this client (its address in the scope), or all of them for None."""

_KINDS: Final[tuple[tuple[str, asking.Kind], ...]] = (
    ("/v1/chat/completions", "chat"),
    ("/v1/completions", "completion"),
    ("/v1/responses", "response"),
    ("/v1/embeddings", "embedding"),
)

_METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Simulator:
    """One engine, its options and its clients."""

    def __init__(self, engine: RealTimeEngine, options: ServerOptions, cut: Cut) -> None:
        self.engine = engine
        self.options = options
        self.calls = 0
        """Open calls to the generation endpoints."""
        self._cut = cut
        self._rejected = 0
        self._stale = ""

    @property
    def faults(self) -> EngineFaults:
        return self.engine.faults

    async def generate(self, kind: asking.Kind, scope: Scope, receive: Receive, send: Send) -> None:
        """One call to a generation endpoint."""
        request = Request(scope, receive)
        try:
            raw = await request.body()
            self._refuse_if_due()
            body = asking.read_object(raw)
            headers = {name.lower(): value for name, value in request.headers.items()}
            ask = asking.read_ask(kind, body, headers, self.options)
            call = Call(ask.requests, self.options.stream_interval if ask.stream else None)
            self._submit(call)
        except asking.Refusal as refusal:
            await _refused(refusal)(scope, receive, send)
            return
        except ClientDisconnect:
            return
        self.calls += 1
        watcher = asyncio.create_task(self._watch(call, receive))
        try:
            if not await self._answer(ask, call, scope, receive, send):
                self._cut(scope.get("client"))
                await watcher  # the server must know that there is nobody to answer
        finally:
            self.calls -= 1
            self.engine.abort(call)
            watcher.cancel()

    def metrics(self, _request: Request) -> Response:
        now = self.engine.now()
        if self.faults.is_on("no-metrics", now):
            return PlainTextResponse("Not Found", 404)
        if not (self._stale and self.faults.is_on("stale-metrics", now)):
            self._stale = exposition(self.engine, self.options, self._rejected)
        return Response(self._stale, media_type=_METRICS_TYPE)

    def _refuse_if_due(self) -> None:
        now = self.engine.now()
        for status in (429, 503):
            if self.faults.is_on(str(status), now):
                raise asking.Refusal(status, "The engine is told to refuse.", "overloaded")
        bound = self.options.max_num_queued_reqs
        if bound and self.engine.engine.waiting >= bound:
            self._rejected += 1
            raise asking.Refusal(503, "Too many requests wait.", "queue_overflow")

    def _submit(self, call: Call) -> None:
        try:
            self.engine.submit(call)
        except ValueError as error:
            raise asking.Refusal(400, str(error)) from None

    async def _watch(self, call: Call, receive: Receive) -> None:
        """Aborts when the client is gone."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self.engine.abort(call)

    async def _answer(
        self, ask: asking.Ask, call: Call, scope: Scope, receive: Receive, send: Send
    ) -> bool:
        """Whether the answer is complete; else its connection is to be cut."""
        if ask.stream:
            return await self._stream(ask, call, send)
        await call.changed.wait()
        if call.is_lost:
            return False
        await JSONResponse(answers.whole(ask))(scope, receive, send)
        return True

    async def _stream(self, ask: asking.Ask, call: Call, send: Send) -> bool:
        stream = answers.Stream(ask)
        ends_after = self._truncation(ask)
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send(_part(stream.opening()))
        while not call.is_over:
            await call.changed.wait()
            call.changed.clear()
            if call.is_lost or sum(call.made) > ends_after:
                return False
            await send(_part(stream.tokens(call.made)))
        await send(_part(stream.closing(), more=False))
        return True

    def _truncation(self, ask: asking.Ask) -> float:
        """The number of tokens after which the connection is cut; the same for the same request."""
        share = self.faults.value("truncate", self.engine.now()) or 0.0
        if zlib.crc32(ask.answers[0].encode()) % 10_000 >= share * 10_000:
            return float("inf")
        return sum(request.output_tokens for request in ask.requests) / 2


@asynccontextmanager
async def simulator(
    options: ServerOptions, cut: Cut
) -> AsyncIterator[tuple[Simulator, Callable[[Scope, Receive, Send], Any]]]:
    """The simulator and its ASGI application, while the context lasts."""
    engine = RealTimeEngine(
        options.make_engine(),
        EngineFaults(options.faults),
        time_scale=options.time_scale,
        on_crash=lambda: cut(None),
    )
    simulated = Simulator(engine, options, cut)
    steps = asyncio.create_task(engine.run(), name="simulated-engine")
    try:
        yield simulated, _application(simulated, cut)
    finally:
        steps.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await steps


def _application(simulated: Simulator, cut: Cut) -> Callable[[Scope, Receive, Send], Any]:
    routes = [Route("/metrics", _plain(simulated.metrics)), *operation_routes(simulated)]
    inner = Starlette(routes=routes)
    generating = dict(_KINDS)

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if simulated.faults.is_on("crash", simulated.engine.now()):
            cut(scope.get("client"))
            while (await receive())["type"] != "http.disconnect":
                pass
        elif scope["path"] in generating and scope["method"] == "POST":
            await simulated.generate(generating[scope["path"]], scope, receive, send)
        else:
            await inner(scope, receive, send)

    return application


def _plain(answer: Callable[[Request], Response]) -> Any:
    async def endpoint(request: Request) -> Response:
        return answer(request)

    return endpoint


def _part(body: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


def _refused(refusal: asking.Refusal) -> JSONResponse:
    error = {"message": str(refusal), "type": refusal.code, "param": None, "code": refusal.status}
    headers = {"Retry-After": "1"} if refusal.status in (429, 503) else {}
    return JSONResponse({"error": error}, refusal.status, headers)
