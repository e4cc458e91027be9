"""core/dispatch/parts.py: a request whose prompt is sent in parts, from take to take."""

import pytest
from dispatch_cases import BUSY, DIED, OK, REFUSED, SERVER_ERROR, UNREACHED, lease, replica, try_all

from lowtide import limits
from lowtide.core.capacity.window import WindowController
from lowtide.core.dispatch.dispatch import Dispatch
from lowtide.core.dispatch.parts import token_came
from lowtide.core.dispatch.replica import Replica
from lowtide.core.dispatch.request import Request
from lowtide.core.dispatch.verdict import Finish
from lowtide.core.faults.outcome import Outcome, Succeeded
from lowtide.core.usage import Usage

TOKENS = 1200


def beside_live_calls(url: str = "http://a") -> Replica:
    """A replica whose engine is sent parts of 500 tokens."""
    one = replica(url)
    one.controller = WindowController(allows_parts=True)
    one.streams = True
    pacer = one.controller.pacer
    pacer.active = pacer.parts.is_possible = True
    pacer.parts.fit(1.0, 0.05, 0.0)
    pacer.parts.tokens = 500.0
    return one


def core_with(*tokens: int) -> Dispatch:
    core = Dispatch()
    lines = [(n, n + 1, b"line") for n in range(len(tokens))]
    core.add(lease(), lines, tokens)
    return core


def taken(core: Dispatch, one: Replica, now_s: float = 1.0) -> Request:
    request = core.take(one, now_s)
    assert request is not None
    return request


def test_without_live_calls_or_a_controller_a_prompt_is_sent_whole() -> None:
    alone, beside = replica("http://a"), beside_live_calls()
    assert beside.controller is not None
    beside.controller.pacer.active = False
    for one in (alone, beside):
        assert taken(core_with(TOKENS), one).part is None


def test_a_long_prompt_is_read_part_by_part_and_answered_as_a_whole() -> None:
    core, one = core_with(TOKENS), beside_live_calls()
    assert one.controller is not None
    for ends in (500, 1000):
        request = taken(core, one)
        assert (request.part, request.prefill_done) == (ends, False)
        assert one.controller.pacer.outstanding_tokens(1.0) == 500
        core.settle_part(request, one, OK, 1.0, 0.0)
        assert one.controller.pacer.outstanding_tokens(1.0) == 0
        assert (one.in_flight, core.finished, request.run.unfinished) == (0, 0, 1)
    request = taken(core, one)
    assert (request.part, request.unread_tokens) == (None, 200)
    assert isinstance(core.settle(request, one, OK, 1.0, 0.0), Finish)
    assert core.finished == 1
    assert one.controller.pacer.outstanding_tokens(1.0) == 0


def test_nothing_is_learned_of_the_answer_to_a_part() -> None:
    core, one = core_with(TOKENS), beside_live_calls()
    one.collects_stats = True
    assert one.controller is not None
    core.settle_part(taken(core, one), one, OK, 1.0, 0.0)
    assert one.controller.work.known == 0


def test_the_next_part_follows_when_a_step_has_ended() -> None:
    core, one = core_with(100, TOKENS), beside_live_calls()
    first = taken(core, one)
    assert first.part is None
    part = taken(core, one)
    assert part.part == 400, "what the short one left of the step"
    assert core.take(one, 1.0) is None
    assert not token_came(first, one, 1.0)
    assert token_came(first, one, 1.02)


@pytest.mark.parametrize("outcome", [REFUSED, BUSY, DIED, SERVER_ERROR, UNREACHED, None])
def test_a_part_that_fails_costs_its_request_nothing_but_its_parts(outcome: Outcome | None) -> None:
    core, one = Dispatch(attempts_max=1), beside_live_calls()
    core.add(lease(), [(0, 1, b"line")], [TOKENS])
    request = taken(core, one)
    core.settle_part(request, one, outcome, 1.0, 0.0)
    assert (core.finished, request.run.unfinished, one.in_flight) == (0, 1, 0)
    again = None
    for now_s in (100.0, 200.0, 300.0):
        try_all(core, one, now_s)  # a replica that may be at fault is tried first
        again = again or core.take(one, now_s)
    assert again is request
    assert again.part is None


def test_an_engine_that_has_no_room_for_a_part_is_given_its_time() -> None:
    core, one = core_with(TOKENS, TOKENS), beside_live_calls()
    core.settle_part(taken(core, one), one, BUSY, 1.0, 0.0)
    assert not one.has_room(1.0)


def test_what_another_replica_has_read_is_read_again() -> None:
    core, one = core_with(TOKENS), beside_live_calls()
    core.settle_part(taken(core, one), one, OK, 1.0, 0.0)
    request = taken(core, beside_live_calls("http://b"))
    assert (request.tokens_read, request.part) == (0, 500)


def test_a_part_that_was_taken_back_is_sent_again_and_the_one_after_begins_afresh() -> None:
    core, one = core_with(TOKENS), beside_live_calls()
    request = taken(core, one)
    request.gave_way(500)
    core.abandon(request, one, 1.0)
    core.put_back(request)
    again = taken(core, one)
    assert (again.part, again.yields) == (500, 1)
    core.settle_part(again, one, OK, 1.0, 0.0)
    assert (again.tokens_read, again.yields) == (500, 0)


def test_what_its_own_parts_put_into_the_cache_is_known() -> None:
    core, one = core_with(TOKENS), beside_live_calls()
    for cached in (480, 490):
        request = taken(core, one)
        read = request.part or 0
        core.settle_part(request, one, Succeeded(200, b"{}", Usage(read, cached, 1)), 1.0, 0.0)
    assert request.tokens_cached == 20 + 510


def test_what_a_part_that_was_taken_back_put_into_the_cache_counts_as_its_own() -> None:
    core, one = core_with(TOKENS), beside_live_calls()
    core.settle_part(taken(core, one), one, Succeeded(200, b"{}", Usage(500, 0, 1)), 1.0, 0.0)
    request = taken(core, one)
    request.gave_way(500)
    core.abandon(request, one, 1.0)
    core.put_back(request)
    core.settle_part(taken(core, one), one, Succeeded(200, b"{}", Usage(1000, 992, 1)), 1.0, 0.0)
    assert request.tokens_cached == 500 + 500


def test_a_request_that_has_failed_or_belongs_to_an_engine_without_streams_goes_whole() -> None:
    core, one = core_with(TOKENS), beside_live_calls()
    one.stop_streams()
    assert taken(core, one).part is None
    core, one = core_with(TOKENS), beside_live_calls()
    core.runs[lease().key].pending[0].has_failed = True
    assert taken(core, one).part is None


def test_a_prompt_of_unknown_length_is_paced_too() -> None:
    core, one = core_with(0), beside_live_calls()
    assert one.controller is not None
    one.controller.pacer.live_asked(1000, 1.0)
    assert core.take(one, 1.0) is None


def test_what_parts_have_read_is_not_forgotten_when_the_rest_is_taken_back_unwatched() -> None:
    core, one = core_with(TOKENS), beside_live_calls()
    core.settle_part(taken(core, one), one, OK, 1.0, 0.0)
    one.stop_streams()
    request = taken(core, one)
    assert request.prefill_done is None
    request.gave_way(300)
    assert (request.tokens, request.unread_tokens) == (800, 300)


def test_a_chunk_that_ends_starts_no_further_part() -> None:
    core, one = core_with(TOKENS), beside_live_calls()
    request = taken(core, one)
    core.end_starting(request.run)
    core.settle_part(request, one, OK, 1.0, 0.0)
    assert core.take(one, 1.0) is None
    assert (request.run.unfinished, request.run.given_up) == (0, 1)


def test_very_long_prompts_have_few_parts() -> None:
    core, one = core_with(500 * limits.PARTS_MAX * 4), beside_live_calls()
    count = 1
    while (request := taken(core, one)).part is not None:
        core.settle_part(request, one, OK, 1.0, 0.0)
        count += 1
    assert count <= limits.PARTS_MAX
