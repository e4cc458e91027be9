"""Who is let in next of batches that wait for enqueued tokens."""

from hypothesis import given
from hypothesis import strategies as st

from lowtide.core.accounts.token_queue import (
    QueuedBatch,
    TokenDecision,
    TokenLimitReached,
    TokenWait,
    decide,
    wait_of,
)


def queue(*batches: dict[str, int]) -> list[QueuedBatch]:
    return [QueuedBatch(f"b{n}", tokens) for n, tokens in enumerate(batches)]


def test_those_that_fit_are_let_in_by_order() -> None:
    waiting = queue({"m": 60}, {"m": 30}, {"m": 20})
    assert decide(waiting, {"m": 0}, 100).let_in == ("b0", "b1")
    assert decide(waiting, {}, 110).let_in == ("b0", "b1", "b2")


def test_a_small_one_does_not_pass_a_large_one_of_its_model() -> None:
    waiting = queue({"m": 60}, {"m": 10}, {"n": 10}, {"m": 1, "n": 1}, {"n": 5})
    decided = decide(waiting, {"m": 50}, 100)
    assert decided.let_in == ("b2",), "and what shares a model with one that waits, waits too"


def test_one_that_alone_is_too_large_holds_up_no_other() -> None:
    assert decide(queue({"m": 101}, {"m": 10}), {}, 100) == TokenDecision(("b1",), ("b0",))


def test_each_is_told_its_place_among_those_that_wait_for_its_models() -> None:
    waiting, enqueued = queue({"m": 60}, {"n": 10}, {"m": 10}), {"m": 50}
    assert wait_of("b0", waiting, enqueued, 100) == TokenWait(
        1, TokenLimitReached("m", 100, 50, 60)
    )
    assert wait_of("b1", waiting, enqueued, 100) == TokenWait(1, None)
    assert wait_of("b2", waiting, enqueued, 100) == TokenWait(2, None)
    assert wait_of("b9", waiting, enqueued, 100) is None


MODELS = st.dictionaries(st.sampled_from("mno"), st.integers(1, 120), min_size=1)


@given(st.lists(MODELS, max_size=8), st.dictionaries(st.sampled_from("mno"), st.integers(0, 120)))
def test_the_limit_holds_and_nobody_is_passed_for_a_model_of_its_own(
    asked: list[dict[str, int]], enqueued: dict[str, int]
) -> None:
    waiting = queue(*asked)
    let_in, too_large = decide(waiting, enqueued, 100)
    for model in "mno":
        taken = sum(each.tokens.get(model, 0) for each in waiting if each.id in let_in)
        assert not taken or enqueued.get(model, 0) + taken <= 100
    left = [each for each in waiting if each.id not in (*let_in, *too_large)]
    for each in left:
        later = waiting[waiting.index(each) :]
        passed = [other for other in later if other.id in let_in]
        assert all(each.tokens.keys().isdisjoint(other.tokens) for other in passed)
