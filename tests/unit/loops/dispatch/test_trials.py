"""loops/dispatch/trials.py: who judges what live calls alone have met."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from worker_env import MODEL, upstream

from lowtide import limits
from lowtide.core.dispatch.verdict import heard_live
from lowtide.core.faults.outcome import Failed, NoReply, Reply
from lowtide.core.faults.scope import Scope
from lowtide.loops.dispatch.attempt import Upstream
from lowtide.loops.dispatch.trials import TrialLoop
from testkit.fake_engine import ANSWER, FakeEngine
from testkit.manual_clock import ManualClock

CHAT = "/v1/chat/completions"
REFUSED = Reply(401, b'{"error":{"message":"wrong key"}}')


class Door:
    """A process whose live calls alone reach the engine."""

    def __init__(self, *, is_alone: bool) -> None:
        self.clock = ManualClock()
        self.engine = FakeEngine()
        self.upstream: Upstream = upstream(self.engine)
        self.loop = TrialLoop([self.upstream], self.clock, is_alone=is_alone)

    @property
    def scope(self) -> Scope:
        return self.upstream.replica.scope((MODEL, CHAT))

    def live_call_fails(self, kind: str = "credentials") -> None:
        now_s = self.clock.monotonic()
        failed = Failed("cut" if kind == "cut" else "credentials", "wrong key", 401)
        heard_live(self.upstream.replica, self.scope, failed, now_s, now_s)

    async def tick(self) -> None:
        """One tick, and whatever it began."""
        due = await self.loop.tick(self.clock.now())
        while self.loop.under_way:
            await asyncio.wait(list(self.loop.under_way))
            await asyncio.sleep(0)  # their callbacks
        assert due is not None
        self.clock.advance((due - self.clock.now()).total_seconds())


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    made = Door(is_alone=True)
    yield made
    await made.loop.aclose()


async def test_a_refusal_of_a_live_call_is_judged_without_a_dispatcher(door: Door) -> None:
    door.engine.otherwise = REFUSED
    door.live_call_fails()
    await door.tick()
    assert door.scope.held == "credentials"
    assert [call.path for call in door.engine.calls] == ["/chat/completions"]


async def test_no_caller_is_sent_to_a_held_replica_and_it_comes_back_by_itself(door: Door) -> None:
    door.engine.otherwise = REFUSED
    door.live_call_fails()
    for _ in range(100):
        await door.tick()
        assert not door.scope.takes_live(door.clock.monotonic() - limits.TRIAL_PATIENCE_S)
    assert len(door.engine.calls) < 15, "at growing pauses"
    door.engine.otherwise = ANSWER
    for _ in range(int(limits.TRIAL_PAUSE_S_MAX) + 1):
        await door.tick()
    assert door.scope.held is None


async def test_an_engine_that_cut_live_calls_is_asked_until_it_answers(door: Door) -> None:
    door.engine.otherwise = NoReply("connect", "refused")
    for _ in range(limits.CIRCUIT_FAILURES):
        door.live_call_fails("cut")
    replica = door.upstream.replica
    for _ in range(30):
        await door.tick()
    assert replica.circuit.state == "open"
    assert 3 <= len(door.engine.calls) <= 15
    door.engine.otherwise = ANSWER
    for _ in range(int(limits.CIRCUIT_COOLDOWN_S_MAX) + 2):
        await door.tick()
    assert replica.circuit.state == "closed"
    calls = len(door.engine.calls)
    for _ in range(30):
        await door.tick()
    assert len(door.engine.calls) == calls, "one that is well is left alone"


async def test_beside_a_dispatcher_only_replicas_of_other_workers_are_tried() -> None:
    door = Door(is_alone=False)
    door.engine.otherwise = REFUSED
    door.live_call_fails()
    await door.tick()
    assert not door.engine.calls, "it is the dispatcher's to try"
    door.upstream.replica.owned_until_s = float("-inf")
    await door.tick()
    assert door.scope.held == "credentials"


async def test_a_trial_that_is_taken_back_leaves_nothing_under_way(door: Door) -> None:
    door.engine.holds = True
    door.live_call_fails()
    await door.loop.tick(door.clock.now())
    await door.engine.saw(lambda: bool(door.engine.calls))
    await door.loop.aclose()
    replica = door.upstream.replica
    assert (replica.trials_in_flight, door.loop.under_way) == (0, {})
    assert door.scope.trial_at_s is not None, "it is asked for again"
