"""core/capacity/prompt_parts.py: the parts that long prompts are sent in, and when."""

import pytest

from lowtide import limits
from lowtide.core.capacity.engine_metrics import BatchCall, EngineMetrics, LiveSeen
from lowtide.core.capacity.prefill import PrefillPacer, make_way
from lowtide.core.capacity.prompt_parts import PromptParts
from lowtide.core.capacity.window import WindowController

ITL_SLO_S = 0.05


def active() -> PromptParts:
    parts = PromptParts()
    parts.is_possible = True
    parts.fit(0.06, ITL_SLO_S, 0.0)
    parts.tokens = 500.0
    return parts


def test_prompts_go_whole_until_steps_are_too_long_and_again_when_they_no_longer_are() -> None:
    parts = PromptParts()
    parts.is_possible = True
    parts.fit(0.04, ITL_SLO_S, 0.0)
    assert not parts.is_active(0.0)
    parts.fit(0.06, ITL_SLO_S, 1.0)
    assert parts.is_active(1.0)
    assert parts.is_active(limits.PARTS_HOLD_S)
    assert not parts.is_active(1.0 + limits.PARTS_HOLD_S)
    parts.fit(0.06, ITL_SLO_S, 2000.0)
    parts.is_possible = False
    assert not parts.is_active(2000.0)


@pytest.mark.parametrize(("counted", "size"), [(4000, 125), (1000, 500), (500, 1000), (0, 500)])
def test_parts_are_as_long_as_the_engine_counts(counted: int, size: int) -> None:
    parts = active()
    parts.counted(1000, counted)
    assert parts.size(3000, 1, unread=0) == size


def test_one_odd_prompt_does_not_turn_what_was_counted_over() -> None:
    parts = active()
    for _ in range(50):
        parts.counted(1000, 1000)
    parts.counted(1, 100_000)
    assert 300 < parts.size(3000, 1, unread=0) < 500


def test_parts_shrink_while_steps_are_too_long_and_grow_while_they_are_not() -> None:
    parts = active()
    for _ in range(100):
        parts.fit(0.06, ITL_SLO_S, 0.0)
    assert parts.tokens == limits.PART_TOKENS_MIN
    for _ in range(100):
        parts.fit(0.05, ITL_SLO_S, 0.0)
    assert parts.tokens == limits.PART_TOKENS_MAX


def test_a_step_gets_one_part_of_a_long_prompt_or_as_many_short_ones() -> None:
    parts = active()
    assert parts.size(3000, 1, unread=0) == 500
    parts.sent(500)
    assert parts.size(2500, 1, unread=500) == 0
    assert parts.size(100, 1, unread=500) == 0
    assert not parts.token_seen(1, 1.0)
    assert not parts.token_seen(2, 1.0)
    assert parts.token_seen(1, 1.02), "that answer has gone on, so a step has ended"
    assert parts.size(200, 1, unread=500) == 200
    parts.sent(200)
    assert parts.size(400, 1, unread=700) == 0, "it fits the next step, so it is not cut"
    assert parts.size(2500, 1, unread=700) == 300
    parts.sent(250)
    assert parts.size(2500, 1, unread=950) == 0, "too small a piece for a call of its own"


def test_an_engine_that_reads_nothing_is_sent_no_more_than_a_few_parts() -> None:
    parts = active()
    unread = 0
    for now_s in range(20):
        size = parts.size(10_000, 1, unread)
        parts.sent(size)
        unread += size
        parts.token_seen(1, float(now_s))
    assert unread == limits.PREFILL_WATCHED_CALLS * 500


def test_a_prompt_that_cannot_be_cut_goes_when_nothing_else_is_unread() -> None:
    parts = active()
    assert parts.size(3000, 3000, unread=1) == 0
    assert parts.size(3000, 3000, unread=0) == 3000


def test_the_parts_of_a_very_long_prompt_are_longer_so_that_they_are_few() -> None:
    parts = active()
    least = 40_000 // limits.PARTS_MAX
    assert parts.size(40_000, least, unread=0) == least
    assert parts.size(40_000, least, unread=1) == 0


def test_an_engine_that_refuses_a_few_parts_in_a_row_is_sent_none_for_a_while() -> None:
    parts = active()
    for _ in range(limits.PARTS_REFUSED - 1):
        parts.was_refused(1.0)
    parts.was_read()
    parts.was_refused(1.0)
    assert parts.is_active(1.0)
    for _ in range(limits.PARTS_REFUSED):
        parts.was_refused(2.0)
    assert not parts.is_active(3.0)
    parts.fit(0.06, ITL_SLO_S, 3.0 + limits.PARTS_HOLD_S)
    assert parts.is_active(3.0 + limits.PARTS_HOLD_S)


def test_no_part_is_sent_before_a_live_prompt_is_read() -> None:
    pacer = PrefillPacer()
    pacer.active, pacer.parts = True, active()
    assert pacer.size_to_send(3000, 1, 0.0) == 500
    pacer.live_asked(400, 0.0)
    assert pacer.size_to_send(100, 1, 0.0) == 0
    assert pacer.opens_at_s == pytest.approx(400 / limits.PREFILL_RATE_DEFAULT)
    pacer.live_answered(400, 0.01)
    assert pacer.size_to_send(100, 1, 0.01) == 100


def test_a_part_that_the_present_step_reads_is_not_taken_back() -> None:
    pacer = PrefillPacer()
    pacer.parts = active()
    pacer.parts.token_seen(1, 1.0)
    pacer.parts.token_seen(1, 2.0)
    read = BatchCall(1.5, 500, prefill_done=False)
    waiting = BatchCall(0.4, 500, prefill_done=False)
    longer = BatchCall(1.5, 5000, prefill_done=False)
    calls = [read, waiting, longer]
    back = make_way(pacer, calls, 2.4, tells_prompts=True)
    assert sorted(back) == [(1, 500), (2, 5000)]


@pytest.mark.parametrize(
    ("allowed", "caches", "bounds", "sends"),
    [
        (True, True, False, True),
        (False, True, False, False),
        (True, False, False, False),
        (True, True, True, False),
    ],
)
def test_parts_go_to_engines_that_keep_what_they_read_and_have_no_scheduler_class(
    *, allowed: bool, caches: bool, bounds: bool, sends: bool
) -> None:
    controller = WindowController(allows_parts=allowed)
    for second in (0, 1, 2):
        gaps = ((ITL_SLO_S, 0.0), (0.1, 100.0 * second), (float("inf"), 100.0 * second))
        metrics = EngineMetrics(
            running=1,
            waiting=0,
            generation_tokens_total=100.0 * second,
            itl_buckets=gaps,
            bounds_steps=bounds,
            caches_prefixes=caches,
        )
        controller.observe(metrics, [], float(second), LiveSeen(in_flight=1))
    pacer = controller.pacer
    assert (pacer.active and 0 < pacer.size_to_send(5000, 1, 2.0) < 5000) == sends
    controller.observe(None, [], 3.0, LiveSeen(in_flight=1))
    assert not pacer.parts.is_active(3.0), "an engine that is silent may have been restarted"
