"""Workers that list the same engines: each has its share, and a worker that goes is replaced."""

import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from command_line import Command
from product_env import Env, ask, place_of
from shared_fleet import Machines, Owners, stop

from testkit.echo_engine import EchoEngine, running_echo_engine
from testkit.patience import PATIENCE_S

REQUESTS = 300
ANSWER_S = 0.05


@dataclass(frozen=True, slots=True)
class Scene:
    """What runs: an API, and workers that all list `engines`."""

    env: Env
    api: Command
    machines: Machines
    engines: list[EchoEngine]
    owners: Owners
    stack: AsyncExitStack

    async def worker(self, name: str) -> Command:
        return await self.stack.enter_async_context(await self.machines.worker(name))

    def calls(self) -> Counter[str]:
        return sum((engine.calls for engine in self.engines), Counter())


@asynccontextmanager
async def scene(
    folder: Path, database_url: str, *, engines: int, lease_ttl_s: float
) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        made = [stack.enter_context(running_echo_engine()) for _ in range(engines)]
        machines = Machines(folder, database_url, made, lease_ttl_s=lease_ttl_s)
        api, address = await machines.api("api")
        await stack.enter_async_context(api)
        http = await stack.enter_async_context(
            httpx.AsyncClient(base_url=address, timeout=PATIENCE_S)
        )
        owners = await stack.enter_async_context(Owners.watched(database_url))
        yield Scene(Env(http), api, machines, made, owners, stack)


def lines() -> list[dict[str, object]]:
    return [ask(number, f"wait {ANSWER_S} q{number}") for number in range(1, REQUESTS + 1)]


async def test_a_worker_told_to_stop_hands_over_its_replicas_before_it_is_gone(
    tmp_path: Path, postgres_url: str
) -> None:
    """The lease is longer than the test: whatever is taken over was given."""
    async with scene(tmp_path, postgres_url, engines=2, lease_ttl_s=600.0) as seen:
        first = await seen.worker("worker-1")
        await seen.owners.until(lambda shares: [len(s) for s in shares.values()] == [2])
        batch = await seen.env.start(lines())
        await seen.env.until(batch, lambda now: now["request_counts"]["completed"] >= 30)

        second = await seen.worker("worker-2")
        await seen.owners.until(lambda shares: [len(s) for s in shares.values()] == [1, 1])
        await seen.env.until(batch, lambda now: now["request_counts"]["completed"] >= 90)
        await stop(first)
        await seen.owners.until(lambda shares: [len(s) for s in shares.values()] == [2])

        ended = await seen.env.end(batch)
        output, errors = await seen.env.results(ended)
        assert (ended["status"], len(output), len(errors)) == ("completed", REQUESTS, 0)
        assert set(seen.calls().values()) == {1}, "no call was dropped on the way"
        await stop(second)
        await seen.owners.until(lambda shares: shares == {})
        await stop(seen.api)


async def test_a_killed_worker_s_replicas_are_taken_over_after_its_lease(
    tmp_path: Path, postgres_url: str
) -> None:
    lease_ttl_s = 2.0
    async with scene(tmp_path, postgres_url, engines=3, lease_ttl_s=lease_ttl_s) as seen:
        workers = [await seen.worker(f"worker-{number}") for number in (1, 2)]
        await seen.owners.until(lambda shares: sorted(map(len, shares.values())) == [1, 2])
        batch = await seen.env.start(lines())
        await seen.env.until(batch, lambda now: now["request_counts"]["completed"] >= 60)
        assert all(engine.calls for engine in seen.engines), "all replicas work"

        workers[0].send(signal.SIGKILL)
        await seen.owners.until(lambda shares: [len(s) for s in shares.values()] == [3])

        ended = await seen.env.end(batch)
        output, errors = await seen.env.results(ended)
        assert (ended["status"], len(errors)) == ("completed", 0)
        assert [place_of(line) for line in output] == list(range(1, REQUESTS + 1))
        await stop(workers[1])
        await stop(seen.api)
