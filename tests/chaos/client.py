"""A patient client: uploads, creates, watches and downloads while the server comes and goes.

What it does is tried again after a broken connection or a 5xx, as people's scripts do; only a 500,
which would be a mistake of ours, ends it. It tells in which phase each of its batches is, so that
a fault can be planted there, and remembers each moment at which the node was seen to move.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any, Final, Literal

import httpx

Phase = Literal["upload", "validation", "dispatch", "assembly", "download", "done"]
PHASES: Final[tuple[Phase, ...]] = (
    "upload", "validation", "dispatch", "assembly", "download", "done",
)  # fmt: skip
CHAT: Final = "/v1/chat/completions"
POLL_S: Final = 0.04
ENDED: Final = ("completed", "failed", "expired", "cancelled")
STATES: Final = ("validating", "in_progress", "cancelling", "finalizing", *ENDED)
Json = dict[str, Any]
Ask = Callable[[int], Awaitable[httpx.Response]]
"""Asks once; it hears how often that was done before."""


class WrongAnswer(Exception):
    """The server said something that it must never say, whatever has failed."""


@dataclass(slots=True)
class Watch:
    """What was seen of a round, by all who take part in it."""

    moves: list[tuple[float, str]] = field(default_factory=list)
    refusals: dict[int, int] = field(default_factory=dict)
    """How often each status of 500 and above was answered."""
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def move(self, what: str) -> None:
        """The node has done something for a client."""
        self.moves.append((time.monotonic(), what))
        async with self._changed:
            self._changed.notify_all()

    async def until(self, fact: Callable[[], bool], within_s: float) -> bool:
        """Wait for a fact; whether it came to be in time."""
        try:
            async with asyncio.timeout(within_s), self._changed:
                await self._changed.wait_for(fact)
        except TimeoutError:
            return False
        return True

    def first_after(self, at: float, *kinds: str) -> float | None:
        """When the node was first seen to move after `at`."""
        later = (when for when, what in self.moves if when > at and (not kinds or what in kinds))
        return min(later, default=None)


@dataclass(slots=True)
class Job:
    """One batch, from its lines to its results."""

    name: str
    texts: list[str]
    phase: Phase = "upload"
    settled: int = 0
    batch: Json = field(default_factory=dict)
    output: list[Json] = field(default_factory=list)
    errors: list[Json] = field(default_factory=list)

    def content(self, model: str = "m") -> bytes:
        lines = (
            {
                "custom_id": f"{self.name}-{number}",
                "method": "POST",
                "url": CHAT,
                "body": {"model": model, "messages": [{"role": "user", "content": text}]},
            }
            for number, text in enumerate(self.texts, 1)
        )
        return "".join(json.dumps(line) + "\n" for line in lines).encode()


class Client:
    """Lives one job after another, any number side by side."""

    def __init__(self, http: httpx.AsyncClient, watch: Watch) -> None:
        self._http = http
        self.watch = watch

    async def live(self, job: Job) -> None:
        """The whole life of a batch. Raises WrongAnswer."""
        file_id = (await self._reported(lambda _: self._upload(job)))["id"]
        await self._enter(job, "validation")
        asked = {"input_file_id": file_id, "endpoint": CHAT, "completion_window": "24h"}
        job.batch = await self._reported(partial(self._create, asked))
        place = f"/v1/batches/{job.batch['id']}"
        while job.batch["status"] not in ENDED:
            await asyncio.sleep(POLL_S)
            await self._see(job, await self._reported(lambda _: self._http.get(place)))
        await self._enter(job, "download")
        job.output = await self._lines(job.batch.get("output_file_id"))
        job.errors = await self._lines(job.batch.get("error_file_id"))
        await self._enter(job, "done")

    async def _create(self, asked: Json, tries: int) -> httpx.Response:
        """A repetition says so, as those of the SDKs do. Without that word, a batch whose creator
        was killed just before its answer left would be another one: as one that was answered."""
        said = {"x-stainless-retry-count": str(tries)}
        return await self._http.post("/v1/batches", json=asked, headers=said)

    async def _upload(self, job: Job) -> httpx.Response:
        form = {"file": ("input.jsonl", job.content())}
        return await self._http.post("/v1/files", data={"purpose": "batch"}, files=form)

    async def _see(self, job: Job, seen: Json) -> None:
        """Take what the server says; nothing of it may go backwards."""
        settled = seen["request_counts"]["completed"] + seen["request_counts"]["failed"]
        if settled < job.settled or settled > max(seen["request_counts"]["total"], 0):
            raise WrongAnswer(f"counts of {job.name}: {job.settled}, then {seen}")
        if STATES.index(seen["status"]) < STATES.index(job.batch["status"]):
            raise WrongAnswer(f"status of {job.name}: {job.batch['status']}, then {seen}")
        moved = settled > job.settled or seen["status"] != job.batch["status"]
        job.settled, job.batch = settled, seen
        if seen["status"] == "in_progress" and job.phase == "validation":
            await self._enter(job, "dispatch")
        elif seen["status"] == "finalizing" and job.phase in ("validation", "dispatch"):
            await self._enter(job, "assembly")
        elif moved:
            await self.watch.move("count")

    async def _enter(self, job: Job, phase: Phase) -> None:
        job.phase = phase
        await self.watch.move(phase)

    async def _lines(self, file_id: str | None) -> list[Json]:
        if file_id is None:
            return []
        got = await self._answered(lambda _: self._http.get(f"/v1/files/{file_id}/content"))
        return [json.loads(line) for line in got.text.splitlines()]

    async def _reported(self, ask: Ask) -> Json:
        return dict((await self._answered(ask)).json())

    async def _answered(self, ask: Ask) -> httpx.Response:
        """Ask until there is a success. Raises WrongAnswer at what asking again cannot mend."""
        for tries in count():
            try:
                answer = await ask(tries)
            except (httpx.TransportError, httpx.RemoteProtocolError):
                await asyncio.sleep(POLL_S)
                continue
            if answer.is_success:
                await self.watch.move("answer")
                return answer
            self.watch.refusals[answer.status_code] = (
                self.watch.refusals.get(answer.status_code, 0) + 1
            )
            if answer.status_code < 501:
                raise WrongAnswer(f"{answer.status_code}: {answer.text}")
            await asyncio.sleep(POLL_S)
        raise AssertionError("it counts for ever")
