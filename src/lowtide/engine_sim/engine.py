"""One simulated engine: requests go in, steps take time, tokens come out. No clock of its own.

`begin_step(now)` decides what a step computes and how long it takes; `end_step()` is called when
that time has passed and says what came of it. Between the two, requests may be submitted (they
take part from the next step on) and aborted. `step` is both at once, for callers who need neither.
The same sequence of calls gives the same results, noise included.
"""

import random
from dataclasses import dataclass, field
from typing import Final

from lowtide.engine_sim.profiles import Profile, StepLoad
from lowtide.engine_sim.scheduling.scheduler import StepPlan
from lowtide.engine_sim.scheduling.scheduler_config import SchedulerConfig
from lowtide.engine_sim.scheduling.step_bound import make_scheduler
from lowtide.engine_sim.state.kv import KvCache
from lowtide.engine_sim.state.requests import SimRequest, State

STEP_NOISE: Final = 0.03
"""Sigma of the lognormal factor that real steps vary by."""


@dataclass(slots=True)
class StepEvents:
    """What one step did. Requests that decode on are only counted."""

    started_at: float
    duration_s: float
    admitted: list[SimRequest]
    preempted: list[SimRequest]
    first_tokens: list[SimRequest] = field(default_factory=list)
    resumed: list[SimRequest] = field(default_factory=list)
    """The first token after a preemption; `stalled_at` says since when it had to wait."""
    finished: list[SimRequest] = field(default_factory=list)
    """A request that wants one token is in `first_tokens` as well."""
    load: StepLoad = field(default_factory=StepLoad)
    """What was computed. Each of its `decodes` got a further token, and the gap to the one before
    is this step's duration."""
    interactive_decodes: int = 0

    @property
    def ended_at(self) -> float:
        return self.started_at + self.duration_s


@dataclass(slots=True)
class Counters:
    """Counts since the start; names as in vLLM's metrics."""

    prompt_tokens: int = 0
    prompt_tokens_cached: int = 0
    generation_tokens: int = 0
    prefix_cache_queries: int = 0
    prefix_cache_hits: int = 0
    preemptions: int = 0
    finished: int = 0
    aborted: int = 0
    steps: int = 0
    step_tokens: int = 0
    """Tokens computed by all steps, recomputed ones included."""
    busy_s: float = 0.0


class SimEngine:
    """One simulated engine; see the module's text. `slowness` multiplies the time of the steps that
    begin from now on.
    """

    def __init__(
        self,
        profile: Profile,
        config: SchedulerConfig | None = None,
        *,
        kv_tokens: int | None = None,
        block_tokens: int = 16,
        prefix_caching: bool = True,
        noise: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.profile = profile
        self.config = config or SchedulerConfig()
        self.kv = KvCache(
            profile.kv_tokens if kv_tokens is None else kv_tokens,
            block_tokens=block_tokens,
            finds_prefixes=prefix_caching,
        )
        self.counters = Counters()
        self.slowness = 1.0
        self._scheduler = make_scheduler(self.config, self.kv)
        self._noise = noise
        self._random = random.Random(seed)
        self._requests: dict[str | int, SimRequest] = {}
        self._submitted = 0
        self._plan: StepPlan | None = None
        self._events = StepEvents(0.0, 0.0, [], [])

    @property
    def running(self) -> int:
        return len(self._scheduler.running)

    @property
    def waiting(self) -> int:
        return len(self._scheduler.waiting)

    @property
    def kv_usage(self) -> float:
        """Share of KV blocks in use, 0 to 1."""
        return self.kv.usage

    @property
    def has_work(self) -> bool:
        return bool(self._requests)

    @property
    def is_stepping(self) -> bool:
        """Whether a step is between `begin_step` and `end_step`."""
        return self._plan is not None

    def submit(self, request: SimRequest, now: float) -> None:
        """Queue a request. Raises ValueError when it could never fit, or its id is in use."""
        watermark = int(self.config.watermark * self.kv.blocks)
        tokens = request.prompt_tokens + request.output_tokens
        if self.kv.blocks_for(tokens) + watermark > self.kv.blocks:
            raise ValueError(f"{tokens} tokens do not fit the KV cache")
        if request.id in self._requests:
            raise ValueError(f"request {request.id} is here already")
        if request.state is not State.NEW:
            raise ValueError(f"request {request.id} was submitted before")
        self._submitted += 1
        request.number = self._submitted
        request.arrived_at = now
        self._requests[request.id] = request
        self._scheduler.waiting.add(request)

    def abort(self, request_id: str | int) -> SimRequest | None:
        """Forgets a request; None when it is not here (any more). `made` keeps what it had."""
        request = self._requests.pop(request_id, None)
        if request is not None:
            self._scheduler.abort(request, self._plan)
            self.counters.aborted += 1
        return request

    def crash(self) -> list[SimRequest]:
        """Loses all requests, the step under way and the cache; those that were lost."""
        lost = self.requests()
        for request in lost:
            self.abort(request.id)
        self._plan = None
        self.kv.forget()
        return lost

    def made(self, request: SimRequest) -> int:
        """Tokens that a request has generated in completed steps."""
        return self._scheduler.made(request)

    def requests(self) -> list[SimRequest]:
        """All requests that wait or run, in order of arrival."""
        return list(self._requests.values())

    def begin_step(self, now: float) -> float | None:
        """Starts a step; how many seconds it takes, or None when there is nothing to compute."""
        plan = self._scheduler.plan(now)
        if plan is None:
            return None
        duration = self.profile.step_ms(plan.load()) * 1e-3 * self.slowness
        if self._noise:
            duration *= self._random.lognormvariate(0.0, self._noise)
        self._plan = plan
        self._events = StepEvents(now, duration, plan.admitted, plan.preempted)
        self._count_admissions(plan)
        return duration

    def end_step(self) -> StepEvents:
        """Completes the step that was begun; times of its events are its end."""
        plan, events = self._plan, self._events
        if plan is None:
            raise ValueError("no step was begun")
        self._plan = None
        events.load = plan.load()
        self._scheduler.observe(events.load, events.duration_s)
        events.interactive_decodes = plan.interactive_decodes
        now = events.ended_at
        for request in self._scheduler.complete(plan):
            if request in plan.prefills:
                self.counters.generation_tokens += 1
                if request.first_token_at is None:
                    request.first_token_at = now
                    events.first_tokens.append(request)
                    self.counters.prompt_tokens += request.prompt_tokens
                    self.counters.prompt_tokens_cached += request.cached_tokens
                else:
                    events.resumed.append(request)
            if request.state is State.FINISHED:
                request.finished_at = now
                del self._requests[request.id]
                events.finished.append(request)
        self._count_step(events)
        return events

    def step(self, now: float) -> StepEvents | None:
        """A whole step at once; None when there is nothing to compute."""
        return None if self.begin_step(now) is None else self.end_step()

    def _count_admissions(self, plan: StepPlan) -> None:
        self.counters.preemptions += len(plan.preempted)
        for request in plan.admitted:
            if not request.preemptions:
                self.counters.prefix_cache_queries += request.prompt_tokens
                self.counters.prefix_cache_hits += request.cached_tokens

    def _count_step(self, events: StepEvents) -> None:
        counters = self.counters
        counters.generation_tokens += events.load.decodes
        counters.finished += len(events.finished)
        counters.steps += 1
        counters.step_tokens += events.load.tokens
        counters.busy_s += events.duration_s
