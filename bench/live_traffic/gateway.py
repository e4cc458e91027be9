"""A gateway in virtual time: live calls go straight to an engine, batch calls as a rule allows.

The rule is a `Rule`: how many batch calls may be in flight on a replica now. Everything else is the
same for all rules, so that nothing but the rule is compared.
"""

from collections.abc import Iterator, Sequence

from bench.live_traffic.recorder import Recorder
from lowtide.engine_sim.benchmarks.virtual import GatewayPolicy, VirtualWorld
from lowtide.engine_sim.engine import SimEngine, StepEvents
from lowtide.engine_sim.state.requests import SimRequest


class Rule:
    """How many batch calls may be in flight on one replica. One object a replica."""

    priority = 0
    """What batch calls are sent with; higher goes later, where the engine looks at it."""

    def allowed(self, now: float, in_flight: int) -> int:
        """Right now; asked after every event that may change it."""
        raise NotImplementedError

    def next_call(self, request: SimRequest, now: float) -> SimRequest | None:
        """What to send now for a batch's next request: it, a part of its prompt, or nothing."""
        return request

    def whole_of(self, call: SimRequest) -> SimRequest | None:
        """The request that the call which ended was a part of; None: it was the request."""
        return None

    def asks_again_at(self, now: float) -> float | None:
        """When one that was not taken is to be offered again; None: with the next event."""
        return None

    def sent(self, request: SimRequest, now: float) -> None:
        """A batch call went out."""

    def live_asked(
        self, request: SimRequest, own: Sequence[SimRequest], now: float
    ) -> Sequence[SimRequest]:
        """A live call came through the gateway; the batch calls to take back for it."""
        return ()

    def taken_back(self, request: SimRequest, now: float) -> None:
        """A batch call was aborted and will be sent again."""

    def step(self, events: StepEvents) -> float | None:
        """A step of the engine; only what a gateway could see of it is used. When it will be seen,
        if more may be sent then.
        """
        return None

    def first_token(self, request: SimRequest, now: float) -> None:
        """Of any call through the gateway."""

    def finished(self, request: SimRequest, now: float) -> None:
        """Of any call through the gateway."""

    def part_finished(self, part: SimRequest, whole: SimRequest, now: float) -> None:
        """A part of `whole` was read, which is next again."""

    def poll(
        self, engine: SimEngine, own: Sequence[SimRequest], now: float
    ) -> Sequence[SimRequest]:
        """Every half second, with the engine's metrics; the batch calls to take back."""
        return ()


class Gateway(GatewayPolicy):
    """`work` is what batches hold, in the order in which it is to run."""

    def __init__(
        self, rules: Sequence[Rule], work: Iterator[SimRequest], recorder: Recorder
    ) -> None:
        self.rules = rules
        self._work = work
        self._recorder = recorder
        self._own: list[dict[str | int, SimRequest]] = [{} for _ in rules]
        self._again: list[SimRequest] = []
        self._asking = [False for _ in rules]

    def on_start(self, world: VirtualWorld) -> None:
        for replica in range(len(self.rules)):
            self._fill(world, replica)

    def on_arrival(self, world: VirtualWorld, request: SimRequest) -> None:
        self._recorder.asked(request, world.now)
        loads = [engine.running + engine.waiting for engine in world.engines]
        replica = loads.index(min(loads))
        own = list(self._own[replica].values())
        for back in self.rules[replica].live_asked(request, own, world.now):
            self._take_back(world, replica, back)
        world.submit(replica, request)

    def on_step(self, world: VirtualWorld, replica: int, events: StepEvents) -> None:
        self._recorder.step(events)
        seen_at = self.rules[replica].step(events)
        if seen_at is not None:
            world.at(seen_at, lambda: self._fill(world, replica))

    def on_first_token(self, world: VirtualWorld, replica: int, request: SimRequest) -> None:
        if request.interactive:
            self._recorder.first_token(request, world.now)
        self.rules[replica].first_token(request, world.now)
        self._fill(world, replica)

    def on_finished(self, world: VirtualWorld, replica: int, request: SimRequest) -> None:
        rule = self.rules[replica]
        if not request.interactive:
            del self._own[replica][request.id]
        if (whole := rule.whole_of(request)) is not None:
            rule.part_finished(request, whole, world.now)
            self._again.append(whole)
        else:
            if not request.interactive:
                self._recorder.batch_finished(request, world.now)
            rule.finished(request, world.now)
        self._fill(world, replica)

    def on_poll(self, world: VirtualWorld) -> None:
        for replica, rule in enumerate(self.rules):
            own = list(self._own[replica].values())
            for request in rule.poll(world.engines[replica], own, world.now):
                self._take_back(world, replica, request)
            self._fill(world, replica)

    def _fill(self, world: VirtualWorld, replica: int) -> None:
        rule, own = self.rules[replica], self._own[replica]
        while len(own) < rule.allowed(world.now, len(own)):
            request = self._again.pop() if self._again else next(self._work, None)
            if request is None:
                return
            call = rule.next_call(request, world.now)
            if call is None:
                self._again.append(request)
                self._ask_again(world, replica)
                return
            call.priority = rule.priority
            own[call.id] = call
            rule.sent(call, world.now)
            world.submit(replica, call)

    def _ask_again(self, world: VirtualWorld, replica: int) -> None:
        at = self.rules[replica].asks_again_at(world.now)
        if at is not None and at > world.now and not self._asking[replica]:
            self._asking[replica] = True
            world.at(at, lambda: self._asked_again(world, replica))

    def _asked_again(self, world: VirtualWorld, replica: int) -> None:
        self._asking[replica] = False
        self._fill(world, replica)

    def _take_back(self, world: VirtualWorld, replica: int, request: SimRequest) -> None:
        made = world.engines[replica].made(request)
        if world.abort(replica, request.id) is None:
            return
        del self._own[replica][request.id]
        whole = self.rules[replica].whole_of(request)
        self.rules[replica].taken_back(request, world.now)
        if whole is None:
            self._recorder.batch_lost(made)
            whole = SimRequest(request.id, request.pieces, request.output_tokens)
        self._again.append(whole)
