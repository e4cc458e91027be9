"""A batch from upload to results, through everything that can happen to it on the way."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from product_env import (
    Env,
    RuledEngine,
    ShiftedClock,
    ask,
    asks,
    open_house,
    parsed,
    place_of,
    replica,
)

from lowtide import limits
from lowtide.blobs.url import open_blobs
from lowtide.config import LimitSettings
from lowtide.ports.blobs import BlobsFull
from lowtide.wiring import application
from testkit.faults import Faulty, faulty_blobs
from testkit.patience import PATIENCE_S
from testkit.scripted_engine import Answer, Cut, chunked, completion, reply, throttled

pytestmark = pytest.mark.usefixtures("full_window")

HANG: Answer = (Cut.HANG,)
HALVINGS = 3
"""Companies of 8, 4 and 2 calls, until the one that an engine dies of runs alone."""

REFUSAL: Answer = (reply({"error": {"message": "too long", "type": "invalid_request_error"}}, 400),)


@pytest.fixture
async def engine() -> AsyncIterator[RuledEngine]:
    async with RuledEngine() as running:
        yield running


@pytest.fixture
async def env(tmp_path: Path, engine: RuledEngine) -> AsyncIterator[Env]:
    async with open_house(tmp_path, [replica(engine)]) as opened:
        yield opened


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> list[Faulty]:
    """The object store of the next node, with faults at hand."""
    made: list[Faulty] = []

    def opened(*args: Any, **named: Any) -> Any:
        made.append(faulty_blobs(open_blobs(*args, **named)))
        return made[-1]

    monkeypatch.setattr(application, "open_blobs", opened)
    return made


def texts(lines: list[dict[str, Any]]) -> list[str]:
    return [line["response"]["body"]["choices"][0]["message"]["content"] for line in lines]


# ---- good and bad lines ----


async def test_successes_and_refusals_go_to_their_files_in_input_order(
    env: Env, engine: RuledEngine
) -> None:
    engine.rule = lambda text, _: REFUSAL if int(text[1:]) % 10 == 0 else None
    batch = await env.end(await env.start(asks(300)))
    assert batch["status"] == "completed"
    output, errors = await env.results(batch)
    assert [place_of(line) for line in errors] == list(range(10, 301, 10))
    assert texts(output) == [f"re: q{place_of(line)}" for line in output]
    assert {line["response"]["status_code"] for line in errors} == {400}
    assert {line["response"]["body"]["error"]["message"] for line in errors} == {"too long"}
    assert batch["usage"]["total_tokens"] == 270 * 7
    assert max(engine.asked.values()) == 1


async def test_a_batch_whose_lines_all_fail_completes_without_an_output_file(
    env: Env, engine: RuledEngine
) -> None:
    engine.rule = lambda *_: REFUSAL
    batch = await env.end(await env.start(asks(5)))
    assert (batch["status"], batch["output_file_id"]) == ("completed", None)
    _, errors = await env.results(batch)
    assert len(errors) == 5


async def test_a_file_with_a_bad_line_fails_and_no_engine_is_asked(
    env: Env, engine: RuledEngine
) -> None:
    batch = await env.end(await env.start([ask(1), "{not json", ask(3)]))
    assert batch["status"] == "failed"
    assert [error["line"] for error in batch["errors"]["data"]] == [2]
    assert not engine.requests


@pytest.mark.parametrize(
    ("endpoint", "answer"),
    [
        ("/v1/completions", {"object": "text_completion", "choices": [{"text": "so"}]}),
        ("/v1/embeddings", {"object": "list", "data": [{"embedding": [0.1, -2e-7]}]}),
        ("/v1/responses", {"object": "response", "output": [{"type": "message"}]}),
    ],
)
async def test_every_endpoint_reaches_its_path_and_its_answer_comes_back_whole(
    env: Env, engine: RuledEngine, endpoint: str, answer: dict[str, Any]
) -> None:
    engine.rule = lambda *_: (reply(answer),)
    batch = await env.end(await env.start(asks(20, url=endpoint), endpoint))
    output, errors = await env.results(batch)
    assert ([line["response"]["body"] for line in output], errors) == ([answer] * 20, [])
    assert {request.path for request in engine.requests} == {endpoint}


async def test_answers_in_any_script_layout_and_encoding_become_one_line_each(
    env: Env, engine: RuledEngine
) -> None:
    odd = 'Zürich 東京 🌊 \u2028\u2029\x85\x0c "quoted" \\ back\tslash\n'
    body = completion(odd)
    pretty = json.dumps(body, indent=4, ensure_ascii=False).encode()
    engine.rule = lambda text, _: {
        "q1": (reply(pretty),),
        "q2": (chunked([pretty[:7], pretty[7:100], pretty[100:]]),),
        "q3": (reply(json.dumps(body).encode().replace(b"\\\\", b"\\u005c")),),
        "q4": (reply(json.dumps(body, indent=2).replace("\n", "\r\n").encode()),),
    }[text]
    batch = await env.end(await env.start(asks(4)))
    output, _ = await env.results(batch)
    assert texts(output) == [odd] * 4


async def test_prompts_of_any_script_reach_the_engine_byte_for_byte(
    env: Env, engine: RuledEngine
) -> None:
    odd = "Zürich 東京 🌊 \u2028 \\u0000 1e400"
    line = json.dumps(ask(1, odd), ensure_ascii=False)
    await env.end(await env.start([line]))
    assert list(engine.asked) == [odd]


async def test_models_of_one_file_go_to_their_own_replicas(tmp_path: Path) -> None:
    async with (
        RuledEngine() as a,
        RuledEngine() as b,
        open_house(tmp_path, [replica(a, "a"), replica(b, "b")]) as env,
    ):
        lines = [ask(n, model="ab"[n % 2]) for n in range(1, 301)]
        batch = await env.end(await env.start(lines))
        output, errors = await env.results(batch)
        assert (len(output), len(errors)) == (300, 0)
        assert (len(a.requests), len(b.requests)) == (150, 150)
        assert all(json.loads(request.body)["model"] == "a" for request in a.requests)


async def test_a_batch_of_one_line_waits_for_no_poll(
    tmp_path: Path, engine: RuledEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "IDLE_POLL_S", 3600.0)
    async with open_house(tmp_path, [replica(engine)]) as env:
        batch = await env.end(await env.start(asks(1)))
    assert batch["status"] == "completed"


# ---- engines that are not well ----


async def test_a_full_engine_is_waited_for_and_costs_no_line(env: Env, engine: RuledEngine) -> None:
    engine.rule = lambda text, before: (throttled("1"),) if not before and text == "q1" else None
    begun = time.monotonic()
    batch = await env.end(await env.start(asks(20)))
    output, _ = await env.results(batch)
    assert len(output) == 20
    assert time.monotonic() - begun >= 1.0
    assert engine.asked["q1"] == 2


async def test_a_line_that_fails_now_and_then_is_tried_again(env: Env, engine: RuledEngine) -> None:
    failure: Answer = (reply({"error": {"message": "hiccup"}}, 500),)
    engine.rule = lambda text, before: failure if text in ("q3", "q7") and before < 2 else None
    output, errors = await env.results(await env.end(await env.start(asks(10))))
    assert (len(output), errors) == (10, [])
    assert (engine.asked["q3"], engine.asked["q4"]) == (3, 1)


async def test_an_answer_that_takes_too_long_ends_in_the_error_file(tmp_path: Path) -> None:
    def rule(text: str, _: int) -> Answer | None:
        return HANG if text == "q2" else None

    async with RuledEngine(rule) as engine:
        opening = open_house(tmp_path, [replica(engine)], attempt_timeout_s=0.5, attempts_max=2)
        async with opening as env:
            batch = await env.end(await env.start(asks(30)))
            output, errors = await env.results(batch)
    assert len(output) == 29
    assert [(place_of(line), line["error"]["code"]) for line in errors] == [(2, "timeout")]
    assert engine.asked["q2"] == 2 + 1  # the first time others were in flight: it cost no try
    assert "attempt_timeout_s is 0.5 s" in errors[0]["error"]["message"]


async def test_a_batch_waits_for_an_engine_that_is_down_says_so_and_goes_on(
    env: Env, engine: RuledEngine
) -> None:
    await engine.stop()
    batch = await env.start(asks(50))
    waiting = await env.until(batch, lambda seen: "not available" in (seen["reason"] or ""))
    assert (waiting["status"], waiting["request_counts"]["failed"]) == ("in_progress", 0)
    await engine.start()
    output, errors = await env.results(await env.end(batch))
    assert (len(output), errors) == (50, [])


async def test_an_engine_that_dies_in_the_middle_and_returns_loses_no_line(
    env: Env, engine: RuledEngine
) -> None:
    engine.rule = lambda *_: (0.02, reply(completion()))
    batch = await env.start(asks(200))
    for _ in range(2):
        seen = len(engine.requests)
        await engine.saw_requests(seen + 30)
        await engine.stop()
        await engine.start()
    output, errors = await env.results(await env.end(batch))
    assert (len(output), errors) == (200, [])


async def test_a_request_that_always_kills_the_connection_does_not_sink_its_batch(
    env: Env, engine: RuledEngine
) -> None:
    engine.rule = lambda text, _: (Cut.RESET,) if text == "q30" else None
    output, errors = await env.results(await env.end(await env.start(asks(60))))
    assert len(output) == 59
    assert [(place_of(line), line["error"]["code"]) for line in errors] == [(30, "engine_crash")]
    calls_max = HALVINGS + limits.CRASH_COUNT_MAX
    assert engine.asked["q30"] <= 2 * calls_max, "the client repeats what a kept connection lost"


async def test_an_answer_that_is_no_json_object_is_no_success(
    tmp_path: Path, engine: RuledEngine
) -> None:
    engine.rule = lambda text, _: (reply(b"<html>proxy</html>"),) if text == "q1" else None
    async with open_house(tmp_path, [replica(engine)], attempts_max=2) as env:
        output, errors = await env.results(await env.end(await env.start(asks(3))))
    assert [place_of(line) for line in output] == [2, 3]
    assert errors[0]["error"]["code"] == "engine_error"


# ---- stopping ----


async def test_cancelling_closes_the_calls_keeps_what_finished_and_accounts_for_the_rest(
    env: Env, engine: RuledEngine
) -> None:
    engine.rule = lambda text, _: None if int(text[1:]) <= 20 else HANG
    batch = await env.start(asks(500))
    await env.until(batch, lambda seen: seen["request_counts"]["completed"] == 20)
    await engine.saw(lambda: len(engine.requests) >= 28)
    cancelled = await env.cancel(batch)
    assert cancelled["status"] == "cancelling"
    await engine.saw_abandoned(8)
    ended = await env.end(batch)
    assert ended["status"] == "cancelled"
    output, errors = await env.results(ended)
    assert [place_of(line) for line in output] == list(range(1, 21))
    assert {line["error"]["code"] for line in errors} == {"batch_cancelled"}
    assert len(engine.requests) == 28
    assert ended["usage"]["total_tokens"] == 20 * 7


async def test_a_batch_that_was_cancelled_makes_room_for_the_next_at_once(
    env: Env, engine: RuledEngine
) -> None:
    engine.rule = lambda text, _: HANG if text.startswith("stuck") else None
    stuck = await env.start([ask(n, f"stuck {n}") for n in range(1, 301)])
    next_one = await env.start(asks(20))
    await engine.saw(lambda: len(engine.requests) >= 8)
    await env.cancel(stuck)
    output, _ = await env.results(await env.end(next_one))
    assert len(output) == 20
    await env.end(stuck)


async def test_a_batch_can_be_cancelled_while_it_is_validated(
    tmp_path: Path, engine: RuledEngine, disk: list[Faulty]
) -> None:
    async with open_house(tmp_path, [replica(engine)]) as env:
        blobs: Any = disk[0]
        real, reading, go_on = blobs.stream, asyncio.Event(), asyncio.Event()

        async def gated(*args: Any, **named: Any) -> AsyncIterator[bytes]:
            reading.set()
            await go_on.wait()
            async for block in real(*args, **named):
                yield block

        file_id = await env.upload(asks(5))
        blobs.stream = gated
        batch = await env.create(file_id)
        async with asyncio.timeout(PATIENCE_S):
            await reading.wait()
        assert (await env.cancel(batch))["status"] == "cancelling"
        go_on.set()
        ended = await env.end(batch)
        assert (ended["status"], ended["request_counts"]["total"]) == ("cancelled", 0)
        blobs.stream = real
        assert (await env.end(await env.create(file_id, metadata={"again": "1"})))["status"] == (
            "completed"
        )


async def test_cancelling_twice_is_no_harm_and_the_end_cannot_be_cancelled(
    env: Env, engine: RuledEngine
) -> None:
    engine.rule = lambda *_: HANG
    batch = await env.start(asks(5))
    await engine.saw_requests(5)
    await asyncio.gather(*(env.cancel(batch) for _ in range(5)))
    assert (await env.end(batch))["status"] == "cancelled"
    refused = await env.http.post(f"/v1/batches/{batch['id']}/cancel")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "batch_ended")
    assert (await env.see(batch))["status"] == "cancelled"


async def test_a_window_that_ends_keeps_what_finished_and_says_what_did_not_run(
    tmp_path: Path, engine: RuledEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ShiftedClock()
    monkeypatch.setattr(application, "SystemClock", lambda: clock)
    engine.rule = lambda text, _: None if int(text[1:]) <= 10 else HANG
    async with open_house(tmp_path, [replica(engine)]) as env:
        batch = await env.start(asks(200), completion_window="1h")
        await env.until(batch, lambda seen: seen["request_counts"]["completed"] == 10)
        await engine.saw(lambda: len(engine.requests) >= 18)
        clock.shift += type(clock.shift)(hours=1, seconds=1)
        await engine.saw_abandoned(8)
        ended = await env.end(batch)
        assert ended["status"] == "expired"
        output, errors = await env.results(ended)
        assert [place_of(line) for line in output] == list(range(1, 11))
        assert {line["error"]["code"] for line in errors} == {"batch_expired"}


# ---- reading along, limits, company ----


async def test_results_can_be_read_while_the_batch_runs(env: Env, engine: RuledEngine) -> None:
    engine.rule = lambda text, _: None if int(text[1:]) <= 25 else HANG
    batch = await env.start(asks(100))
    seen = await env.until(batch, lambda seen: seen["request_counts"]["completed"] == 25)
    got = await env.http.get(f"/v1/files/{seen['partial_output_file_id']}/content")
    assert got.headers["x-incomplete"] == "true"
    assert sorted(place_of(line) for line in parsed(got.content)) == list(range(1, 26))
    await env.cancel(batch)
    await env.end(batch)


async def test_a_batch_beyond_the_token_limit_fails_and_says_which(
    tmp_path: Path, engine: RuledEngine
) -> None:
    opening = open_house(
        tmp_path, [replica(engine)], limits=LimitSettings(enqueued_tokens_per_model=50)
    )
    async with opening as env:
        batch = await env.end(await env.start(asks(100)))
        assert batch["status"] == "failed"
        assert batch["errors"]["data"][0]["code"] == "token_limit_exceeded"
        assert not engine.requests
        assert (await env.end(await env.start(asks(1))))["status"] == "completed"


async def test_a_full_disk_holds_the_batch_up_and_loses_nothing(
    tmp_path: Path, engine: RuledEngine, disk: list[Faulty]
) -> None:
    async with open_house(tmp_path, [replica(engine)]) as env:
        file_id = await env.upload(asks(300))
        batch = await env.create(file_id)
        await engine.saw_requests(1)
        disk[0].fail("put", BlobsFull("no space left"), times=10_000)
        reported = "Results cannot be stored: the server's storage does not take them"
        stuck = await env.until(batch, lambda seen: reported in (seen["reason"] or ""))
        assert stuck["status"] == "in_progress"
        await engine.saw_requests(300)
        disk[0].heal()
        output, errors = await env.results(await env.end(batch))
    assert (len(output), errors) == (300, [])
    assert max(engine.asked.values()) == 1


async def test_deleting_the_input_of_a_running_batch_does_not_stop_it(
    env: Env, engine: RuledEngine
) -> None:
    engine.rule = lambda *_: (0.01, reply(completion()))
    file_id = await env.upload(asks(300))
    batch = await env.create(file_id)
    await engine.saw_requests(5)
    assert (await env.http.delete(f"/v1/files/{file_id}")).status_code == 200
    output, _ = await env.results(await env.end(batch))
    assert len(output) == 300


async def test_batches_run_beside_each_other_and_their_results_do_not_mix(
    env: Env, engine: RuledEngine
) -> None:
    batches = [await env.start([ask(n, f"{name}{n}") for n in range(1, 201)]) for name in "abc"]
    for name, batch in zip("abc", batches, strict=True):
        output, errors = await env.results(await env.end(batch))
        assert texts(output) == [f"re: {name}{n}" for n in range(1, 201)]
        assert errors == []
    assert max(engine.asked.values()) == 1


async def test_the_more_urgent_batch_goes_first(tmp_path: Path) -> None:
    def slow(*_: object) -> Answer:
        return (0.01, reply(completion()))

    async with RuledEngine(slow) as engine:
        await engine.stop()
        async with open_house(tmp_path, [replica(engine, window=2)]) as env:
            made: Callable[..., Any] = env.start
            late = await made([ask(n, f"late {n}") for n in range(1, 2_500)])
            soon = await made([ask(n, f"soon {n}") for n in range(1, 100)], completion_window="1h")
            first = await made([ask(n, f"first {n}") for n in range(1, 100)], priority=9)
            for batch in (late, soon, first):
                await env.until(batch, lambda seen: seen["status"] == "in_progress")
            await engine.start()
            await env.end(first)
            await env.end(soon)
            assert (await env.see(late))["status"] == "in_progress"
            await env.cancel(late)
            await env.end(late)


# ---- leaving ----


async def test_leaving_in_the_middle_and_coming_back_runs_only_what_is_missing(
    tmp_path: Path, engine: RuledEngine
) -> None:
    engine.rule = lambda *_: (0.01, reply(completion()))
    async with open_house(tmp_path, [replica(engine)]) as env:
        batch = await env.start(asks(400))
        await engine.saw_requests(100)
    assert not engine.abandoned
    async with open_house(tmp_path, [replica(engine)]) as env:
        output, errors = await env.results(await env.end(batch))
    assert (len(output), errors) == (400, [])
    assert max(engine.asked.values()) == 1
    assert len(asyncio.all_tasks()) <= 2 + engine.connections_open


async def test_leaving_with_a_stuck_call_aborts_it_in_time(
    tmp_path: Path, engine: RuledEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DRAIN_S", 0.2)
    engine.rule = lambda text, _: HANG if text == "q3" else None
    async with open_house(tmp_path, [replica(engine)]) as env:
        batch = await env.start(asks(50))
        await env.until(batch, lambda seen: seen["request_counts"]["completed"] == 49)
    await engine.saw_abandoned(1)
    engine.rule = lambda *_: None
    async with open_house(tmp_path, [replica(engine)]) as env:
        output, _ = await env.results(await env.end(batch))
    assert len(output) == 50
    assert engine.asked["q3"] == 2
