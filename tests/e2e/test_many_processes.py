"""One API and two workers, each a process of its own, on one PostgreSQL and one shared folder.

Each worker has a replica of its own. Killed in the middle, a worker costs a lease time-out; and
whatever happens, each line is answered once.
"""

import asyncio
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import product_env
from command_line import Command
from product_env import Env, ask, place_of

from testkit.echo_engine import EchoEngine, running_echo_engine
from testkit.patience import PATIENCE_S

REQUESTS = 300
WINDOW = 4
ANSWER_S = 0.05
COMMIT_INTERVAL_S = 0.2
LEASE_TTL_S = 6.0
PATIENT_TTL_S = 30.0
"""Of a lease that no slow machine outlasts."""
WORKERS = ("worker-1", "worker-2")


@dataclass(frozen=True, slots=True)
class Fleet:
    """What runs. `engines` and `workers` go by the worker's name."""

    env: Env
    api: Command
    workers: dict[str, Command]
    engines: dict[str, EchoEngine]

    def calls(self) -> Counter[str]:
        """How often each prompt was asked, over all engines."""
        return sum((engine.calls for engine in self.engines.values()), Counter())


def write_config(
    folder: Path, name: str, database_url: str, engine: EchoEngine | None, lease_ttl_s: float
) -> Path:
    config = folder / f"{name}.toml"
    blob_url = product_env.PLACES.get("blob_url", (folder / "shared blobs").as_uri())
    replica = (
        f"[[replica]]\nurl = {json.dumps(engine.url)}\nmodels = ['m']\nwindow = {WINDOW}\n"
        if engine is not None
        else ""
    )
    config.write_text(
        f"[server]\nport = 0\ndata_dir = {json.dumps(str(folder / name))}\n"
        f"database_url = {json.dumps(database_url)}\n"
        f"blob_url = {json.dumps(blob_url)}\n"
        f"[dispatch]\ncommit_interval_s = {COMMIT_INTERVAL_S}\nlease_ttl_s = {lease_ttl_s}\n"
        f"[[model]]\nid = 'm'\n{replica}"
    )
    return config


@asynccontextmanager
async def running_fleet(
    folder: Path, database_url: str, lease_ttl_s: float = LEASE_TTL_S
) -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        engines = {name: stack.enter_context(running_echo_engine()) for name in WORKERS}
        config = write_config(folder, "api", database_url, None, lease_ttl_s)
        api = await Command.start(
            "serve", "--role", "api", "--config", config, "--json", cwd=folder
        )
        await stack.enter_async_context(api)
        workers = {}
        for name, engine in engines.items():
            config = write_config(folder, name, database_url, engine, lease_ttl_s)
            worker = await Command.start("worker", "--config", config, "--json", cwd=folder)
            workers[name] = await stack.enter_async_context(worker)
        address = (await api.printed_json())["address"]
        for worker in workers.values():
            assert (await worker.printed_json())["models"] == ["m"]
        http = await stack.enter_async_context(
            httpx.AsyncClient(base_url=address, timeout=PATIENCE_S)
        )
        yield Fleet(Env(http), api, workers, engines)


async def stop(command: Command) -> None:
    command.send(signal.SIGTERM)
    code, _, reported = await command.ended()
    assert code == 0, reported


async def test_a_killed_worker_costs_a_lease_and_no_line(tmp_path: Path, postgres_url: str) -> None:
    async with running_fleet(tmp_path, postgres_url) as fleet:
        lines = [ask(number, f"wait {ANSWER_S} q{number}") for number in range(1, REQUESTS + 1)]
        batch = await fleet.env.start(lines)

        seen = await fleet.env.until(batch, lambda seen: seen["request_counts"]["completed"] >= 60)
        assert all(engine.calls for engine in fleet.engines.values()), "both workers work"
        fleet.workers["worker-1"].send(signal.SIGKILL)
        uncommitted = fleet.calls().total() - seen["request_counts"]["completed"]

        ended = await fleet.env.end(batch)
        output, errors = await fleet.env.results(ended)
        assert (ended["status"], len(errors)) == ("completed", 0)
        assert [place_of(line) for line in output] == list(range(1, REQUESTS + 1))
        for line in output:
            text = line["response"]["body"]["choices"][0]["message"]["content"]
            assert text == f"echo: wait {ANSWER_S} q{place_of(line)}"
        assert ended["usage"]["total_tokens"] == 8 * REQUESTS, "four words each way"
        calls = fleet.calls()
        assert len(calls) == REQUESTS
        again = calls.total() - REQUESTS
        assert again <= uncommitted, "only what was in flight, or not yet in a beat, ran again"

        await stop(fleet.workers["worker-2"])
        await stop(fleet.api)


async def test_a_worker_that_is_told_to_stop_gives_back_what_it_has_not_begun(
    tmp_path: Path, postgres_url: str
) -> None:
    """Nothing runs twice: what was in flight is finished, the rest goes on elsewhere at once."""
    async with running_fleet(tmp_path, postgres_url, PATIENT_TTL_S) as fleet:
        lines = [ask(number, f"wait {ANSWER_S} q{number}") for number in range(1, REQUESTS + 1)]
        batch = await fleet.env.start(lines)
        await fleet.env.until(batch, lambda seen: seen["request_counts"]["completed"] >= 60)
        await stop(fleet.workers["worker-1"])
        ended = await fleet.env.end(batch)
        output, _ = await fleet.env.results(ended)
        assert len(output) == REQUESTS
        assert set(fleet.calls().values()) == {1}
        await asyncio.gather(stop(fleet.workers["worker-2"]), stop(fleet.api))
