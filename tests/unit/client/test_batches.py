"""`lowtide.Client` and `lowtide.AsyncClient`: submit, watch, results while running, cancel."""

import asyncio
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from batch_server import ADDRESS, BatchServer

import lowtide
from lowtide.client.stopping import ThreadStop


def request(name: str) -> dict[str, Any]:
    body = {"model": "m", "messages": [{"role": "user", "content": name}]}
    return {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body}


REQUESTS = [request(f"r{n}") for n in range(8)] + [request("bad")]


@pytest.fixture
def client(server: BatchServer) -> lowtide.Client:
    return lowtide.Client(ADDRESS, sleep=server.pause)


@pytest.mark.parametrize("how", ["dicts", "generator", "path", "text"])
def test_requests_are_submitted_from_memory_or_from_a_file(
    how: str, client: lowtide.Client, server: BatchServer, tmp_path: Path
) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in REQUESTS))
    given: dict[str, Any] = {
        "dicts": REQUESTS, "generator": iter(REQUESTS), "path": path, "text": str(path)
    }  # fmt: skip
    batch = client.submit(given[how], metadata={"a": "b"}, completion_window="6h")
    assert (batch.id, batch.status, batch.total, batch.is_over) == (
        "batch_0", "in_progress", 9, False
    )  # fmt: skip
    assert batch.created_at == datetime.fromtimestamp(1_700_000_000, UTC)
    assert batch.metadata == {"a": "b"}
    assert server.batches["batch_0"]["completion_window"] == "6h"
    assert server.files["file-0"] == REQUESTS


def test_results_come_while_the_batch_runs_and_each_comes_once(
    client: lowtide.Client, server: BatchServer
) -> None:
    server.per_beat = 4
    batch = client.submit(REQUESTS)
    states = []
    found = []
    for result in client.results(batch):
        found.append(result)
        states.append(client.get(batch).status)
    assert [result.custom_id for result in found] == [each["custom_id"] for each in REQUESTS]
    assert states[0] == "in_progress"
    assert found[0].text == "re: r0"
    assert (found[0].finish_reason, found[0].tokens, found[0].error) == ("stop", 3, None)
    assert found[0].body is not None and found[0].body["choices"]
    assert found[0].raw["response"]["status_code"] == 200
    assert (found[-1].text, found[-1].error) == (None, "refused: no")
    assert [each.custom_id for each in client.results(batch.id)] == [
        each.custom_id for each in found
    ]


def test_results_go_on_behind_a_connection_that_breaks_within_a_line(
    client: lowtide.Client, server: BatchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = client.submit(REQUESTS)
    server.beat()
    whole, broken = server.handle, []

    class Breaking(Exception):
        pass

    import httpx

    class HalfStream(httpx.SyncByteStream):
        def __init__(self, content: bytes) -> None:
            self.content = content

        def __iter__(self) -> Any:
            yield self.content[: len(self.content) // 2]
            raise httpx.ReadError("broken")

    def handle(asked: httpx.Request) -> httpx.Response:
        answer = whole(asked)
        if asked.url.path.endswith("-output/content") and len(broken) < 3:
            broken.append(asked.url)
            return httpx.Response(200, stream=HalfStream(answer.content))
        return answer

    monkeypatch.setattr(client._client._http._http._transport, "handler", handle)
    found = [result.custom_id for result in client.results(batch)]
    assert sorted(found) == sorted(each["custom_id"] for each in REQUESTS)
    assert len(broken) == 3


def test_lines_that_never_ran_are_results_too(client: lowtide.Client, server: BatchServer) -> None:
    server.per_beat = 4
    batch = client.submit(REQUESTS)
    server.beat()
    cancelled = client.cancel(batch)
    assert (cancelled.status, cancelled.is_over) == ("cancelled", True)
    server.lines["batch_0-errors"] = [
        json.dumps({"custom_id": "r7", "error": {"code": "batch_cancelled"}}).encode() + b"\n"
    ]
    found = list(client.results(batch))
    assert [result.custom_id for result in found] == ["r0", "r1", "r2", "r3", "r7"]
    assert found[-1].error == "batch_cancelled"


def test_watch_gives_each_change_and_wait_the_end(
    client: lowtide.Client, server: BatchServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.per_beat = 4
    batch = client.submit(REQUESTS)
    seen = [(each.completed + each.failed, each.status) for each in client.watch(batch)]
    assert seen == [(0, "in_progress"), (4, "in_progress"), (8, "in_progress"), (9, "completed")]
    assert client.wait(batch).failed == 1
    assert "batch batch_0: completed" in capsys.readouterr().err
    assert client.wait(batch, progress=False).is_over
    assert capsys.readouterr().err == ""


def test_a_batch_that_is_refused_says_why(client: lowtide.Client, server: BatchServer) -> None:
    server.models = ["other"]
    batch = client.wait(client.submit(REQUESTS), progress=False)
    assert batch.status == "failed"
    assert batch.errors[0].code == "model_not_found"
    assert "The model 'm' is not available" in batch.errors[0].message
    assert list(client.results(batch)) == []


def test_lists_and_models(client: lowtide.Client) -> None:
    client.submit(REQUESTS[:1])
    client.submit(REQUESTS[:2])
    assert [batch.total for batch in client.list()] == [2, 1]
    assert client.models() == ("m",)


def test_errors_are_sentences_with_a_code(
    client: lowtide.Client, server: BatchServer, tmp_path: Path
) -> None:
    with pytest.raises(lowtide.Error, match="no nothing") as caught:
        client.get("nothing")
    assert caught.value.code == "not_found"
    with pytest.raises(lowtide.Error, match="no such file"):
        client.submit(tmp_path / "nothing.jsonl")
    with pytest.raises(lowtide.Error, match="is not the id of a batch"):
        client.get("../files")
    with pytest.raises(lowtide.Error, match=re.escape("server='http://:1' is not an address")):
        lowtide.Client("http://:1")
    server.is_dead = True
    with lowtide.Client(ADDRESS) as dead, pytest.raises(lowtide.Error) as caught:
        dead.list()
    assert caught.value.code == "no_server"


async def test_the_asynchronous_client_does_the_same(server: BatchServer) -> None:
    server.per_beat = 4
    async with lowtide.AsyncClient(ADDRESS) as client:
        batch = await client.submit(REQUESTS)
        found = [result.custom_id async for result in client.results(batch)]
        assert found == [each["custom_id"] for each in REQUESTS]
        assert [each.status async for each in client.watch(batch)] == ["completed"]
        assert (await client.wait(batch, progress=False)).completed == 8
        assert (await client.get(batch.id)).failed == 1
        assert len(await client.list()) == 1
        assert await client.models() == ("m",)
        assert (await client.cancel(batch)).status == "cancelled"
        with pytest.raises(lowtide.Error):
            await client.get("nothing")


@pytest.mark.parametrize("how", ["wait", "results"])
async def test_an_asynchronous_wait_that_is_cancelled_ends_at_once(
    how: str, server: BatchServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, reached = asyncio.get_running_loop(), asyncio.Event()

    def pause(stop: ThreadStop, _seconds: float) -> None:
        loop.call_soon_threadsafe(reached.set)
        if stop._asked.wait():
            raise KeyboardInterrupt

    monkeypatch.setattr(ThreadStop, "pause", pause)
    async with lowtide.AsyncClient(ADDRESS) as client:
        batch = await client.submit(REQUESTS)

        async def work() -> None:
            if how == "wait":
                await client.wait(batch, progress=False)
            async for _ in client.results(batch):
                pass

        task = asyncio.create_task(work())
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
