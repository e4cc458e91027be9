"""A budget that nobody can fill for all others."""

from hypothesis import given
from hypothesis import strategies as st

from lowtide.core.scheduling.byte_budget import ByteBudget


def fill(budget: ByteBudget, owner: str, step: int = 1) -> int:
    """As much as it gets."""
    while budget.take(owner, step):
        pass
    return budget.held_by(owner)


def test_one_owner_alone_gets_half() -> None:
    assert fill(ByteBudget(1000), "a") == 500


def test_beside_ten_greedy_owners_there_is_room_for_the_next() -> None:
    budget = ByteBudget(11_000)
    for _ in range(1000):
        for number in range(10):
            budget.take(f"greedy-{number}", 10)
    assert fill(budget, "good") >= 400
    assert budget.held <= budget.total


def test_what_is_given_back_is_there_again_and_owners_are_forgotten() -> None:
    budget = ByteBudget(100)
    assert budget.take("a", 50)
    assert not budget.take("a", 1)
    budget.give_back("a", 50)
    assert (budget.held, budget.held_by("a")) == (0, 0)
    assert budget.take("b", 50)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 90))))
def test_the_total_is_never_exceeded_and_a_refusal_changes_nothing(
    asked: list[tuple[str, int]],
) -> None:
    budget = ByteBudget(100)
    for owner, amount in asked:
        before = (budget.held, budget.held_by(owner))
        if not budget.take(owner, amount):
            assert (budget.held, budget.held_by(owner)) == before
        assert budget.held == sum(budget.held_by(each) for each in "abc") <= 100
