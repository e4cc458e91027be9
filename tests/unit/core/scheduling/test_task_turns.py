"""core/scheduling/task_turns.py: who comes next at work that all organizations share."""

from datetime import UTC, datetime, timedelta

from lowtide.core.scheduling.task_turns import TaskTurns, Waiting

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def waiting(*names: str) -> list[Waiting]:
    """In the order in which their oldest work came."""
    return [Waiting(name, NOON + timedelta(seconds=place)) for place, name in enumerate(names)]


def test_a_newcomer_waits_for_one_unit_however_much_another_has_in_front() -> None:
    turns = TaskTurns()
    for _ in range(1000):
        assert turns.order(waiting("a")) == ["a"]
        turns.charge("a", 40_000_000)
    assert turns.order(waiting("a", "b"))[0] == "b"


def test_units_of_two_organizations_alternate_by_what_they_cost() -> None:
    turns, taken = TaskTurns(), []
    for _ in range(13):
        first = turns.order(waiting("large", "small"))[0]
        taken.append(first)
        turns.charge(first, 5.0 if first == "large" else 1.0)
    assert taken.count("large") == 3
    assert taken.count("small") == 10
    assert taken[:7] == ["large", *["small"] * 5, "large"]


def test_a_newcomer_waits_for_at_most_one_unit_of_each_of_ten_greedy_ones() -> None:
    greedy = [f"greedy{n}" for n in range(10)]
    for rounds in range(40, 60):
        turns = TaskTurns()
        for _ in range(rounds):
            turns.charge(turns.order(waiting(*greedy))[0], 100.0)
        before = []
        while (first := turns.order(waiting(*greedy, "good"))[0]) != "good":
            before.append(first)
            turns.charge(first, 100.0)
        assert len(before) == len(set(before)) < len(greedy)


def test_who_was_idle_has_saved_up_nothing() -> None:
    turns = TaskTurns()
    turns.charge("b", 1.0)
    for _ in range(100):
        turns.charge("a", 10.0)
    taken = []
    for _ in range(10):
        first = turns.order(waiting("a", "b"))[0]
        taken.append(first)
        turns.charge(first, 10.0)
    assert taken.count("b") in (5, 6)


def test_of_organizations_that_are_alike_the_oldest_work_comes_first() -> None:
    assert TaskTurns().order(waiting("z", "a")) == ["z", "a"]


def test_what_was_given_while_nobody_else_waited_is_forgiven_when_nothing_waits() -> None:
    turns = TaskTurns()
    turns.charge("a", 1_000_000.0)
    turns.rest()
    turns.charge("b", 10.0)
    assert turns.order(waiting("b", "a")) == ["a", "b"]
    assert turns._ends.keys() == {"b"}, "who has nothing to make up for is forgotten"
