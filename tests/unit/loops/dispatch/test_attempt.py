"""loops/dispatch/attempt.py: a line in, an outcome and its output line out."""

import json
from datetime import UTC, datetime

import msgspec
import pytest
from worker_env import upstream

from lowtide.core.batches.chunk import NOTHING_DONE, ChunkKey, ChunkLease
from lowtide.core.batches.line import Dialect
from lowtide.core.bodies.body_rules import rules_of
from lowtide.core.dispatch.request import ChunkRun, Request
from lowtide.core.faults.outcome import NoReply, Rejected, Reply, Succeeded
from lowtide.core.usage import NO_USAGE, Usage
from lowtide.loops.dispatch.attempt import OwnershipLostError, attempt, render
from testkit.fake_engine import FakeEngine

LINE = b'{"custom_id": "r-1", "body": {"model": "alias", "n": 1.10, "secret": 1}}'


def request(data: bytes = LINE, endpoint: str = "/v1/completions") -> Request:
    lease = ChunkLease(
        key=ChunkKey("batch_7f", 0),
        token=1,
        expires_at=datetime(2026, 11, 21, tzinfo=UTC),
        project_id="p",
        dialect="openai",
        endpoint=endpoint,
        model="canonical",
        first=0,
        count=1,
        done=NOTHING_DONE,
        plan_key="",
        input_key="",
        deadline_at=datetime(2026, 11, 21, tzinfo=UTC),
    )
    return Request(ChunkRun(lease, lease.key, 1), 0, 5, data)


async def test_the_model_is_renamed_fields_are_dropped_and_the_rest_is_sent_as_written() -> None:
    engine = FakeEngine()
    to = msgspec.structs.replace(
        upstream(engine),
        engine_names={"canonical": "engine-side"},
        rules=rules_of(drop=frozenset({"secret"})),
    )
    custom_id, outcome = await attempt(to, request())
    assert custom_id == "r-1"
    assert isinstance(outcome, Succeeded)
    assert engine.calls[0].path == "/completions"
    assert engine.calls[0].body == b'{"model":"engine-side","n":1.10}'


async def test_a_line_that_is_none_any_more_is_rejected_without_a_call() -> None:
    engine = FakeEngine()
    custom_id, outcome = await attempt(upstream(engine), request(b"\x00garbage"))
    assert (custom_id, engine.calls) == ("", [])
    assert isinstance(outcome, Rejected)
    assert outcome.code == "invalid_json_line"


async def test_what_the_engine_did_is_an_outcome() -> None:
    engine = FakeEngine(Reply(400, b"{}"), NoReply("oversize", "too much"))
    assert isinstance((await attempt(upstream(engine), request()))[1], Rejected)
    assert isinstance((await attempt(upstream(engine), request()))[1], Rejected)


NASTY = [
    b'{"a":"\xff\xfe"}',
    b'{"a":"\xed\xa0\x80"}',
    b'{"a":"\\ud800"}',
    b'{"a":1e999,"b":-0,"c":123456789012345678901234567890}',
    b'\xef\xbb\xbf{"a":1}',
    b'{"a":NaN}',
    b'{"a":"' + b"\x01\x02\n\r\t" + b'"}',
    b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}",
    b'{"a":' + b"[" * 200_000,
    '{"a":"\u2028\u2029\x85"}'.encode(),
    b"",
    b"\x00",
]


@pytest.mark.parametrize("body", NASTY, ids=range(len(NASTY)))
def test_whatever_an_engine_says_becomes_one_line_of_json(body: bytes) -> None:
    for outcome in (Succeeded(200, body, NO_USAGE), Rejected("c", "m\u2028", 400, body)):
        finished = render(request(), 'odd "id" \u2028\n', outcome)
        assert finished.output.endswith(b"\n")
        assert finished.output.isascii()
        assert finished.output.decode().splitlines() == [finished.output.decode()[:-1]]
        assert (finished.line, finished.ok) == (5, isinstance(outcome, Succeeded))
        if b"[[[[" not in body:  # Python's own parser gives up on those
            line = json.loads(finished.output)
            assert line["custom_id"] == 'odd "id" \u2028\n'
            assert line["id"] == "batch_req_7f-5"


# ---- priority ----

REFUSES_PRIORITY = Reply(400, b'{"error":{"message":"Priority scheduling is not enabled"}}')


async def test_batch_calls_carry_the_priority_that_their_engine_understands() -> None:
    engine = FakeEngine()
    served = upstream(engine)
    served.replica.priority = 100
    await attempt(served, request(b'{"custom_id":"r","body":{"model":"canonical","priority":-9}}'))
    body = json.loads(engine.calls[0].body)
    assert body["priority"] == 100, "nobody jumps the queue from within a batch"


async def test_an_engine_that_refuses_it_by_now_is_asked_without_it_and_sent_none_again() -> None:
    engine = FakeEngine(REFUSES_PRIORITY)
    served = upstream(engine)
    served.replica.priority = 100
    _, outcome = await attempt(served, request())
    assert isinstance(outcome, Succeeded)
    assert "priority" not in json.loads(engine.calls[1].body)
    assert served.replica.priority is None


async def test_a_request_that_is_refused_either_way_keeps_the_priority_for_others() -> None:
    engine = FakeEngine(REFUSES_PRIORITY, REFUSES_PRIORITY)
    served = upstream(engine)
    served.replica.priority = 100
    _, outcome = await attempt(served, request())
    assert isinstance(outcome, Rejected)
    assert len(engine.calls) == 2
    assert served.replica.priority == 100


@pytest.mark.parametrize("dialect", ["openai", "together"])
def test_a_line_whose_tokens_are_not_the_engines_own_count_says_so(dialect: Dialect) -> None:
    asked = request()
    asked.run.lease = msgspec.structs.replace(asked.run.lease, dialect=dialect)
    guessed = Succeeded(200, b'{"x":1}', Usage(input_tokens=12, output_tokens=3, unreported=1))
    line = json.loads(render(asked, "a", guessed).output)
    assert line["charged_usage"] == {"source": "estimate", "input_tokens": 12, "output_tokens": 3}
    assert line["response"]["body"] == {"x": 1}
    free = Succeeded(200, b'{"x":1}', Usage(unreported=1))
    line = json.loads(render(asked, "a", free).output)
    assert line["charged_usage"] == {"source": "free", "input_tokens": 0, "output_tokens": 0}
    reported = Succeeded(200, b'{"x":1}', Usage(input_tokens=12, output_tokens=3))
    assert "charged_usage" not in json.loads(render(asked, "a", reported).output)


@pytest.mark.parametrize("priority", [None, 100])
async def test_a_replica_of_another_worker_is_not_sent_the_request_again(
    priority: int | None,
) -> None:
    """Its first answer came when the replica was ours no more."""
    engine = FakeEngine(Reply(400, b'{"error": {"message": "priority is not supported"}}'))
    to = upstream(engine)
    to.replica.priority = priority
    to.replica.owned_until_s = 10.0
    if priority is None:
        _, outcome = await attempt(to, request(), monotonic=lambda: 11.0)
        assert isinstance(outcome, Rejected), "an answer is an answer, however late"
    else:
        with pytest.raises(OwnershipLostError):
            await attempt(to, request(), monotonic=lambda: 11.0)
    assert len(engine.calls) == 1
