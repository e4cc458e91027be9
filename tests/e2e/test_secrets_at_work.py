"""No secret of the settings is in an answer of the API or in the log, whatever engines say of it.

The server and the worker of one process, with engines that quote in every way what they were sent,
or that cannot be reached. All that callers read and all that is logged is searched.
"""

import asyncio
import io
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import structlog
from product_env import CHAT, Env, Json, ask, open_house

from lowtide.config import ReplicaSettings
from testkit.patience import PATIENCE_S
from testkit.scripted_engine import Answer, ScriptedEngine, SeenRequest, completion, reply

HIDDEN = "Hidden"
KEY, TOKEN, QUERY = "sk-Hidden1-Hidden2", "Hidden3/Hidden4", "Hidden5+Hidden6"
SECRETS: Any = {"api_key": KEY, "headers": {"x-token": f"Token {TOKEN}"}, "query": {"code": QUERY}}
QUOTE = f"You sent the key {KEY} with {TOKEN} to /v1/chat/completions?code={QUERY}"


class Quoting(ScriptedEngine):
    """Refuses what it is asked, and quotes what it was sent; a trial call it may answer."""

    def __init__(self, status: int, *, is_page: bool = False, takes_trials: bool = False) -> None:
        super().__init__()
        page = f"<html><title>{QUOTE}</title><p>{QUOTE}</p></html>".encode()
        self._refusal = reply(page if is_page else {"error": {"message": QUOTE}}, status)
        self._takes_trials = takes_trials

    def next_answer(self, request: SeenRequest) -> Answer:
        is_trial = b'"max_tokens":1' in request.body
        return (reply(completion()) if is_trial and self._takes_trials else self._refusal,)


ENGINES = {
    "wrong-key": Quoting(401),
    "forbidden": Quoting(403),
    "moved": Quoting(302),
    "broken": Quoting(500),
    "page": Quoting(502, is_page=True),
    "busy": Quoting(429),
    "picky": Quoting(400, takes_trials=True),
}


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """All that is logged, with tracebacks, as a server writes it."""
    sink = io.StringIO()
    before = structlog.get_config()
    structlog.configure(
        processors=[structlog.processors.format_exc_info, structlog.processors.JSONRenderer()],
        logger_factory=structlog.PrintLoggerFactory(sink),
        cache_logger_on_first_use=False,
    )
    yield sink
    structlog.configure(**before)


@pytest.fixture
def refused() -> Iterator[int]:
    """A port of this machine where nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.fixture
async def env(tmp_path: Path, refused: int, logged: io.StringIO) -> AsyncIterator[Env]:
    away = f"http://127.0.0.1:{refused}/v1"
    proxy = f"http://me:{HIDDEN}7{HIDDEN}8@127.0.0.1:{refused}"
    async with AsyncExitStack() as stack:
        replicas = [
            ReplicaSettings(url=away, models=("away",), **SECRETS),
            ReplicaSettings(url=away, name="proxied", models=("proxied",), proxy=proxy, **SECRETS),
        ]
        for model, engine in ENGINES.items():
            await stack.enter_async_context(engine)
            replicas.append(ReplicaSettings(url=engine.url, name=model, models=(model,), **SECRETS))
        yield await stack.enter_async_context(open_house(tmp_path, replicas))
    assert HIDDEN not in logged.getvalue()


async def explained(env: Env, batch: Json) -> Json:
    """The batch once it ended, or says why it waits."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            seen = await env.see(batch)
            if seen["status"] in ("completed", "failed") or seen.get("reason"):
                return seen
            await asyncio.sleep(0.05)  # as a client polls


async def test_nothing_that_callers_read_and_nothing_in_the_log_has_a_secret(
    env: Env, logged: io.StringIO
) -> None:
    read: list[str] = []
    models = [*ENGINES, "away", "proxied"]
    batches = {m: await env.start([ask(1, model=m), ask(2, model=m)]) for m in models}
    for model, batch in batches.items():
        read.append(str(await explained(env, batch)))
        for is_streamed in (False, True):
            body = {"model": model, "messages": [{"role": "user", "content": "x"}]}
            live = await env.http.post(CHAT, json=body | {"stream": is_streamed})
            assert live.status_code >= 300
            read.append(f"{live.headers} {live.text}")
    ended = await env.end(batches["picky"])
    assert ended["request_counts"]["failed"] == 2
    read.append((await env.content(ended["error_file_id"])).decode())
    assert "You sent the key *** with *** to" in read[-1], "its words are kept"
    paths = ("/v1/batches", "/v1/models", "/v1/files", "/metrics", "/ready", "/health")
    read += [(await env.http.get(path)).text for path in paths]
    assert not [text for text in read if HIDDEN in text]
    lost = [line for line in logged.getvalue().splitlines() if "replica.lost" in line]
    assert any("***" in line for line in lost), "the operator reads the engine's words"
