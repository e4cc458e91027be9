"""core.dispatch.dispatch.Dispatch against a model, step by random step.

The model knows of each request whether it waits, flies, is delayed, is finished or gone with its
chunk. Whatever happens: a request is in one place, finishes at most once, windows are kept, the
counters agree, and once engines answer again everything that is left can be finished.
"""

from collections import Counter
from datetime import UTC, datetime

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lowtide import limits
from lowtide.core.batches.chunk import NOTHING_DONE, ChunkKey, ChunkLease
from lowtide.core.capacity.window import WindowController
from lowtide.core.dispatch.dispatch import Dispatch
from lowtide.core.dispatch.replica import Replica
from lowtide.core.dispatch.request import ChunkRun, Request
from lowtide.core.dispatch.verdict import Finish, TryAgain
from lowtide.core.faults.outcome import Failed, Interrupted, Outcome, Rejected, Succeeded, Throttled
from lowtide.core.faults.scope import Scope
from lowtide.core.usage import NO_USAGE
from property_profiles import examples

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
OK = Succeeded(200, b"{}", NO_USAGE)
OUTCOMES: list[Outcome] = [
    OK,
    Rejected("request_rejected", "no", 400),
    Throttled("no room"),
    Throttled("no room", 2.0),
    Failed("server_error", "500", 500),
    Failed("timeout", "late"),
    Failed("cut", "reset"),
    Failed("gateway", "502", 502),
    Failed("credentials", "401", 401),
    Failed("bad_answer", "no choices", 200),
    Interrupted("refused"),
]
MODELS = ("m", "n")
PROMPTS = (1, 300, 700, 3000)
"""Tokens of prompts in turn; at the second replica, which has live calls, long ones go in parts."""
ATTEMPTS_MAX = 3


def lease(seq: int, model: str, token: int) -> ChunkLease:
    return ChunkLease(
        key=ChunkKey("b", seq),
        token=token,
        expires_at=NOON,
        project_id="p",
        organization_id=f"o{seq % 3}",
        dialect="openai",
        endpoint="/v1/chat/completions",
        model=model,
        first=0,
        count=128,
        done=NOTHING_DONE,
        plan_key="plans/b",
        input_key="inputs/b",
        deadline_at=NOON,
    )


class DispatchMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.core = Dispatch(attempts_max=ATTEMPTS_MAX)
        self.replicas = [
            Replica("http://a", frozenset({"m"}), 3),
            Replica("http://b", frozenset({"m", "n"}), 2),
        ]
        self.replicas[1].controller = controller = WindowController(2, allows_parts=True)
        self.replicas[1].streams = True
        self.pacer = controller.pacer
        self.pacer.active = self.pacer.parts.is_possible = True
        self.now_s = 1000.0
        self.flying: list[tuple[Request, Replica]] = []
        self.trials: list[tuple[Replica, Scope]] = []
        self.finished: set[tuple[ChunkKey, int, int]] = set()
        self.size: dict[ChunkKey, int] = {}
        self.done: dict[ChunkKey, int] = {}
        self.tokens = 0

    # ---- what may happen ----

    @rule(seq=st.integers(0, 5), model=st.sampled_from(MODELS), count=st.integers(1, 6))
    def lease_a_chunk(self, seq: int, model: str, count: int) -> None:
        self.tokens += 1
        key = ChunkKey("b", seq)
        if key in self.core.runs:
            model = self.core.runs[key].lease.model  # a chunk keeps its model
        run = self.core.add(
            lease(seq, model, self.tokens),
            [(n, n + 1, b"x" * (n + 1)) for n in range(count)],
            [PROMPTS[n % len(PROMPTS)] for n in range(count)],
        )
        self.size[run.key], self.done[run.key] = count, 0

    @rule(which=st.integers(0, 1), calls=st.integers(1, 4))
    def send(self, which: int, calls: int) -> None:
        replica = self.replicas[which]
        self.pacer.parts.fit(0.1, 0.05, self.now_s)
        for _ in range(calls):
            request = self.core.take(replica, self.now_s)
            if request is None:
                return
            run = request.run
            assert self.core.runs.get(run.key) is run, "of a chunk that is gone"
            assert run.lease.model in replica.models
            assert all(request is not other for other, _ in self.flying), "in flight already"
            assert self.name(request) not in self.finished, "finished already"
            assert request.part is None or request.tokens_read < request.part < request.tokens
            assert request.part is None or replica is self.replicas[1]
            self.flying.append((request, replica))

    @rule(stream=st.integers(1, 2))
    def see_a_token(self, stream: int) -> None:
        self.pacer.parts.token_seen(stream, self.now_s)

    @rule(which=st.integers(0, 1))
    def start_trials(self, which: int) -> None:
        replica = self.replicas[which]
        while (scope := self.core.trial(replica, self.now_s)) is not None:
            assert all(scope is not other for _, other in self.trials), "one at a time"
            self.trials.append((replica, scope))

    @precondition(lambda self: self.trials)
    @rule(data=st.data())
    def end_a_trial(self, data: st.DataObject) -> None:
        replica, scope = self.trials.pop()
        outcome = data.draw(st.sampled_from([None, *OUTCOMES]))
        if outcome is None:
            self.core.trial_ended(replica, scope, None, self.now_s)
        else:
            self.core.trial_ended(replica, scope, outcome, self.now_s)

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), draw=st.floats(0, 0.999))
    def end_a_call(self, data: st.DataObject, draw: float) -> None:
        request, replica = self.flying.pop(
            data.draw(st.integers(0, len(self.flying) - 1), label="which")
        )
        self.settle(request, replica, data.draw(st.sampled_from(OUTCOMES)), draw)

    @precondition(lambda self: self.flying)
    @rule(data=st.data())
    def let_a_chunk_go(self, data: st.DataObject) -> None:
        """As the shell does for a lost or stopped chunk: forget it, then abort its calls."""
        request, _ = data.draw(st.sampled_from(self.flying), label="whose chunk")
        run = request.run
        if self.core.runs.get(run.key) is run:
            self.core.remove(run.key)
        for flight in [flight for flight in self.flying if flight[0].run is run]:
            self.flying.remove(flight)
            self.core.abandon(*flight, self.now_s)

    @precondition(lambda self: self.flying)
    @rule(data=st.data())
    def take_a_call_back(self, data: st.DataObject) -> None:
        """As the shell does for a live call."""
        flight = data.draw(st.sampled_from(self.flying), label="which")
        self.flying.remove(flight)
        flight[0].gave_way(1)
        self.core.abandon(*flight, self.now_s)
        self.core.put_back(flight[0])

    @rule(seconds=st.sampled_from([0.001, 0.1, 1.0, 10.0, 100.0]))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    # ---- what must hold ----

    @invariant()
    def windows_are_kept(self) -> None:
        for replica in self.replicas:
            mine = [request for request, at in self.flying if at is replica]
            assert replica.in_flight == len(mine) <= replica.window_max
            shares = self.core._turns._shares.get(replica.name, {})
            assert {name: share.in_flight for name, share in shares.items() if share.in_flight} == (
                Counter(request.run.lease.organization_id for request in mine)
            )
            # One that was cleared while it is in flight counts until its call ends.
            suspects = [request for request in mine if request.is_suspect_in_flight]
            assert replica.suspects.in_flight == len(suspects)
            assert all(len(suspects) <= request.company for request in suspects if request.company)
            if replica is self.replicas[1]:
                unread = sum(each.unread_tokens for each in mine if each.prefill_done is False)
                assert self.pacer._watched == unread
            assert 1.0 <= replica.window <= replica.window_max
            if any(request.must_run_alone for request in mine):
                assert len(mine) == 1

    @invariant()
    def counters_agree(self) -> None:
        pending = dict.fromkeys(MODELS, 0)
        flying = {id(request) for request, _ in self.flying}
        for run in self.core.runs.values():
            pending[run.lease.model] += len(run.pending)
            waiting = [id(request) for request in run.pending]
            assert len(set(waiting)) == len(waiting), "pending twice"
            assert not flying & set(waiting), "pending and in flight"
            assert run.unfinished == self.size[run.key] - self.done[run.key]
        assert {m: self.core.ready.get(m, 0) for m in MODELS} == pending
        assert self.core.input_bytes == sum(run.input_bytes for run in self.core.runs.values())
        owners = self.core._by_model.values()
        listed = [run for each in owners for runs in each.values() for run in runs]
        assert sorted(map(id, listed)) == sorted(map(id, self.core.runs.values()))

    def teardown(self) -> None:
        """Engines are well from now on: what is left ends, without anything from outside."""
        for _ in range(2000):
            while self.flying:
                self.settle(*self.flying.pop(), OK, 0.5)
            for which in (0, 1):
                self.send(which, 4)
                self.start_trials(which)
            were_tried = bool(self.trials)
            while self.trials:
                self.core.trial_ended(*self.trials.pop(), OK, self.now_s)
            self.windows_are_kept()
            self.counters_agree()
            if self.flying or were_tried:
                continue
            if not any(run.unfinished for run in self.core.runs.values()):
                return
            wake_s = self.core.next_wake_s(self.replicas, self.now_s)
            assert wake_s is not None, "work is left and nothing would ever start it"
            assert self.now_s < wake_s <= self.now_s + limits.BACKOFF_CAP_S
            self.now_s = wake_s
        raise AssertionError("it does not end")

    # ---- inside ----

    def settle(self, request: Request, replica: Replica, outcome: Outcome, draw: float) -> None:
        if request.part is not None:
            self.core.settle_part(request, replica, outcome, self.now_s, draw)
            return
        decision = self.core.settle(request, replica, outcome, self.now_s, draw)
        assert request.tries <= ATTEMPTS_MAX
        assert request.crash_count <= limits.CRASH_COUNT_MAX
        if isinstance(decision, TryAgain):
            assert not isinstance(outcome, Succeeded | Rejected)
            assert decision.at_s <= self.now_s + limits.BACKOFF_CAP_S
            return
        if not isinstance(decision, Finish):
            assert isinstance(outcome, Failed)
            return
        assert self.name(request) not in self.finished, "finished twice"
        self.finished.add(self.name(request))
        run: ChunkRun = request.run
        if self.core.runs.get(run.key) is run:
            self.done[run.key] += 1

    @staticmethod
    def name(request: Request) -> tuple[ChunkKey, int, int]:
        return request.run.key, request.run.lease.token, request.index


DispatchMachine.TestCase.settings = settings(max_examples=examples(150), stateful_step_count=60)
test_dispatch_agrees_with_its_model = DispatchMachine.TestCase
