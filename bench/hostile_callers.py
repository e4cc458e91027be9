"""Ten tenants that do their worst, each at a fixed rate: the load of `bench.hostile_tenants`.

    python -m bench.hostile_callers < plan.json

`plan` is one line on standard input: the server's address, a key for each tenant, the model, and
the most seconds that this may last. It ends with standard input, so it never outlives the bench,
and prints two JSON lines: that it is ready, and what each tenant was answered, by status. Every
rate and every number of things held is bounded (RATES), so that what is measured is how the server
shares what it has, and not who sends more. It runs with a nice value of 10: the load takes what is
left of the processor.
"""

import asyncio
import json
import os
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

MIB: Final = 1 << 20
NICE: Final = 10
CALL_S: Final = 60.0
CHAT: Final = "/v1/chat/completions"
PART_BYTES: Final = 16 * MIB
BLANK_BYTES: Final = 16 * MIB
HELD_TOKENS: Final = 20_000  # the engine of the bench takes a millisecond for each
FILES: Final = 500
FIELDS: Final = b",".join(b'"k%07d":1' % number for number in range(1_000_000))


@dataclass(slots=True)
class Tenant:
    """`answered`: statuses, and `lost` for connections that were ended."""

    http: httpx.AsyncClient
    address: str
    key: str
    model: str
    answered: Counter[str] = field(default_factory=Counter)
    begun: list[Any] = field(default_factory=list)

    async def ask(self, method: str, path: str, **more: Any) -> httpx.Response | None:
        try:
            answer = await self.http.request(method, path, **more)
        except httpx.HTTPError:
            self.answered["lost"] += 1
            return None
        self.answered[str(answer.status_code)] += 1
        return answer

    async def upload(self, data: bytes) -> str | None:
        form = {"file": ("input.jsonl", data)}
        sent = await self.ask("POST", "/v1/files", data={"purpose": "batch"}, files=form)
        return str(sent.json()["id"]) if sent is not None and sent.is_success else None

    async def batch(self, file_id: str) -> None:
        asked = {"input_file_id": file_id, "endpoint": CHAT, "completion_window": "24h"}
        await self.ask("POST", "/v1/batches", json=asked)

    def chat(self, **more: Any) -> dict[str, Any]:
        return {"model": self.model, "messages": [{"role": "user", "content": "x"}], **more}


def line(model: str, more: bytes = b"") -> bytes:
    body = b'{"model":"%b","messages":[{"role":"user","content":"x"}]%b}' % (model.encode(), more)
    return b'{"custom_id":"1","method":"POST","url":"%b","body":%b}\n' % (CHAT.encode(), body)


async def body_short_of_a_byte(tenant: Tenant) -> None:
    """A live call whose body of 16 MiB stops one byte short and stays so (W3)."""
    where = urlsplit(tenant.address)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {tenant.key}\r\n"
    writer.write(f"{head}content-length: {16 * MIB}\r\n\r\n".encode())
    try:
        for number in range(16):
            writer.write(b"a" * (MIB - (number == 15)))
            await writer.drain()
        status = (await reader.read(MIB))[9:12].decode() or "lost"
        tenant.answered[status] += 1
    except OSError:
        tenant.answered["lost"] += 1
    finally:
        writer.close()


async def blank_batch(tenant: Tenant) -> None:
    """A batch over 16 MiB of empty lines (W4)."""
    if not tenant.begun:
        tenant.begun.append(await tenant.upload(b"\n" * BLANK_BYTES))
    if tenant.begun[0] is not None:
        await tenant.batch(tenant.begun[0])


async def small_batch(tenant: Tenant) -> None:
    """A batch of one line, and no end of them (W4)."""
    if not tenant.begun:
        tenant.begun.append(await tenant.upload(line(tenant.model)))
    if tenant.begun[0] is not None:
        await tenant.batch(tenant.begun[0])


async def wide_flex_call(tenant: Tenant) -> None:
    """A flex call with a million fields (W5)."""
    body = json.dumps(tenant.chat(service_tier="flex")).encode()[:-1] + b"," + FIELDS + b"}"
    await tenant.ask("POST", CHAT, content=body, headers={"content-type": "application/json"})


async def wide_batch(tenant: Tenant) -> None:
    """A batch of two such lines (W5)."""
    if not tenant.begun:
        wide = line(tenant.model, b"," + FIELDS)
        tenant.begun.append(await tenant.upload(wide + wide.replace(b'id":"1"', b'id":"2"')))
    if tenant.begun[0] is not None:
        await tenant.batch(tenant.begun[0])


async def long_live_call(tenant: Tenant) -> None:
    """A live call that takes 20 s, so that a few hundred are held at a time (W9)."""
    await tenant.ask("POST", CHAT, json=tenant.chat(max_tokens=HELD_TOKENS))


async def long_flex_call(tenant: Tenant) -> None:
    """The same through the batch queue (W9)."""
    await tenant.ask("POST", CHAT, json=tenant.chat(max_tokens=HELD_TOKENS, service_tier="flex"))


async def wrong_completion(tenant: Tenant) -> None:
    """The end of an upload of 32 MiB, with a digest that is not its own (W10)."""
    if not tenant.begun:
        tenant.begun.append(await _upload_in_parts(tenant))
    if tenant.begun[0] is None:
        tenant.begun.clear()
        return
    upload, parts = tenant.begun[0]
    reported = {"part_ids": parts, "md5": "0" * 32}
    answer = await tenant.ask("POST", f"/v1/uploads/{upload}/complete", json=reported)
    if answer is not None and answer.status_code in (404, 409, 410):
        tenant.begun.clear()  # it was closed for good: the next call makes another


async def _upload_in_parts(tenant: Tenant) -> tuple[str, list[str]] | None:
    new = {"bytes": 2 * PART_BYTES, "filename": "x", "mime_type": "text/jsonl", "purpose": "batch"}
    made = await tenant.ask("POST", "/v1/uploads", json=new)
    if made is None or not made.is_success:
        return None
    upload, parts = made.json()["id"], []
    for _ in range(2):
        form = {"data": b"\n" * PART_BYTES}
        sent = await tenant.ask("POST", f"/v1/uploads/{upload}/parts", files=form)
        if sent is None or not sent.is_success:
            return None
        parts.append(sent.json()["id"])
    return upload, parts


async def whole_listing(tenant: Tenant) -> None:
    """Hundreds of files, as one page, over and over (W11)."""
    if len(tenant.begun) < FILES:
        tenant.begun.append(await tenant.upload(line(tenant.model)))
    await tenant.ask("GET", "/v1/files")


@dataclass(frozen=True, slots=True)
class Rate:
    """Calls a second, and the most that are under way at a time. `prepares`: the first call makes
    what the others are about, and so goes alone.
    """

    call: Callable[[Tenant], Awaitable[None]]
    per_s: float
    at_once: int
    prepares: bool = False


RATES: Final = {
    "bodies short of a byte": Rate(body_short_of_a_byte, 0.5, 24),
    "batches of empty lines": Rate(blank_batch, 0.5, 2, prepares=True),
    "batches of one line": Rate(small_batch, 5, 4, prepares=True),
    "flex calls with a million fields": Rate(wide_flex_call, 0.25, 1),
    "batches with a million fields": Rate(wide_batch, 0.25, 1, prepares=True),
    "live calls that stay": Rate(long_live_call, 20, 400),
    "more live calls that stay": Rate(long_live_call, 20, 400),
    "flex calls that stay": Rate(long_flex_call, 20, 400),
    "completions that fail": Rate(wrong_completion, 1, 2, prepares=True),
    "listings": Rate(whole_listing, 20, 8),
}
"""What each tenant does, and its share: no tenant sends more than this, however it is answered."""


async def at_rate(tenant: Tenant, rate: Rate, ends_s: float) -> None:
    """Calls at the rate, leaving out those for which no place is free."""
    loop = asyncio.get_running_loop()
    under_way: set[asyncio.Task[None]] = set()
    due = loop.time()
    try:
        while loop.time() < ends_s:
            if len(under_way) < rate.at_once:
                task = asyncio.ensure_future(rate.call(tenant))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
                if rate.prepares and not tenant.begun:
                    await asyncio.wait({task}, timeout=CALL_S)
            due = max(due + 1 / rate.per_s, loop.time())
            await asyncio.sleep(due - loop.time())
    finally:
        tenant.answered["under way at the end"] = len(under_way)
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)


async def run(plan: dict[str, Any], tenants: dict[str, Tenant]) -> None:
    ends_s = asyncio.get_running_loop().time() + plan["seconds"]
    async with asyncio.TaskGroup() as group:
        for name, tenant in tenants.items():
            group.create_task(at_rate(tenant, RATES[name], ends_s))


async def until_logged(plan: dict[str, Any], stdin: asyncio.StreamReader) -> None:
    tenants = {
        name: Tenant(
            httpx.AsyncClient(
                base_url=plan["address"],
                headers={"authorization": f"Bearer {key}"},
                trust_env=False,
                timeout=CALL_S,
                limits=httpx.Limits(max_connections=RATES[name].at_once + 2),
            ),
            plan["address"],
            key,
            plan["model"],
        )
        for name, key in plan["keys"].items()
    }
    print(json.dumps({"ready": True}), flush=True)
    calling = asyncio.create_task(run(plan, tenants))
    ended = asyncio.create_task(stdin.read())
    await asyncio.wait({calling, ended}, return_when=asyncio.FIRST_COMPLETED)
    calling.cancel()
    ended.cancel()
    await asyncio.gather(calling, ended, return_exceptions=True)
    for tenant in tenants.values():
        await tenant.http.aclose()
    print(json.dumps({name: dict(tenant.answered) for name, tenant in tenants.items()}), flush=True)


async def main() -> None:
    os.nice(NICE)
    stdin = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    await until_logged(json.loads(await stdin.readline()), stdin)


if __name__ == "__main__":
    asyncio.run(main())
