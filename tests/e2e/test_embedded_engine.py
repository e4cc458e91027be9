"""The embedded engine as it is: a real llama.cpp in a child process, serving the random model."""

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from lowtide import limits
from lowtide.engines.embedded.engine import EmbeddedEngine, EngineStartError
from lowtide.engines.models.random_model import CONTEXT_TOKENS, random_model
from testkit.patience import PATIENCE_S

LONG = CONTEXT_TOKENS - 100

Body = dict[str, Any]


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_model(tmp_path_factory.mktemp("model") / "random.gguf")


@pytest.fixture
async def engine(model_path: Path, tmp_path: Path) -> AsyncIterator[EmbeddedEngine]:
    engine = EmbeddedEngine(
        model_path, model_id="random", log_path=tmp_path / "engine.log", context=CONTEXT_TOKENS
    )
    await engine.start()
    yield engine
    await engine.aclose()


@pytest.fixture
async def http(engine: EmbeddedEngine) -> AsyncIterator[httpx.AsyncClient]:
    limit = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(
        base_url=engine.url, timeout=PATIENCE_S, limits=limit, trust_env=False
    ) as client:
        yield client


def chat(text: str, **fields: object) -> Body:
    return {"model": "random", "messages": [{"role": "user", "content": text}], **fields}


def command_line_of(pid: int) -> bytes:
    """As every user of the machine sees it; empty where the system does not show it as a file."""
    path = Path(f"/proc/{pid}/cmdline")
    return path.read_bytes() if path.exists() else b""


async def answer(http: httpx.AsyncClient, path: str, body: Body) -> Body:
    reply = await http.post(path, json=body)
    assert reply.status_code == 200, reply.text
    parsed: Body = json.loads(reply.content.decode("utf-8", errors="strict"))
    return parsed


async def serves(http: httpx.AsyncClient) -> bool:
    """Whether a child answers now."""
    try:
        return (await http.get("/models")).status_code == 200
    except httpx.TransportError:
        return False


def wait_gone(pid: int) -> None:
    """Wait until process `pid`, child of anyone, has ended."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended, _, _ = select.select([handle], [], [], PATIENCE_S)
    os.close(handle)
    assert ended, f"process {pid} still runs"


# ---- what it serves ----


async def test_a_chat_is_answered_with_text_and_counts(http: httpx.AsyncClient) -> None:
    reply = await answer(http, "/chat/completions", chat("Hello é 世界", max_tokens=40))
    text = reply["choices"][0]["message"]["content"]
    assert text.isascii() and text.isprintable()
    usage = reply["usage"]
    assert 1 <= usage["completion_tokens"] <= 40
    assert usage["prompt_tokens"] == len("Hello é 世界".encode()) + 4  # and begin, role, end, role
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


async def test_max_tokens_ends_an_answer_with_its_reason(http: httpx.AsyncClient) -> None:
    body = chat("go on", max_tokens=7, ignore_eos=True)
    reply = await answer(http, "/chat/completions", body)
    assert reply["usage"]["completion_tokens"] == 7
    assert len(reply["choices"][0]["message"]["content"]) <= 7
    assert reply["choices"][0]["finish_reason"] == "length"


async def test_an_answer_without_max_tokens_ends_by_itself(http: httpx.AsyncClient) -> None:
    replies = [await answer(http, "/chat/completions", chat("hi", seed=n)) for n in range(5)]
    assert {reply["choices"][0]["finish_reason"] for reply in replies} == {"stop"}


async def test_even_extreme_sampling_gives_printable_text(http: httpx.AsyncClient) -> None:
    wild = {"temperature": 2.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "max_tokens": 500}
    reply = await answer(http, "/chat/completions", chat("hi", ignore_eos=True, **wild))
    text = reply["choices"][0]["message"]["content"]
    assert len(text) > 400
    assert text.isascii() and text.isprintable()


async def test_bytes_that_are_no_text_still_make_valid_json(http: httpx.AsyncClient) -> None:
    forced = chat("hi", max_tokens=8, logit_bias={"255": 200})
    reply = await answer(http, "/chat/completions", forced)
    assert "\ufffd" in reply["choices"][0]["message"]["content"]


async def test_the_same_seed_gives_the_same_text_and_prompts_differ(
    http: httpx.AsyncClient,
) -> None:
    async def text(prompt: str) -> str:
        body = chat(prompt, max_tokens=60, ignore_eos=True, seed=7, cache_prompt=False)
        reply = await answer(http, "/chat/completions", body)
        return str(reply["choices"][0]["message"]["content"])

    assert await text("one") == await text("one") != await text("two")


async def test_completions_embeddings_and_responses_are_served_by_the_same_engine(
    http: httpx.AsyncClient,
) -> None:
    completion = await answer(http, "/completions", {"prompt": "Once", "max_tokens": 5})
    assert completion["usage"]["prompt_tokens"] == 5
    embedding = await answer(http, "/embeddings", {"input": ["a", "b" * 1500]})
    assert [len(row["embedding"]) for row in embedding["data"]] == [64, 64]
    assert embedding["usage"]["prompt_tokens"] == 1503
    response = await answer(http, "/responses", {"input": "hello", "max_output_tokens": 9})
    assert response["usage"]["output_tokens"] <= 9


@pytest.mark.parametrize("name", ["random", "meta-llama/Llama-3.3-70B", "any thing: at all"])
async def test_the_model_that_a_request_names_is_not_looked_at(
    http: httpx.AsyncClient, name: str
) -> None:
    await answer(http, "/chat/completions", chat("hi", max_tokens=2) | {"model": name})


async def test_a_model_without_embeddings_says_so(model_path: Path, tmp_path: Path) -> None:
    engine = EmbeddedEngine(
        model_path, model_id="m", log_path=tmp_path / "engine.log", embeddings=False
    )
    url = await engine.start()
    try:
        async with httpx.AsyncClient(timeout=PATIENCE_S, trust_env=False) as http:
            reply = await http.post(url + "/embeddings", json={"input": "a"})
            listed = (await http.get(url + "/models")).json()
    finally:
        await engine.aclose()
    assert reply.status_code == 501
    assert "does not support embeddings" in reply.json()["error"]["message"]
    assert [model["id"] for model in listed["data"]] == ["m"]


async def test_a_prompt_longer_than_a_slot_is_refused_and_a_long_one_is_not(
    http: httpx.AsyncClient,
) -> None:
    long = await answer(http, "/chat/completions", chat("x" * (LONG - 100), max_tokens=2))
    assert long["usage"]["prompt_tokens"] > limits.EMBEDDED_EMBEDDING_TOKENS
    reply = await http.post("/chat/completions", json=chat("x" * CONTEXT_TOKENS))
    assert reply.status_code == 400
    assert reply.json()["error"]["type"] == "exceed_context_size_error"


async def test_health_and_metrics_are_there(engine: EmbeddedEngine) -> None:
    root = engine.url.removesuffix("/v1")
    async with httpx.AsyncClient(timeout=PATIENCE_S, trust_env=False) as http:
        assert (await http.get(root + "/health")).json() == {"status": "ok"}
        metrics = (await http.get(root + "/metrics")).text
    assert "llamacpp:requests_processing" in metrics


async def test_with_a_key_others_on_this_machine_cannot_call_it(
    model_path: Path, tmp_path: Path
) -> None:
    engine = EmbeddedEngine(
        model_path, model_id="random", log_path=tmp_path / "engine.log", api_key="k" * 40
    )
    await engine.start()
    try:
        async with httpx.AsyncClient(
            base_url=engine.url, timeout=PATIENCE_S, trust_env=False
        ) as client:
            refused = await client.post("/chat/completions", json=chat("x", max_tokens=1))
            assert refused.status_code == 401
            key = {"authorization": f"Bearer {'k' * 40}"}
            ours = await client.post("/chat/completions", json=chat("x", max_tokens=1), headers=key)
            assert ours.status_code == 200
        assert engine.pid is not None
        assert b"k" * 40 not in command_line_of(engine.pid)
    finally:
        await engine.aclose()


# ---- many at once ----


async def test_more_requests_than_slots_all_complete(http: httpx.AsyncClient) -> None:
    bodies = [chat(f"number {n}", max_tokens=16, ignore_eos=True) for n in range(32)]
    replies = await asyncio.gather(*(answer(http, "/chat/completions", b) for b in bodies))
    assert [reply["usage"]["completion_tokens"] for reply in replies] == [16] * 32


async def post_and_keep(
    url: httpx.URL, body: Body, times: int, kept: list[asyncio.StreamWriter]
) -> list[bytes]:
    """The same call, again and again on one connection that stays open in `kept`.

    By hand, because httpx takes longer than the engine.
    """
    reader, writer = await asyncio.open_connection(url.host, url.port)
    kept.append(writer)
    payload = json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(payload)}\r\n\r\n"
    replies = []
    for _ in range(times):
        writer.write(head.encode() + payload)
        answered = await reader.readuntil(b"\r\n\r\n")
        length = answered.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        replies.append(await reader.readexactly(int(length)))
    return replies


async def test_a_burst_of_kept_alive_connections_does_not_stall(engine: EmbeddedEngine) -> None:
    url = httpx.URL(engine.url)
    body = {"prompt": "hello", "max_tokens": 8, "ignore_eos": True}
    began = time.monotonic()
    kept: list[asyncio.StreamWriter] = []
    calls = (post_and_keep(url, body, 3, kept) for _ in range(96))
    replies = await asyncio.wait_for(asyncio.gather(*calls), PATIENCE_S)
    assert all(b'"completion_tokens":8' in reply for row in replies for reply in row)
    # An idle connection holds one of the server's threads for five seconds. With llama.cpp's own
    # number of threads this takes from 5 to 36 seconds, with ours less than one.
    assert time.monotonic() - began < 5
    for writer in kept:
        writer.close()


async def test_closing_a_connection_frees_its_slot(
    engine: EmbeddedEngine, http: httpx.AsyncClient
) -> None:
    async def slots() -> list[Body]:
        reply = await http.get(engine.url.removesuffix("/v1") + "/slots")
        return list(reply.json())

    body = chat("forever", max_tokens=LONG - 100, ignore_eos=True)
    calls = [
        asyncio.create_task(http.post("/chat/completions", json=body))
        for _ in range(limits.EMBEDDED_SLOTS)
    ]
    async with asyncio.timeout(PATIENCE_S):
        while not all(slot["is_processing"] for slot in await slots()):
            pass
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    # All slots were taken: this one waits for the first that is freed. Nothing is asked meanwhile,
    # because llama.cpp looks for closed connections only after a second without any result.
    assert await answer(http, "/chat/completions", chat("hi", max_tokens=2))
    decoded = [slot["next_token"][0]["n_decoded"] for slot in await slots()]
    assert max(decoded) < LONG - 100  # stopped, not run to its end


# ---- life and death ----


async def test_a_killed_child_is_replaced_at_the_same_url(
    engine: EmbeddedEngine, http: httpx.AsyncClient
) -> None:
    url, first = engine.url, engine.pid
    long = chat("hi", max_tokens=LONG - 100, ignore_eos=True)
    for _ in range(2):
        running = asyncio.create_task(http.post("/chat/completions", json=long))
        pid = engine.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(httpx.TransportError):
            await running
        async with asyncio.timeout(PATIENCE_S):
            while not await serves(http) or engine.pid == pid:
                pass
        assert await answer(http, "/chat/completions", chat("hi", max_tokens=2))
    assert engine.url == url
    assert engine.pid != first


async def test_closing_ends_the_child_and_a_second_close_does_nothing(
    engine: EmbeddedEngine,
) -> None:
    pid = engine.pid
    assert pid is not None
    await engine.aclose()
    wait_gone(pid)
    assert engine.pid is None
    await engine.aclose()


@pytest.fixture
def truncated_path(model_path: Path, tmp_path: Path) -> Path:
    path = tmp_path / "cut.gguf"
    path.write_bytes(model_path.read_bytes()[:200_000])
    return path


async def test_a_truncated_model_is_refused_quickly_with_the_reason(
    truncated_path: Path, tmp_path: Path
) -> None:
    engine = EmbeddedEngine(truncated_path, model_id="cut", log_path=tmp_path / "engine.log")
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(EngineStartError) as caught:
            await engine.start()
    error = caught.value
    assert error.code == "model_refused"
    assert str(truncated_path) in error.message
    assert "corrupted or incomplete" in error.message
    assert str(error.log_path) in error.message
    assert "corrupted or incomplete" in error.log_path.read_text()
    assert "Traceback" not in error.log_path.read_text()
    assert engine.pid is None


async def test_a_start_that_is_cancelled_leaves_nothing_running(
    model_path: Path, tmp_path: Path
) -> None:
    engine = EmbeddedEngine(model_path, model_id="m", log_path=tmp_path / "engine.log")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await engine.start()
    assert engine.pid is None


PARENT = """
import asyncio, signal, sys
from pathlib import Path
from lowtide.engines.embedded.engine import EmbeddedEngine

async def main():
    engine = EmbeddedEngine(Path(sys.argv[1]), model_id="random", log_path=Path(sys.argv[2]))
    interrupted = asyncio.Event()
    # As the command does: the handler of asyncio.run may run only when something else wakes the
    # loop, if the signal comes at the instant at which the loop falls asleep.
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupted.set)
    await engine.start()
    print(engine.pid, flush=True)
    await interrupted.wait()
    await engine.aclose()
    print("bye", flush=True)

asyncio.run(main())
"""


@pytest.fixture
def parent(model_path: Path, tmp_path: Path) -> subprocess.Popen[str]:
    """A program with an embedded engine, leader of its own process group like one in a terminal."""
    return subprocess.Popen(
        [sys.executable, "-c", PARENT, str(model_path), str(tmp_path / "engine.log")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_a_child_does_not_outlive_a_parent_that_is_killed(parent: subprocess.Popen[str]) -> None:
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.communicate(timeout=PATIENCE_S)
    wait_gone(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a death signal")
def test_even_a_child_that_cannot_run_python_dies_with_its_parent(
    parent: subprocess.Popen[str],
) -> None:
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    os.kill(pid, signal.SIGSTOP)  # like a child that loads a model, holding the GIL
    parent.kill()
    parent.communicate(timeout=PATIENCE_S)
    wait_gone(pid)


def test_ctrl_c_ends_both_without_a_word_from_the_child(
    parent: subprocess.Popen[str], tmp_path: Path
) -> None:
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    os.kill(pid, signal.SIGINT)  # even when it does reach the child
    os.killpg(parent.pid, signal.SIGINT)
    out, err = parent.communicate(timeout=PATIENCE_S)
    wait_gone(pid)
    assert (out, err) == ("bye\n", "")
    assert "Traceback" not in (tmp_path / "engine.log").read_text()
