"""Replies of several owners share memory, and all of them are read to their end."""

from collections.abc import Callable, Sequence
from itertools import cycle

import pytest

from lowtide.core.scheduling.reply_budget import ReplyBudget, ReplyHold

TOTAL = 1_000
BLOCK = 10


class Reading:
    """A reply that comes block by block while it may be read."""

    def __init__(self, budget: ReplyBudget, owner: str, size: int) -> None:
        self.owner = owner
        self.size = size
        self.is_paused = False
        self.hold = ReplyHold(budget, self.pause)
        self.hold.owner = owner

    def pause(self, wanted: bool) -> None:
        self.is_paused = wanted

    def read(self) -> bool:
        """One block; whether the reply is whole now, and given away."""
        if not self.is_paused:
            self.hold.reach(min(self.size, self.hold.bytes + BLOCK))
            if self.hold.bytes == self.size:
                self.hold.end()
                return True
        return False


def read_all(
    budget: ReplyBudget,
    replies: Sequence[Reading],
    resume_waiting: Callable[[], None] = lambda: None,
) -> tuple[list[str], int]:
    """Block by block, each in its turn: owners in the order of their ends, and the most held."""
    left, ended, most, still = list(replies), [], 0, 0
    while left:
        before = budget.held
        done = [reply for reply in left if reply.read()]
        ended += [reply.owner for reply in done]
        left = [reply for reply in left if reply not in done]
        most = max(most, budget.held)
        resume_waiting()
        still = still + 1 if not done and budget.held == before else 0
        assert still < 3, "nothing moves"
    return ended, most


@pytest.mark.parametrize("owners", [1, 2, 10])
def test_however_many_replies_come_memory_is_bounded_and_each_ends(owners: int) -> None:
    budget, names = ReplyBudget(TOTAL), [f"o{number}" for number in range(owners)]
    replies = [
        Reading(budget, owner, 500) for owner, _ in zip(cycle(names), range(64), strict=False)
    ]
    ended, most = read_all(budget, replies)
    assert sorted(ended) == sorted(reply.owner for reply in replies)
    assert most <= TOTAL + 500 + 64 * BLOCK
    assert budget.held == 0


def test_one_owner_has_half_beside_one_reply_that_goes_on() -> None:
    budget = ReplyBudget(TOTAL)
    _, most = read_all(budget, [Reading(budget, "a", 500) for _ in range(64)])
    assert most <= TOTAL / 2 + 500 + 64 * BLOCK


def test_beside_a_greedy_owner_another_is_not_paused_within_its_share() -> None:
    budget = ReplyBudget(TOTAL)
    greedy = [Reading(budget, "a", 200) for _ in range(16)]
    for _ in range(15):
        for reply in greedy:
            reply.read()
    other = Reading(budget, "b", 80)
    while not other.read():
        assert not other.is_paused
    assert any(reply.is_paused for reply in greedy)


def test_beyond_its_share_another_waits_for_one_reply_of_each_greedy_owner() -> None:
    budget = ReplyBudget(TOTAL)
    greedy = [Reading(budget, f"a{n % 3}", 400) for n in range(30)]
    for reply in greedy:
        for _ in range(40):
            reply.read()
    other = Reading(budget, "b", 400)
    ended, _ = read_all(budget, [*greedy, other])
    assert ended.index("b") <= 4, "three units of others' work, and one that had begun"


def test_what_cannot_be_given_away_counts_and_nothing_more_is_read_meanwhile() -> None:
    backlog = 900
    budget = ReplyBudget(TOTAL, lambda: backlog)
    reply = Reading(budget, "a", 500)
    for _ in range(6):
        reply.read()
    assert reply.is_paused
    backlog = 0
    budget.resume_waiting()
    assert not reply.is_paused


def test_a_reply_that_ends_early_gives_its_bytes_and_its_turn_back() -> None:
    budget = ReplyBudget(TOTAL)
    replies = [Reading(budget, "a", 500) for _ in range(8)]
    for _ in range(20):
        for reply in replies:
            reply.read()
    for reply in replies:  # those that wait, and the one whose turn it is
        reply.hold.end()
    assert budget.held == 0
    assert not any(reply.is_paused for reply in replies)
    assert not Reading(budget, "a", 100).read()


def test_a_reader_goes_from_one_reply_to_the_next() -> None:
    budget = ReplyBudget(TOTAL)
    reading = Reading(budget, "a", 100)
    for owner in ("a", "b"):
        reading.hold.owner = owner
        while not reading.read():
            assert budget.held == reading.hold.bytes
    assert budget.held == 0
