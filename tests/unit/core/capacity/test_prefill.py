"""core/capacity/prefill.py: prompts that an engine has before it."""

import pytest

from lowtide import limits
from lowtide.core.capacity.prefill import PrefillPacer


def test_a_prompt_of_any_size_goes_out_when_nothing_is_owed() -> None:
    assert PrefillPacer().may_send(10**6, 0.0)


def test_the_next_one_waits_until_it_fits_the_budget_with_what_is_owed() -> None:
    pacer = PrefillPacer()
    pacer.sent(8000, 0.0)
    assert pacer.may_send(100, 0.0)
    assert not pacer.may_send(4000, 0.0)
    wait_s = pacer.opens_at_s
    assert 0 < wait_s <= limits.PREFILL_WAIT_S_MAX
    assert pacer.may_send(4000, 1.0)


def test_what_is_owed_is_worked_off_at_the_rate_of_the_engine() -> None:
    pacer = PrefillPacer()
    pacer.learn(10_000, 0.5, 0.0)
    pacer.sent(8000, 0.0)
    assert pacer.rate_per_s == pytest.approx(1.25 * 20_000)
    assert pacer.outstanding_tokens(0.2) == pytest.approx(8000 - 5000)
    assert pacer.outstanding_tokens(10.0) == 0.0


def test_a_watched_prompt_is_owed_until_its_first_token() -> None:
    pacer = PrefillPacer()
    pacer.sent(9000, 0.0, watched=True)
    assert pacer.outstanding_tokens(1000.0) == 9000
    pacer.read(9000, 1000.0)
    assert pacer.outstanding_tokens(1000.0) == 0
    assert pacer.opens_at_s == 1000.0, "whoever was held back asks again"


def test_a_few_watched_prompts_may_be_unread_as_far_as_a_step_holds_them() -> None:
    pacer = PrefillPacer()
    pacer.budget = float(limits.PREFILL_TOKENS_MIN)
    for _ in range(limits.PREFILL_WATCHED_CALLS):
        assert pacer.may_send(2000, 0.0)
        pacer.sent(2000, 0.0, watched=True)
    assert not pacer.may_send(300, 1000.0), "enough to keep the engine busy"
    pacer.read(2000, 1000.0)
    assert not pacer.may_send(9000, 1000.0), "more than a step of vLLM's takes with the others"
    assert pacer.may_send(2000, 1000.0)


def test_where_steps_stay_too_long_one_watched_prompt_is_unread_at_a_time() -> None:
    pacer = PrefillPacer()
    pacer.budget = float(limits.PREFILL_TOKENS_MIN)
    for _ in range(20):
        pacer.fit_steps(0.1, 0.05, 0.0)
    assert pacer.may_send(9000, 0.0), "one may have any length: no step can be cut short"
    pacer.sent(2000, 0.0, watched=True)
    assert not pacer.may_send(2000, 0.0)
    for _ in range(200):
        pacer.fit_steps(0.06, 0.05, 0.0)
    assert pacer.may_send(2000, 0.0), "a little above the target is what the window is for"


def test_beside_a_prompt_that_nobody_watches_the_budget_alone_counts() -> None:
    pacer = PrefillPacer()
    pacer.sent(6000, 0.0)
    pacer.sent(1000, 0.0, watched=True)
    assert not pacer.may_send(4000, 0.0)


def test_while_a_live_prompt_is_unread_only_so_little_goes_out_as_hurts_nobody() -> None:
    pacer = PrefillPacer()
    pacer.live_asked(500, 0.0)
    assert pacer.may_send(limits.PREFILL_TOKENS_MIN, 0.0)
    assert not pacer.may_send(limits.PREFILL_TOKENS_MIN + 1, 0.0)
    pacer.live_answered(500, 0.01)
    assert pacer.may_send(9000, 0.01)


def test_the_best_rate_seen_is_kept_for_minutes_and_then_forgotten() -> None:
    pacer = PrefillPacer()
    pacer.learn(20_000, 0.5, 0.0)
    pacer.learn(300, 0.5, 1.0)
    assert pacer.rate_per_s > 49_000
    for minute in range(30):
        pacer.learn(300, 0.5, 60.0 * minute)
    assert pacer.rate_per_s < 10_000


def test_an_idle_engine_teaches_nothing() -> None:
    pacer = PrefillPacer()
    before = pacer.rate_per_s
    pacer.learn(0, 0.5, 0.0)
    pacer.learn(10**6, 0.0, 0.0)
    assert pacer.rate_per_s == before


def test_a_rate_that_pacing_itself_keeps_low_is_found_within_seconds() -> None:
    """The engine could do ten times what it is given: measured is what was sent."""
    pacer, now_s, polls = PrefillPacer(), 0.0, 0
    while pacer.rate_per_s < 40_000:
        now_s += 0.5
        polls += 1
        pacer.learn(0.5 * pacer.rate_per_s, 0.5, now_s)
        assert polls < 20


def test_the_budget_keeps_its_bounds_whatever_happens() -> None:
    pacer = PrefillPacer()
    for _ in range(100):
        pacer.decrease()
    assert pacer.budget == limits.PREFILL_TOKENS_MIN
    for _ in range(1000):
        pacer.increase()
    assert pacer.budget == limits.PREFILL_TOKENS_MAX
    pacer.keep_within(0.0)
    assert pacer.budget == limits.PREFILL_TOKENS_MIN
