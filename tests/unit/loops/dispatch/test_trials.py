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


class LiveCaller:
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
async def caller() -> AsyncIterator[LiveCaller]:
    made = LiveCaller(is_alone=True)
    yield made
    await made.loop.aclose()


async def test_a_refusal_of_a_live_call_is_judged_without_a_dispatcher(caller: LiveCaller) -> None:
    caller.engine.otherwise = REFUSED
    caller.live_call_fails()
    await caller.tick()
    assert caller.scope.held == "credentials"
    assert [call.path for call in caller.engine.calls] == ["/chat/completions"]


async def test_no_caller_is_sent_to_a_held_replica_and_it_comes_back_by_itself(
    caller: LiveCaller,
) -> None:
    caller.engine.otherwise = REFUSED
    caller.live_call_fails()
    for _ in range(100):
        await caller.tick()
        assert not caller.scope.takes_live(caller.clock.monotonic() - limits.TRIAL_PATIENCE_S)
    assert len(caller.engine.calls) < 15, "at growing pauses"
    caller.engine.otherwise = ANSWER
    for _ in range(int(limits.TRIAL_PAUSE_S_MAX) + 1):
        await caller.tick()
    assert caller.scope.held is None


async def test_an_engine_that_cut_live_calls_is_asked_until_it_answers(caller: LiveCaller) -> None:
    caller.engine.otherwise = NoReply("connect", "refused")
    for _ in range(limits.CIRCUIT_FAILURES):
        caller.live_call_fails("cut")
    replica = caller.upstream.replica
    for _ in range(30):
        await caller.tick()
    assert replica.circuit.state == "open"
    assert 3 <= len(caller.engine.calls) <= 15
    caller.engine.otherwise = ANSWER
    for _ in range(int(limits.CIRCUIT_COOLDOWN_S_MAX) + 2):
        await caller.tick()
    assert replica.circuit.state == "closed"
    calls = len(caller.engine.calls)
    for _ in range(30):
        await caller.tick()
    assert len(caller.engine.calls) == calls, "one that is well is left alone"


async def test_beside_a_dispatcher_only_replicas_of_other_workers_are_tried() -> None:
    caller = LiveCaller(is_alone=False)
    caller.engine.otherwise = REFUSED
    caller.live_call_fails()
    await caller.tick()
    assert not caller.engine.calls, "it is the dispatcher's to try"
    caller.upstream.replica.owned_until_s = float("-inf")
    await caller.tick()
    assert caller.scope.held == "credentials"


async def test_a_trial_that_is_taken_back_leaves_nothing_under_way(caller: LiveCaller) -> None:
    caller.engine.holds = True
    caller.live_call_fails()
    await caller.loop.tick(caller.clock.now())
    await caller.engine.saw(lambda: bool(caller.engine.calls))
    await caller.loop.aclose()
    replica = caller.upstream.replica
    assert (replica.trials_in_flight, caller.loop.under_way) == (0, {})
    assert caller.scope.trial_at_s is not None, "it is asked for again"
