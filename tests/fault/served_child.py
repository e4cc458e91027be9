"""`lowtide serve` as a child process that may be killed and started again on the same data."""

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import httpx

from lowtide.core.accounts.money import model_prices
from testkit import forked_command
from testkit.patience import PATIENCE_S
from testkit.scripted_engine import Answer, ScriptedEngine, SeenRequest, completion, reply

READY_S: Final = PATIENCE_S
WINDOW: Final = 16
COMMIT_INTERVAL_S: Final = 0.2
LEASE_TTL_S: Final = 600.0
"""No test waits for its end: a server finds by itself what its former life held."""
PRICES: Final = model_prices(
    Decimal("0.123456"), Decimal("0.012346"), Decimal("0.654322"), Decimal("0.5")
)
"""Of the model `m`: with all the decimals that a price may have, so that nothing hides in a round
number.
"""
Json = dict[str, Any]


class LoggingEngine(ScriptedEngine):
    """Answers after `delay_s`, and remembers when it was asked what."""

    def __init__(self, delay_s: float) -> None:
        super().__init__()
        self.delay_s = delay_s
        self.log: list[tuple[float, str]] = []

    def next_answer(self, request: SeenRequest) -> Answer:
        text = json.loads(request.body)["messages"][0]["content"]
        self.log.append((time.monotonic(), text))
        super().next_answer(request)
        self.requests.clear()  # the log has what matters
        if text.startswith("hang"):
            return (3600.0,)
        return (self.delay_s, reply(completion(f"re: {text}") | {"usage": usage_for(text)}))


def usage_for(text: str) -> Json:
    """Different for each text, so that one answer billed for another shows."""
    given, made = 5 + 3 * int(text[1:] or 0), 2 + int(text[1:] or 0) % 11
    return {
        "prompt_tokens": given,
        "prompt_tokens_details": {"cached_tokens": given // 3},
        "completion_tokens": made,
        "total_tokens": given + made,
    }


class Served:
    """One life of the server."""

    def __init__(
        self, process: forked_command.ForkedCommand | asyncio.subprocess.Process, address: str
    ) -> None:
        self.process = process
        self.http = httpx.AsyncClient(base_url=address, timeout=PATIENCE_S, trust_env=False)

    async def start_batch(self, texts: list[str]) -> str:
        lines = [
            {
                "custom_id": f"r-{number}",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {"model": "m", "messages": [{"role": "user", "content": text}]},
            }
            for number, text in enumerate(texts, 1)
        ]
        form = {"file": ("input.jsonl", "\n".join(map(json.dumps, lines)).encode())}
        sent = await self.http.post("/v1/files", data={"purpose": "batch"}, files=form)
        asked = {"input_file_id": sent.json()["id"], "endpoint": "/v1/chat/completions"}
        made = await self.http.post("/v1/batches", json=asked | {"completion_window": "24h"})
        assert made.status_code == 200, made.text
        return str(made.json()["id"])

    async def see(self, batch_id: str) -> Json:
        return dict((await self.http.get(f"/v1/batches/{batch_id}")).json())

    async def ends_within(self, batch_id: str, seconds: float) -> Json | None:
        """The batch once it is completed, or None when it is not by then."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            seen = await self.see(batch_id)
            if seen["status"] == "completed":
                return seen
            await asyncio.sleep(0.05)
        return None

    async def moves_within(
        self, batch_id: str, engine: LoggingEngine, asked_before: int, seconds: float
    ) -> bool:
        """Whether the engine is asked again by then, or the batch has nothing left to ask."""
        until = time.monotonic() + seconds
        while len(engine.log) == asked_before:
            if time.monotonic() > until:
                return False
            if (await self.see(batch_id))["status"] in ("finalizing", "completed"):
                return True
            await asyncio.sleep(0.01)
        return True

    async def output(self, batch: Json) -> list[Json]:
        got = await self.http.get(f"/v1/files/{batch['output_file_id']}/content")
        return [json.loads(line) for line in got.text.splitlines()]

    async def kill(self) -> float:
        """SIGKILL; when."""
        self.process.kill()
        at = time.monotonic()
        await self.process.wait()
        return at

    async def terminate(self, within_s: float) -> tuple[int, float]:
        """SIGTERM; the exit code and the seconds it took."""
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(within_s):
            code = await self.process.wait()
        return code, time.monotonic() - begun


@asynccontextmanager
async def served(folder: Path, engine: ScriptedEngine) -> AsyncIterator[Served]:
    """The server over `folder`; whatever happens, it is gone at the end."""
    config = folder / "lowtide.toml"
    config.write_text(
        f"[server]\nport = 0\ndata_dir = {json.dumps(str(folder / 'data'))}\n"
        f"[dispatch]\ncommit_interval_s = {COMMIT_INTERVAL_S}\nlease_ttl_s = {LEASE_TTL_S}\n"
        f'[[replica]]\nurl = "{engine.url}"\nmodels = ["m"]\nwindow = {WINDOW}\n'
        '[[model]]\nid = "m"\ninput_price = 0.123456\ncached_input_price = 0.012346\n'
        "output_price = 0.654322\n"
    )
    with (folder / "server.log").open("ab") as log:
        process = await forked_command.start(
            *("serve", "--config", str(config), "--json"),
            cwd=Path.cwd(),
            env=os.environ,
            stderr=log.fileno(),
        )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(READY_S):
            line = await process.stdout.readline()
        assert line, (folder / "server.log").read_text()
        life = Served(process, json.loads(line)["address"])
        try:
            yield life
        finally:
            await life.http.aclose()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
