"""A gateway in virtual time: live calls go straight to an engine, batch calls as a rule allows.

The rule is a `Rule`: how many batch calls may be in flight on a replica now. Everything else is the
same for all rules, so that nothing but the rule is compared.
"""

from collections.abc import Iterator, Sequence

from bench.live_traffic.recorder import Recorder
from lowtide.testing.engine_sim.engine import SimEngine, StepEvents
from lowtide.testing.engine_sim.requests import SimRequest
from lowtide.testing.engine_sim.virtual import GatewayPolicy, VirtualWorld


class Rule:
    """How many batch calls may be in flight on one replica. One object a replica."""

    priority = 0
    """What batch calls are sent with; higher goes later, where the engine looks at it."""

    def allowed(self, now: float, in_flight: int) -> int:
        """Right now; asked after every event that may change it."""
        raise NotImplementedError

    def sent(self, request: SimRequest, now: float) -> None:
        """A batch call went out."""

    def step(self, events: StepEvents) -> None:
        """A step of the engine; only what a gateway could see of it is used."""

    def first_token(self, request: SimRequest, now: float) -> None:
        """Of any call through the gateway."""

    def finished(self, request: SimRequest, now: float) -> None:
        """Of any call through the gateway."""

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

    def on_start(self, world: VirtualWorld) -> None:
        for replica in range(len(self.rules)):
            self._fill(world, replica)

    def on_arrival(self, world: VirtualWorld, request: SimRequest) -> None:
        self._recorder.asked(request, world.now)
        super().on_arrival(world, request)

    def on_step(self, world: VirtualWorld, replica: int, events: StepEvents) -> None:
        self._recorder.step(events)
        self.rules[replica].step(events)

    def on_first_token(self, world: VirtualWorld, replica: int, request: SimRequest) -> None:
        if request.interactive:
            self._recorder.first_token(request, world.now)
        self.rules[replica].first_token(request, world.now)
        self._fill(world, replica)

    def on_finished(self, world: VirtualWorld, replica: int, request: SimRequest) -> None:
        if not request.interactive:
            del self._own[replica][request.id]
            self._recorder.batch_finished(request, world.now)
        self.rules[replica].finished(request, world.now)
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
            request = self._next()
            if request is None:
                return
            request.priority = rule.priority
            own[request.id] = request
            rule.sent(request, world.now)
            world.submit(replica, request)

    def _next(self) -> SimRequest | None:
        return self._again.pop() if self._again else next(self._work, None)

    def _take_back(self, world: VirtualWorld, replica: int, request: SimRequest) -> None:
        made = world.engines[replica].made(request)
        if world.abort(replica, request.id) is None:
            return
        del self._own[replica][request.id]
        self._recorder.batch_lost(made)
        again = SimRequest(request.id, request.pieces, request.output_tokens)
        self._again.append(again)
