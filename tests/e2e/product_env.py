"""A whole Lowtide in the test's own loop: wiring, SQLite, a folder, and engines that obey rules.

Clients speak HTTP to the application without a socket; everything towards the engines is real.
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from lowtide.config import (
    DispatchSettings,
    LimitSettings,
    ReplicaSettings,
    ServerSettings,
    Settings,
)
from lowtide.wiring import open_application
from testkit.patience import PATIENCE_S
from testkit.scripted_engine import (
    Answer,
    ScriptedEngine,
    SeenRequest,
    completion,
    reply,
)

CHAT = "/v1/chat/completions"
ENDED = ("completed", "failed", "expired", "cancelled")
PLACES: dict[str, Any] = {}
"""Settings of where state and bytes are kept, if not in SQLite and a folder (tests/real)."""
Json = dict[str, Any]


class RuledEngine(ScriptedEngine):
    """A scripted engine whose answer follows from what it is asked.

    `rule` gets the text of the request's prompt and the number of times this text was asked
    before; None is a success that repeats the text.
    """

    def __init__(self, rule: Callable[[str, int], Answer | None] = lambda _, __: None) -> None:
        super().__init__()
        self.rule = rule
        self.asked: Counter[str] = Counter()

    def next_answer(self, request: SeenRequest) -> Answer:
        super().next_answer(request)
        text = prompt_of(json.loads(request.body))
        before = self.asked[text]
        self.asked[text] += 1
        answer = self.rule(text, before)
        return (reply(completion(f"re: {text}")),) if answer is None else answer


def prompt_of(body: Json) -> str:
    if "messages" in body:
        return str(body["messages"][-1]["content"])
    return str(body.get("prompt", body.get("input")))


class ShiftedClock:
    """The machine's clock, set forward by hand."""

    def __init__(self) -> None:
        self.shift = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.shift

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Env:
    """A running application and a client of it."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def upload(self, lines: Iterable[Json | str]) -> str:
        content = "".join(
            (line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines
        )
        form = {"file": ("input.jsonl", content.encode())}
        sent = await self.http.post("/v1/files", data={"purpose": "batch"}, files=form)
        assert sent.status_code == 200, sent.text
        return str(sent.json()["id"])

    async def create(self, file_id: str, endpoint: str = CHAT, **more: Any) -> Json:
        asked = {"input_file_id": file_id, "endpoint": endpoint, "completion_window": "24h"}
        made = await self.http.post("/v1/batches", json=asked | more)
        assert made.status_code == 200, made.text
        return dict(made.json())

    async def start(self, lines: Iterable[Json | str], endpoint: str = CHAT, **more: Any) -> Json:
        return await self.create(await self.upload(lines), endpoint, **more)

    async def see(self, batch: Json) -> Json:
        return dict((await self.http.get(f"/v1/batches/{batch['id']}")).json())

    async def cancel(self, batch: Json) -> Json:
        answer = await self.http.post(f"/v1/batches/{batch['id']}/cancel")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def until(self, batch: Json, fact: Callable[[Json], bool]) -> Json:
        """Poll as a client does until `fact`; on the way nothing may go backwards."""
        done, total, order = 0, 0, ("validating", "in_progress", "cancelling", "finalizing", *ENDED)
        state = 0
        async with asyncio.timeout(PATIENCE_S):
            while True:
                seen = await self.see(batch)
                counts = seen["request_counts"]
                settled = counts["completed"] + counts["failed"]
                assert settled >= done and counts["total"] >= total >= done, "counts went backwards"
                assert settled <= counts["total"]
                assert order.index(seen["status"]) >= state, "the status went backwards"
                done, total, state = settled, counts["total"], order.index(seen["status"])
                if fact(seen):
                    return seen
                assert seen["status"] not in ENDED, seen
                await asyncio.sleep(0.02)

    async def end(self, batch: Json) -> Json:
        return await self.until(batch, lambda seen: seen["status"] in ENDED)

    async def content(self, file_id: str) -> bytes:
        got = await self.http.get(f"/v1/files/{file_id}/content")
        assert got.status_code == 200, got.text
        return got.content

    async def lines(self, file_id: str | None) -> list[Json]:
        return [] if file_id is None else parsed(await self.content(file_id))

    async def results(self, batch: Json) -> tuple[list[Json], list[Json]]:
        """Output and error lines of an ended batch, checked against its counts."""
        ended = await self.see(batch)
        output = await self.lines(ended["output_file_id"])
        errors = await self.lines(ended["error_file_id"])
        counts = ended["request_counts"]
        assert (counts["completed"], counts["failed"]) == (len(output), len(errors))
        assert counts["total"] == len(output) + len(errors)
        for file in (output, errors):
            places = [place_of(line) for line in file]
            assert places == sorted(set(places)), "in input order, each once"
        return output, errors


def parsed(content: bytes) -> list[Json]:
    assert content.isascii() and content.endswith(b"\n")
    return [json.loads(line) for line in content.decode().splitlines()]


def place_of(line: Json) -> int:
    """The number in a custom id made by `ask`."""
    return int(line["custom_id"].rpartition("-")[2])


def ask(number: int, text: str | None = None, *, model: str = "m", url: str = CHAT) -> Json:
    """A request line; its custom id is `r-{number}`, its prompt `text` or `q{number}`."""
    text = f"q{number}" if text is None else text
    body: Json = {"model": model}
    match url:
        case "/v1/chat/completions":
            body["messages"] = [{"role": "user", "content": text}]
        case "/v1/completions":
            body["prompt"] = text
        case _:
            body["input"] = text
    return {"custom_id": f"r-{number}", "method": "POST", "url": url, "body": body}


def asks(count: int, **more: Any) -> list[Json]:
    return [ask(number, **more) for number in range(1, count + 1)]


def replica(engine: ScriptedEngine, *models: str, **more: Any) -> ReplicaSettings:
    return ReplicaSettings(url=engine.url, models=models or ("m",), **({"window": 8} | more))


@asynccontextmanager
async def open_house(
    folder: Path,
    replicas: Sequence[ReplicaSettings],
    *,
    limits: LimitSettings | None = None,
    attempt_timeout_s: float = 3600.0,
    attempts_max: int = 5,
) -> AsyncIterator[Env]:
    """Beats are short, so that tests need not wait for them; calls that hang are not given up."""
    settings = Settings(
        server=ServerSettings(data_dir=folder / "data", **PLACES),
        dispatch=DispatchSettings(
            commit_interval_s=0.05, attempt_timeout_s=attempt_timeout_s, attempts_max=attempts_max
        ),
        limits=limits or LimitSettings(),
        replica=tuple(replicas),
    )
    async with open_application(settings) as application:
        assert application.asgi is not None
        transport = httpx.ASGITransport(application.asgi)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            yield Env(http)
