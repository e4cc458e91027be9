"""The HTTP face of the simulated engine, with the clients that people and Lowtide use."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI

from lowtide.core.faults.outcome import NoReply, Reply
from lowtide.engine_sim.http.options import ServerOptions
from lowtide.engine_sim.http.serving import ServedSimulator, served
from lowtide.engine_sim.http.tokenizer import count_chat, count_text
from lowtide.engines.http.client import HttpEngine
from testkit.patience import PATIENCE_S

FAST = 50.0
MODEL = "sim"
ASK = [{"role": "user", "content": "How low does the tide go? " * 10}]


def options(**fields: Any) -> ServerOptions:
    given: dict[str, Any] = {"time_scale": FAST, "model": MODEL} | fields
    return ServerOptions(**given)


def client(engine: ServedSimulator) -> Any:
    """An AsyncOpenAI; Any, as its overloads do not take keyword arguments from a dict."""
    return AsyncOpenAI(base_url=engine.url, api_key="none", max_retries=0)


async def chat(engine: ServedSimulator, **fields: Any) -> Any:
    asked = {"model": MODEL, "messages": ASK, "max_tokens": 12} | fields
    async with client(engine) as ai:
        return await ai.chat.completions.create(**asked)


@asynccontextmanager
async def streamed(engine: ServedSimulator, **fields: Any) -> AsyncIterator[Any]:
    asked = {"model": MODEL, "messages": ASK, "stream": True} | fields
    async with client(engine) as ai, await ai.chat.completions.create(**asked) as stream:
        yield stream


async def get(engine: ServedSimulator, path: str, status: int = 200) -> httpx.Response:
    async with httpx.AsyncClient(base_url=engine.address, timeout=PATIENCE_S) as http:
        response = await http.get(path)
    assert response.status_code == status, response.text
    return response


async def metrics(engine: ServedSimulator) -> dict[str, float]:
    """By name with the labels; histograms' buckets included."""
    lines = (await get(engine, "/metrics")).text.splitlines()
    return {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in lines
        if not line.startswith("#")
    }


async def until(engine: ServedSimulator, *, running: int = 0, waiting: int = 0) -> None:
    """Until the engine has so many requests; bounded."""
    async with asyncio.timeout(PATIENCE_S):
        sim = engine.simulator.engine.engine
        while (sim.running, sim.waiting) != (running, waiting):  # noqa: ASYNC110
            await asyncio.sleep(0.002)


async def test_a_chat_has_as_many_tokens_as_asked_and_as_counted() -> None:
    async with served(options()) as engine:
        answer = await chat(engine)
        assert answer.usage.completion_tokens == 12
        assert answer.usage.prompt_tokens == count_chat(ASK)
        assert count_text(answer.choices[0].message.content) == 12
        assert answer.choices[0].finish_reason == "length"
        again = await chat(engine)
        assert again.choices[0].message.content == answer.choices[0].message.content
        cached = again.usage.prompt_tokens_details.cached_tokens
        assert cached == (answer.usage.prompt_tokens - 1) // 16 * 16


async def test_a_next_turn_finds_the_answer_of_the_one_before_in_the_cache() -> None:
    async with served(options()) as engine:
        first = await chat(engine, max_tokens=100)
        turns = [
            *ASK,
            {"role": "assistant", "content": first.choices[0].message.content},
            {"role": "user", "content": "And then?"},
        ]
        second = await chat(engine, messages=turns)
        cached = second.usage.prompt_tokens_details.cached_tokens
        assert cached > first.usage.prompt_tokens
        assert cached == (first.usage.total_tokens - 1) // 16 * 16


async def test_a_stream_is_the_answer_in_pieces_and_ends_with_its_usage() -> None:
    async with served(options(time_scale=1.0)) as engine:
        whole = await chat(engine, max_tokens=40)
        usage = {"include_usage": True}
        async with streamed(engine, max_tokens=40, stream_options=usage) as stream:
            chunks = [chunk async for chunk in stream]
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        assert text == whole.choices[0].message.content
        assert len(chunks) > 20
        assert chunks[-1].choices == []
        assert chunks[-1].usage.completion_tokens == 40
        assert chunks[-1].usage.prompt_tokens_details.cached_tokens > 0
        assert chunks[-2].choices[0].finish_reason == "length"


async def test_all_endpoints_answer_the_openai_client() -> None:
    async with served(options()) as engine, client(engine) as ai:
        completion = await ai.completions.create(model=MODEL, prompt=["a b", "c d"], max_tokens=3)
        assert [choice.index for choice in completion.choices] == [0, 1]
        vectors = await ai.embeddings.create(model=MODEL, input=["one", "two", "one"])
        assert vectors.data[0].embedding == vectors.data[2].embedding
        assert vectors.data[0].embedding != vectors.data[1].embedding
        response = await ai.responses.create(model=MODEL, input="hello", max_output_tokens=9)
        assert response.usage is not None
        assert response.usage.output_tokens == 9
        stream = await ai.responses.create(
            model=MODEL, input="hello", max_output_tokens=9, stream=True
        )
        text = ""
        async for event in stream:
            if event.type == "response.output_text.delta":
                text += event.delta
            elif event.type == "response.completed":
                assert event.response.output_text == text == response.output_text
        assert [model.id async for model in ai.models.list()] == [MODEL]


async def test_lengths_come_from_the_header_or_are_drawn_from_the_seed() -> None:
    async with served(options()) as engine:
        reported = await chat(engine, extra_headers={"x-sim-output-tokens": "7"}, max_tokens=50)
        assert reported.usage.completion_tokens == 7
        assert reported.choices[0].finish_reason == "stop"
        cut = await chat(engine, extra_headers={"x-sim-output-tokens": "70"}, max_tokens=50)
        assert (cut.usage.completion_tokens, cut.choices[0].finish_reason) == (50, "length")
        drawn = await chat(engine, max_tokens=None)
        same = await chat(engine, max_tokens=None)
        assert drawn.usage.completion_tokens == same.usage.completion_tokens


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"model": "another"}, 404),
        ({"messages": []}, 400),
        ({"max_tokens": 0}, 400),
        ({"max_tokens": 10**9}, 400),
        ({"n": 1000}, 400),
    ],
)
async def test_what_cannot_be_served_is_refused(fields: dict[str, Any], status: int) -> None:
    async with served(options()) as engine:
        with pytest.raises(openai.APIStatusError) as refused:
            await chat(engine, **fields)
        assert refused.value.status_code == status


async def test_lowtides_own_client_works_with_it() -> None:
    async with served(options()) as engine:
        ours = HttpEngine(engine.url)
        body = json.dumps({"model": MODEL, "messages": ASK, "max_tokens": 5}).encode()
        answer = await ours.post("/chat/completions", body, 10.0)
        assert isinstance(answer, Reply)
        assert answer.status == 200
        assert json.loads(answer.body)["usage"]["completion_tokens"] == 5
        models = await ours.get("/models", 10.0)
        assert isinstance(models, Reply)
        await ours.aclose()


async def test_a_client_that_goes_away_stops_its_request() -> None:
    async with served(options(time_scale=1.0)) as engine:
        whole = asyncio.create_task(chat(engine, max_tokens=5000))
        await until(engine, running=1)
        whole.cancel()
        await until(engine)
        async with streamed(engine, max_tokens=5000) as stream:
            await anext(aiter(stream))
            await until(engine, running=1)
        await until(engine)
        assert engine.simulator.engine.engine.counters.aborted == 2


async def test_metrics_have_vllms_names_and_count() -> None:
    async with served(options()) as engine:
        await asyncio.gather(*(chat(engine, max_tokens=30) for _ in range(4)))
        found = await metrics(engine)
        labels = '{engine="0",model_name="sim"}'
        assert found["vllm:generation_tokens_total" + labels] == 120
        assert found["vllm:prompt_tokens_total" + labels] == 4 * count_chat(ASK)
        assert found["vllm:num_requests_running" + labels] == 0
        assert found["vllm:num_preemptions_total" + labels] == 0
        assert found["vllm:time_to_first_token_seconds_count" + labels] == 4
        assert found["vllm:inter_token_latency_seconds_count" + labels] == 4 * 29
        assert found["vllm:e2e_request_latency_seconds_count" + labels] == 4
        edge = 'vllm:inter_token_latency_seconds_bucket{engine="0",model_name="sim",le="0.025"}'
        assert found[edge] > 0
        config = next(name for name in found if name.startswith("vllm:cache_config_info"))
        assert 'num_gpu_blocks="26875"' in config
        assert 'block_size="16"' in config


async def order_of_ends(engine: ServedSimulator, asks: dict[str, dict[str, Any]]) -> list[str]:
    """All wait before the engine looks at the first of them."""
    engine.simulator.engine.sleep(1)
    ended: list[str] = []

    async def ask(name: str, fields: dict[str, Any]) -> None:
        await chat(engine, **fields)
        ended.append(name)

    tasks = []
    for waiting, (name, fields) in enumerate(asks.items(), 1):
        tasks.append(asyncio.create_task(ask(name, fields)))
        await until(engine, waiting=waiting)
    await engine.simulator.engine.wake(0.0)
    await asyncio.gather(*tasks)
    return ended


async def test_priority_decides_who_runs_next_and_the_header_wins() -> None:
    asks: dict[str, dict[str, Any]] = {
        "batch": {"extra_body": {"priority": 100}},
        "nonsense": {"extra_headers": {"X-Vllm-Priority": "high"}},
        "header": {"extra_body": {"priority": 50}, "extra_headers": {"X-Vllm-Priority": "-1"}},
    }
    lone = options(max_num_seqs=1, scheduling_policy="priority", time_scale=5.0)
    async with served(lone) as engine:
        assert await order_of_ends(engine, asks) == ["header", "nonsense", "batch"]
    first_come = options(max_num_seqs=1, time_scale=5.0)
    async with served(first_come) as engine:
        assert await order_of_ends(engine, asks) == ["batch", "nonsense", "header"]


async def test_more_than_the_bound_of_waiting_requests_are_refused() -> None:
    lone = options(max_num_seqs=1, max_num_queued_reqs=1, time_scale=1.0)
    async with served(lone) as engine:
        tasks = [asyncio.create_task(chat(engine, max_tokens=3000))]
        await until(engine, running=1)
        tasks.append(asyncio.create_task(chat(engine, max_tokens=3000)))
        await until(engine, running=1, waiting=1)
        with pytest.raises(openai.InternalServerError) as refused:
            await chat(engine)
        assert refused.value.status_code == 503
        found = await metrics(engine)
        assert found['vllm:admission_rejections_total{engine="0",model_name="sim"}'] == 1
        for task in tasks:
            task.cancel()
        await until(engine)


async def test_sleep_loses_what_runs_and_waking_lets_work_go_on() -> None:
    async with (
        served(options(faults=("wake=1",))) as engine,
        httpx.AsyncClient(base_url=engine.address, timeout=PATIENCE_S) as http,
    ):
        assert (await http.post("/sleep?level=2")).status_code == 200
        assert (await http.get("/is_sleeping")).json() == {"is_sleeping": True}
        waits = asyncio.create_task(chat(engine))
        await until(engine, waiting=1)
        state = 'vllm:engine_sleep_state{engine="0",model_name="sim",sleep_state="discard_all"}'
        assert (await metrics(engine))[state] == 1
        assert (await http.post("/wake_up")).status_code == 200
        assert (await waits).usage.completion_tokens == 12
        assert (await http.get("/is_sleeping")).json() == {"is_sleeping": False}


async def test_other_endpoints_say_what_vllm_says() -> None:
    async with served(options()) as engine:
        assert (await get(engine, "/version")).json() == {"version": "0.33.0"}
        assert (await get(engine, "/health")).content == b""
        load = (await get(engine, "/load")).json()
        assert load["server_load"] == 0
        assert load["lateness"]["steps"] == 0
        async with httpx.AsyncClient(base_url=engine.address, timeout=PATIENCE_S) as http:
            counted = await http.post("/tokenize", json={"model": MODEL, "messages": ASK})
        assert counted.json()["count"] == count_chat(ASK)


async def test_a_burst_of_refusals_is_as_told() -> None:
    async with served(options(faults=("429+20",))) as engine:
        with pytest.raises(openai.RateLimitError):
            await chat(engine)
    async with served(options(faults=("503",))) as engine:
        with pytest.raises(openai.InternalServerError):
            await chat(engine)


async def test_a_crash_breaks_connections_and_the_engine_comes_back() -> None:
    async with served(options(faults=("crash@20+20",), time_scale=50.0)) as engine:
        ours = HttpEngine(engine.url)
        long = json.dumps({"model": MODEL, "messages": ASK, "max_tokens": 9000}).encode()
        assert isinstance(await ours.post("/chat/completions", long, 10.0), NoReply)
        assert isinstance(await ours.get("/models", 10.0), NoReply)
        async with asyncio.timeout(PATIENCE_S):
            while isinstance(await ours.get("/models", 10.0), NoReply):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        await ours.aclose()
        assert (await chat(engine)).usage.prompt_tokens_details.cached_tokens == 0


async def test_a_truncated_stream_ends_without_its_end() -> None:
    async with served(options(faults=("truncate=1",))) as engine:
        received = 0
        async with streamed(engine, max_tokens=100) as stream:
            with pytest.raises(openai.APIConnectionError):
                async for _ in stream:
                    received += 1
        assert 0 < received < 100


async def test_a_hanging_engine_answers_nothing_until_it_is_over() -> None:
    async with served(options(faults=("hang+25",))) as engine:
        answer = await chat(engine)
        assert answer.usage.completion_tokens == 12
        assert engine.simulator.engine.now() > 25


async def test_metrics_can_be_stale_or_missing() -> None:
    async with served(options(faults=("stale-metrics",))) as engine:
        before = (await get(engine, "/metrics")).text
        await chat(engine)
        assert (await get(engine, "/metrics")).text == before
    async with served(options(faults=("no-metrics",))) as engine:
        await get(engine, "/metrics", 404)


async def test_a_slow_engine_takes_its_multiple() -> None:
    async def virtual_s(*faults: str) -> float:
        async with served(options(faults=faults)) as engine:
            await chat(engine, max_tokens=100)
            return engine.simulator.engine.engine.counters.busy_s

    assert await virtual_s("slow=3") == pytest.approx(3 * await virtual_s(), rel=0.01)


async def test_sglangs_face_has_its_metrics_and_its_sign_of_priorities() -> None:
    lone = options(face="sglang", max_num_seqs=1, scheduling_policy="priority", time_scale=5.0)
    async with served(lone) as engine:
        asks: dict[str, dict[str, Any]] = {
            str(n): {"extra_body": {"priority": n}} for n in (1, 9, 5)
        }
        asks["none"] = {}
        assert await order_of_ends(engine, asks) == ["9", "5", "1", "none"]
        found = await metrics(engine)
        assert found['sglang:num_running_reqs{model_name="sim"}'] == 0
        assert found['sglang:generation_tokens_total{model_name="sim"}'] == 48
        await get(engine, "/version", 404)


async def test_llamacpps_face_has_slots_and_says_nothing_of_its_cache() -> None:
    async with served(options(face="llamacpp", max_num_seqs=2, time_scale=1.0)) as engine:
        props = (await get(engine, "/props")).json()
        assert props["total_slots"] == 2
        tasks = [asyncio.create_task(chat(engine, max_tokens=3000)) for _ in range(3)]
        await until(engine, running=2, waiting=1)
        slots = (await get(engine, "/slots")).json()
        assert [slot["is_processing"] for slot in slots] == [True, True]
        await get(engine, "/slots?fail_on_no_slot=1", 503)
        found = await metrics(engine)
        assert found["llamacpp:requests_processing"] == 2
        assert found["llamacpp:requests_deferred"] == 1
        assert not any("kv" in name for name in found)
        for task in tasks:
            task.cancel()
        await until(engine)
