"""A whole server beside live traffic, with simulated engines that tell, lie or say nothing."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from product_env import Env, asks, open_house

from lowtide import limits
from lowtide.config import ReplicaSettings
from lowtide.engine_sim.http.options import ServerOptions
from lowtide.engine_sim.http.serving import ServedSimulator, served
from lowtide.engine_sim.real_time.faults import EngineFaults
from testkit.patience import PATIENCE_S

MODEL = "m"
SMALL: dict[str, Any] = {"model": MODEL, "kv_tokens": 8_000, "output_mu": 4.0, "output_sigma": 0.3}


def replica_of(engine: ServedSimulator, **more: Any) -> ReplicaSettings:
    return ReplicaSettings(url=engine.url, models=(MODEL,), **more)


def figure(page: str, name: str) -> float:
    """The value of one of our own metrics; of any labels."""
    values = [
        float(line.rpartition(" ")[2])
        for line in page.splitlines()
        if line.startswith((f"{name}{{", f"{name} "))
    ]
    return max(values, default=float("nan"))


async def shows(env: Env, fact: Callable[[str], bool]) -> str:
    """Ask for /metrics until `fact` holds."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            page = (await env.http.get("/metrics")).text
            if fact(page):
                return page
            await asyncio.sleep(0.05)


@asynccontextmanager
async def live_traffic(engine: ServedSimulator, calls: int, tokens: int) -> AsyncIterator[None]:
    """So many calls straight to the engine, each followed by the next."""

    async def user(http: httpx.AsyncClient) -> None:
        while True:
            messages = [{"role": "user", "content": "tide " * 100}]
            body = {"model": MODEL, "messages": messages, "max_tokens": tokens, "ignore_eos": True}
            await http.post("/v1/chat/completions", json=body)

    async with httpx.AsyncClient(base_url=engine.address, timeout=PATIENCE_S) as http:
        users = [asyncio.create_task(user(http)) for _ in range(calls)]
        try:
            yield
        finally:
            for task in users:
                task.cancel()
            await asyncio.gather(*users, return_exceptions=True)


def forget_metrics() -> None:
    """Figures of another test's replica stay in the registry of the process."""
    from lowtide.telemetry import replica_metrics

    for metric in (replica_metrics.WINDOW, replica_metrics.LIVE_CALLS, replica_metrics.LIVE_LOAD):
        metric.clear()


@pytest.fixture(autouse=True)
def _metrics() -> None:
    forget_metrics()


async def test_a_batch_yields_to_live_calls_that_go_past_us_and_recovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LIVE_MEMORY_S", 1.0)  # an hour, until the reserve is used again
    options = ServerOptions(**(SMALL | {"output_mu": 6.0, "kv_tokens": 20_000}))
    async with (
        served(options) as engine,
        open_house(tmp_path, [replica_of(engine)]) as env,
    ):
        batch = await env.start(asks(3_000))
        await shows(env, lambda page: figure(page, "lowtide_replica_window") >= 50)
        async with live_traffic(engine, 30, 300):
            page = await shows(
                env,
                lambda page: (
                    figure(page, "lowtide_replica_window") <= 45
                    and figure(page, "lowtide_replica_live_calls") >= 20
                ),
            )
            assert 0 < figure(page, "lowtide_replica_live_load_ratio") <= 1
            said = await env.until(batch, lambda seen: bool(seen.get("reason")))
            assert "serves live traffic first: live load" in said["reason"]
        await shows(env, lambda page: figure(page, "lowtide_replica_window") >= 50)
        await env.cancel(batch)
        await env.end(batch)


async def test_every_request_is_answered_once_however_often_it_gave_way(tmp_path: Path) -> None:
    tight = SMALL | {"max_num_seqs": 12, "output_mu": 5.0}
    async with (
        served(ServerOptions(**tight, time_scale=4.0)) as engine,
        open_house(tmp_path, [replica_of(engine, window=12)]) as env,
    ):
        batch = await env.start(asks(60))
        async with live_traffic(engine, 6, 60):
            await env.end(batch)
        output, errors = await env.results(batch)
        assert (len(output), errors) == (60, [])


async def test_an_engine_without_metrics_works_with_a_window_of_the_default(tmp_path: Path) -> None:
    async with (
        served(ServerOptions(**SMALL, faults=("no-metrics",), time_scale=4.0)) as engine,
        open_house(tmp_path, [replica_of(engine)]) as env,
    ):
        batch = await env.start(asks(300))
        await env.end(batch)
        output, errors = await env.results(batch)
        assert (len(output), errors) == (300, [])
        page = await shows(env, lambda page: figure(page, "lowtide_replica_polls_missed") == 0)
        assert figure(page, "lowtide_replica_window") <= limits.WINDOW_DEFAULT


async def test_an_engine_whose_metrics_vanish_is_sent_little_until_they_are_back(
    tmp_path: Path,
) -> None:
    async with (
        served(ServerOptions(**SMALL)) as engine,
        open_house(tmp_path, [replica_of(engine, window=40)]) as env,
    ):
        batch = await env.start(asks(2_000))
        await shows(env, lambda page: figure(page, "lowtide_replica_window") >= 30)
        engine.simulator.engine.faults = EngineFaults(("no-metrics",))
        await shows(env, lambda page: figure(page, "lowtide_replica_window") == limits.WINDOW_MIN)
        engine.simulator.engine.faults = EngineFaults()
        await shows(env, lambda page: figure(page, "lowtide_replica_window") >= 30)
        await env.cancel(batch)
        await env.end(batch)


@pytest.mark.parametrize("face", ["vllm", "sglang", "llamacpp"])
async def test_each_kind_of_engine_is_recognised_and_heard(tmp_path: Path, face: Any) -> None:
    options = ServerOptions(**(SMALL | {"face": face, "max_num_seqs": 8}), time_scale=4.0)
    async with (
        served(options) as engine,
        open_house(tmp_path, [replica_of(engine)]) as env,
    ):
        batch = await env.start(asks(100))
        if face == "llamacpp":
            await shows(env, lambda page: 'bound="seats"' in page)
        else:
            await shows(env, lambda page: figure(page, "lowtide_replica_kv_used_ratio") > 0)
        await env.end(batch)
        output, errors = await env.results(batch)
        assert (len(output), errors) == (100, [])
