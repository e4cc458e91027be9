"""An installation of real processes that a test may break as it likes, and its operator's commands.

Over any database and any place for blobs. What remains deliverable is checked line by line, and to
the last token that was charged.
"""

import asyncio
import json
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, closing
from decimal import Decimal
from pathlib import Path

import httpx
from command_line import Command, lowtide
from product_env import ENDED, Env, Json, ask, place_of

from testkit.echo_engine import EchoEngine
from testkit.patience import PATIENCE_S

COMMIT_INTERVAL_S = 0.2
LEASE_TTL_S = 1.5
WINDOW = 4
INPUT_PRICE, OUTPUT_PRICE = Decimal("0.123456"), Decimal("0.654322")


class Site:
    """One installation: where its things are, and how its commands are run."""

    def __init__(
        self,
        folder: Path,
        engines: Iterable[EchoEngine],
        *,
        database_url: str = "sqlite",
        blob_url: str = "file",
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self._engines = list(engines)
        self.window = WINDOW
        self.database_url = database_url
        self.blob_url = blob_url
        self.environ = dict(environ or {})

    @property
    def data_dir(self) -> Path:
        return self.folder / "serve"

    @property
    def blobs(self) -> Path:
        """Where the blobs of an embedded pair lie."""
        return self.data_dir / "blobs"

    def config(self, name: str = "serve") -> Path:
        """The settings of one process; each has a data directory of its name."""
        config = self.folder / f"{name}.toml"
        replicas = "".join(
            f"[[replica]]\nurl = {json.dumps(engine.url)}\nmodels = ['m']\nwindow = {self.window}\n"
            for engine in self._engines
        )
        config.write_text(
            f"[server]\nport = 0\ndata_dir = {json.dumps(str(self.folder / name))}\n"
            f"database_url = {json.dumps(self.database_url)}\n"
            f"blob_url = {json.dumps(self.blob_url)}\n"
            "upload_secret = '0f1e2d3c4b5a69788796a5b4c3d2e1f0'\n"
            f"[dispatch]\ncommit_interval_s = {COMMIT_INTERVAL_S}\nlease_ttl_s = {LEASE_TTL_S}\n"
            f"[[model]]\nid = 'm'\ninput_price = {INPUT_PRICE}\noutput_price = {OUTPUT_PRICE}\n"
            f"{replicas}"
        )
        return config

    async def start(self, *words: str, name: str, **environ: str) -> Command:
        """`serve ...` or `worker`, as the process `name`."""
        return await Command.start(
            *words, "--config", self.config(name), "--json", cwd=self.folder,
            **(self.environ | environ),
        )  # fmt: skip

    @asynccontextmanager
    async def serving(self, name: str = "serve", role: str = "all") -> AsyncIterator["Life"]:
        """`lowtide serve`, gone when the context is left, killed if need be."""
        async with await self.start("serve", "--role", role, name=name) as command:
            address = (await command.printed_json())["address"]
            async with httpx.AsyncClient(
                base_url=address, timeout=PATIENCE_S, trust_env=False
            ) as http:
                yield Life(command, Env(http))

    @asynccontextmanager
    async def working(self, name: str) -> AsyncIterator[Command]:
        """`lowtide worker`, up."""
        async with await self.start("worker", name=name) as command:
            await command.printed_json()
            yield command

    async def run(self, *words: str | Path, name: str = "serve") -> tuple[int, Json, str]:
        """A command of the operator's with `--json`: exit code, what it printed, what it told."""
        code, out, reported = await lowtide(
            *words, "--config", self.config(name), "--json", cwd=self.folder, **self.environ
        )
        return code, json.loads(out) if out else {}, reported

    async def doctor(self, *words: str) -> tuple[int, dict[str, list[Json]]]:
        """Exit code, and the findings by name."""
        code, answer, reported = await self.run("doctor", *words)
        assert "checks" in answer, reported
        found: dict[str, list[Json]] = {}
        for check in answer["checks"]:
            found.setdefault(check["name"], []).append(check)
        return code, found

    async def mend(self, *words: str) -> list[Json]:
        """`lowtide doctor --repair`, which must leave no drift; its repairs."""
        code, answer, reported = await self.run("doctor", "--repair", "--yes", *words)
        drifts = [check for check in answer["checks"] if check["name"] == "drift"]
        assert code == 0 and all(drift["verdict"] != "fail" for drift in drifts), (drifts, reported)
        return list(answer.get("repairs", []))

    def query(self, statement: str) -> list[tuple[object, ...]]:
        """Look into the SQLite of an embedded pair."""
        with closing(sqlite3.connect(self.data_dir / "lowtide.db")) as database:
            return list(database.execute(statement))


class Life:
    """One life of a server."""

    def __init__(self, command: Command, env: Env) -> None:
        self.command = command
        self.env = env

    async def end(self, batch: Json) -> Json:
        """Wait for the end of the batch, through whatever makes counts fall or calls fail."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    seen = await self.env.see(batch)
                except httpx.TransportError:
                    seen = {}
                if seen.get("status") in ENDED:
                    return seen
                await asyncio.sleep(0.05)


def prompts(count: int, wait_s: float = 0.05) -> list[Json]:
    """Lines that take a while each, so that there is a middle to break things in."""
    return [ask(number, f"wait {wait_s} q{number}") for number in range(1, count + 1)]


async def check_delivered(env: Env, batch: Json, total: int) -> Counter[str]:
    """Every line is in one of the two files, once, and what succeeded is charged once.

    How many lines ended in which way: `ok`, or the code of their error.
    """
    seen = await env.see(batch)
    output = await env.lines(seen["output_file_id"])
    errors = await env.lines(seen["error_file_id"])
    counts = seen["request_counts"]
    assert (counts["completed"], counts["failed"]) == (len(output), len(errors))
    places = [int(line["id"].rpartition("-")[2]) for line in (*output, *errors)]
    assert sorted(places) == list(range(1, total + 1)), "each line once"
    assert all(place_of(line) == at for line, at in zip(output, places, strict=False))
    for line in output:
        assert f" q{place_of(line)}" in json.dumps(line["response"]["body"])
    usages = [line["response"]["body"]["usage"] for line in output]
    dollars = sum(
        usage["prompt_tokens"] * INPUT_PRICE / 2 + usage["completion_tokens"] * OUTPUT_PRICE / 2
        for usage in usages
    ) / Decimal(10**6)
    assert Decimal(seen["cost"]["amount"]) == dollars
    assert seen["usage"]["input_tokens"] == sum(usage["prompt_tokens"] for usage in usages)
    return Counter(["ok"] * len(output) + [line["error"]["code"] for line in errors])
