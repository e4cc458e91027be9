"""The submitter: batches by HTTP, one after the other, and each output checked line by line.

Used by __main__.py. Invariant: a batch counts as done only when its output had each of its lines
once, in order and answered. Whatever process is killed, its call is made again at another one.
"""

import asyncio
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from bench.backend import MODEL

CHAT: Final = "/v1/chat/completions"
AT_ONCE: Final = 4
"""Batches that are unfinished at a time, so that work waits and the bucket stays small."""
POLL_S: Final = 2.0
AGAIN_S: Final = 1.0
TRIES: Final = 120


@dataclass
class Found:
    """What was seen of all batches."""

    submitted: int = 0
    done: int = 0
    lost: int = 0
    doubled: int = 0
    failed: int = 0
    tries_again: int = 0
    ran_out: bool = False
    """Whether the time was over before all lines were submitted."""
    unfinished: dict[str, int] = field(default_factory=dict)
    """Lines completed so far, by batch."""

    @property
    def completed(self) -> int:
        return self.done + sum(self.unfinished.values())


class Submitter:
    """Makes the batches, and checks them."""

    def __init__(self, addresses: Callable[[], Mapping[str, str]], lines: int, each: int) -> None:
        self.found = Found()
        self._addresses = addresses
        self._lines = lines
        self._each = each
        self._turn = 0
        self._name = secrets.token_hex(8)
        self._http = httpx.AsyncClient(timeout=httpx.Timeout(120, connect=5), trust_env=False)

    async def run(self) -> None:
        """All of them, or as many as begin in time."""
        places = asyncio.Semaphore(AT_ONCE)
        async with self._http, asyncio.TaskGroup() as group:
            for first in range(0, self._lines, self._each):
                await places.acquire()
                if self.found.ran_out:
                    return
                count = min(self._each, self._lines - first)
                group.create_task(self._batch(first, count, places))
                self.found.submitted += count

    def run_out(self) -> None:
        """Begins no further batch; those that are under way are checked."""
        self.found.ran_out = True

    async def reached(self, share: float) -> None:
        """Waits until that share of the lines is completed."""
        while self.found.completed < share * self._lines:  # noqa: ASYNC110 - batches are asked
            await asyncio.sleep(POLL_S)

    async def _batch(self, first: int, count: int, places: asyncio.Semaphore) -> None:
        try:
            form = {"file": ("in.jsonl", b"".join(_line(n) for n in range(first, first + count)))}
            sent = await self._call("POST", "/files", data={"purpose": "batch"}, files=form)
            order = {"input_file_id": sent["id"], "endpoint": CHAT, "completion_window": "24h"}
            once = {"Idempotency-Key": f"{self._name}-{first}"}
            batch = await self._call("POST", "/batches", json=order, headers=once)
            while batch["status"] not in ("completed", "failed", "expired", "cancelled"):
                await asyncio.sleep(POLL_S)
                batch = await self._call("GET", f"/batches/{batch['id']}")
                self.found.unfinished[batch["id"]] = batch["request_counts"]["completed"]
            await self._check(batch, first, count)
            self.found.unfinished.pop(batch["id"], None)
            for path in (f"/batches/{batch['id']}", f"/files/{sent['id']}"):
                await self._call("DELETE", path, gone_is_well=True)
        finally:
            places.release()

    async def _check(self, batch: Mapping[str, Any], first: int, count: int) -> None:
        seen: dict[str, int] = {}
        failed = int(batch["request_counts"]["failed"])
        if batch.get("output_file_id"):
            path = f"/files/{batch['output_file_id']}/content"
            for raw in (await self._bytes(path)).splitlines():
                line = json.loads(raw)
                seen[line["custom_id"]] = seen.get(line["custom_id"], 0) + 1
                failed += line["response"]["status_code"] != 200
        wanted = {_custom_id(n) for n in range(first, first + count)}
        self.found.lost += len(wanted - seen.keys())
        self.found.doubled += sum(times > 1 for times in seen.values()) + len(seen.keys() - wanted)
        self.found.failed += failed
        self.found.done += count

    async def _call(
        self, method: str, path: str, *, gone_is_well: bool = False, **more: Any
    ) -> dict[str, Any]:
        answer = await self._request(method, path, **more)
        if gone_is_well and answer.status_code == 404:
            return {}
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    async def _bytes(self, path: str) -> bytes:
        return (await self._request("GET", path)).raise_for_status().content

    async def _request(self, method: str, path: str, **more: Any) -> httpx.Response:
        """At one of the API processes, in turn, as a balancer does it."""
        for _ in range(TRIES):
            addresses = list(self._addresses().values())
            self._turn += 1
            url = f"{addresses[self._turn % len(addresses)]}/openai/v1{path}"
            try:
                answer = await self._http.request(method, url, **more)
                if answer.status_code < 500 and answer.status_code != 429:
                    return answer
            except httpx.TransportError:
                pass
            self.found.tries_again += 1
            await asyncio.sleep(AGAIN_S)
        raise RuntimeError(f"{method} {path}: no answer in {TRIES} tries")


def _custom_id(number: int) -> str:
    return f"r{number:08d}"


def _line(number: int) -> bytes:
    text = f"Write line {number} about the sea at night, in one short sentence."
    body = {"model": MODEL, "messages": [{"role": "user", "content": text}], "max_tokens": 64}
    line = {"custom_id": _custom_id(number), "method": "POST", "url": CHAT, "body": body}
    return json.dumps(line).encode() + b"\n"
