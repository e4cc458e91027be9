"""Live calls over scripted engines, all in the test's own event loop.

The real application, served by uvicorn on 127.0.0.1; the real engine client behind it. Tests speak
to it with the SDKs, with httpx, or with a bare socket where an SDK would hide what they look for.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import httpx
from api_server import ApiServer, build, serve

from lowtide.config import LimitSettings, ServerSettings, Settings
from lowtide.core.accounts.catalogue import Catalogue, ModelEntry
from lowtide.core.accounts.rate_limit import RateLimiter
from lowtide.core.bodies.body_rules import rules_of
from lowtide.core.dispatch.replica import Replica
from lowtide.engines.http.client import HttpEngine
from lowtide.ports.clock import Clock
from lowtide.service.live.live import LiveService
from lowtide.service.live.live_replica import LiveReplica
from testkit.patience import PATIENCE_S
from testkit.scripted_engine import ScriptedEngine

MODEL: Final = "org/m-1"
ENGINE_MODEL: Final = "m-1-fp8"
PLAIN: Final = "plain"
"""A model that its engines call by the same name."""
CHAT: Final = "/v1/chat/completions"
WINDOW: Final = 8
ATTEMPT_S: Final = PATIENCE_S
CATALOGUE: Final = Catalogue(
    [
        ModelEntry(id=MODEL, aliases=("m",), engine_name=ENGINE_MODEL),
        ModelEntry(id=PLAIN),
        ModelEntry(id="unserved"),
    ]
)
USAGE: Final = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
SSE_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)


@dataclass
class Env:
    """An HTTP API, the engines behind it, and a client without any SDK."""

    http_api: ApiServer
    live: LiveService
    replicas: Sequence[LiveReplica]
    http: httpx.AsyncClient

    @property
    def url(self) -> str:
        return self.http_api.url

    async def ask(self, path: str = CHAT, **fields: Any) -> httpx.Response:
        return await self.http.post(path, json=asked(**fields))


@asynccontextmanager
async def live_house(
    folder: Path,
    *engines: ScriptedEngine,
    limits: LimitSettings | None = None,
    attempt_s: float = ATTEMPT_S,
    drop_fields: frozenset[str] = frozenset(),
    isolates_cache: bool = False,
    clock: Clock | None = None,
    rates: RateLimiter | None = None,
) -> AsyncIterator[Env]:
    """One replica of MODEL for each engine. `clock`: of the live calls, None: the server's."""
    bounds = limits or LimitSettings()
    http_api = build(
        folder, Settings(server=ServerSettings(data_dir=folder), limits=bounds), CATALOGUE
    )
    async with AsyncExitStack() as stack:
        replicas = []
        for engine in engines:
            client = HttpEngine(engine.url)
            stack.push_async_callback(client.aclose)
            replicas.append(
                LiveReplica(
                    Replica(client.url, frozenset({MODEL, PLAIN}), WINDOW),
                    client,
                    {MODEL: ENGINE_MODEL, PLAIN: PLAIN},
                    rules_of(drop=drop_fields, isolates_cache=isolates_cache),
                    attempt_s,
                )
            )
        allowance = http_api.services.allowance
        live = LiveService(CATALOGUE, replicas, clock or http_api.clock, allowance, rates=rates)
        http_api.services = replace(http_api.services, live=live)
        stop = asyncio.Event()
        serving = asyncio.create_task(serve(http_api, stop))
        while not http_api._ready.is_set():
            assert not serving.done(), serving.exception()
            await asyncio.sleep(0)
        http = httpx.AsyncClient(base_url=http_api.url, timeout=ATTEMPT_S, trust_env=False)
        stack.push_async_callback(http.aclose)
        try:
            yield Env(http_api, live, replicas, http)
        finally:
            await http.aclose()
            stop.set()
            await serving


def asked(text: str = "Hello", **fields: Any) -> dict[str, Any]:
    """The body of a chat call."""
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], **fields}


def event(payload: dict[str, Any] | str) -> bytes:
    text = payload if isinstance(payload, str) else json.dumps(payload)
    return b"data: " + text.encode() + b"\n\n"


def chunk_of(text: str, **fields: Any) -> dict[str, Any]:
    """One chunk of a streamed chat completion."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1767225600,
        "model": ENGINE_MODEL,
        "choices": [choice],
        **fields,
    }


def wire(data: bytes) -> bytes:
    """One chunk of HTTP's own chunked coding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


END: Final = b"0\r\n\r\n"
DONE: Final = event("[DONE]")


def streamed(*texts: str, usage: bool = True) -> tuple[bytes, list[bytes]]:
    """The bytes of a whole stream, and the steps by which a scripted engine sends it."""
    events = [event(chunk_of(text)) for text in texts]
    if usage:
        events.append(event(chunk_of("", choices=[], usage=USAGE)))
    events.append(DONE)
    return b"".join(events), [SSE_HEAD, *(wire(each) for each in events), END]
