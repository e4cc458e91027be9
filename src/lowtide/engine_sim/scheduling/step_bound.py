"""The simulated engine's scheduler with a bound on its steps, as the scheduler class for vLLM.

While live calls run or wait, `step_budget.decide` says which batch decodes sit out and how many
tokens batch prompts get; live calls take memory and seats from batch calls. Without live calls a
step is planned exactly as `StepScheduler` does. A request is the batch's when its priority is
above 0, as vLLM sees no other difference.
"""

from lowtide.engine_sim.profiles import StepLoad
from lowtide.engine_sim.scheduling.scheduler import StepPlan, StepScheduler
from lowtide.engine_sim.scheduling.scheduler_config import SchedulerConfig
from lowtide.engine_sim.scheduling.step_budget import BatchDecode, PromptBudget, StepLimits, decide
from lowtide.engine_sim.scheduling.step_time import StepShape, StepTimeModel
from lowtide.engine_sim.state.kv import KvCache
from lowtide.engine_sim.state.requests import SimRequest, State


def make_scheduler(config: SchedulerConfig, kv: KvCache) -> StepScheduler:
    """The scheduler that the settings ask for."""
    if config.step_limits is None:
        return StepScheduler(config, kv)
    return StepBoundScheduler(config, kv, config.step_limits)


class StepBoundScheduler(StepScheduler):
    """`step_times` is what it has learned of the engine's pace."""

    def __init__(self, config: SchedulerConfig, kv: KvCache, limits: StepLimits) -> None:
        super().__init__(config, kv)
        self.step_times = StepTimeModel()
        self._limits = limits
        self._prompts: PromptBudget | None = None
        self._served: list[SimRequest] = []
        self._served_at: dict[SimRequest, float] = {}
        self._prompts_at = 0.0

    def plan(self, now: float) -> StepPlan | None:
        live = self._live()
        decoding = [r for r in self.running if r.priority > 0 and r.state is State.DECODING]
        decision = decide(
            live,
            [] if live is None else [self._decode(r, now) for r in decoding],
            now - self._prompts_at,
            self.step_times,
            self._limits,
        )
        self._prompts = decision.prompts
        if decision.is_unchanged:
            plan = super().plan(now)
        else:
            self._served = [r for n, r in enumerate(decoding) if n not in decision.held]
            plan = self._plan_beside_live(now)
        self._note(plan, decoding, now)
        return plan

    def observe(self, load: StepLoad, duration_s: float) -> None:
        shape = StepShape(load.tokens, load.decodes, load.context, load.pairs)
        self.step_times.observe(shape, duration_s)

    def _plan_beside_live(self, now: float) -> StepPlan | None:
        plan = StepPlan()
        self._walk(plan, now)
        if self.waiting and (plan.is_empty or not plan.preempted):
            self._admit(plan, now)
        return None if plan.is_empty else plan

    def _live(self) -> StepShape | None:
        """What live calls want of the next step; None when there is none."""
        running = [r for r in self.running if r.priority <= 0]
        waiting = list(self.waiting.leading(0))
        if not running and not waiting:
            return None
        room = self.config.max_num_batched_tokens
        contexts = [self.decodes.context_of(r) for r in running if r.state is State.DECODING]
        shape = StepShape(len(contexts), len(contexts), sum(contexts))
        for request in running:
            if request.state is not State.DECODING:
                left = min(request.target - request.computed, room - shape.tokens)
                shape = shape.with_chunk(left, request.computed)
        for request in waiting:
            if shape.tokens >= room:
                break
            known = self.kv.find(request)[1] * self.kv.block_tokens
            shape = shape.with_chunk(min(request.target - known, room - shape.tokens), known)
        return shape

    def _decode(self, request: SimRequest, now: float) -> BatchDecode:
        idle_s = now - self._served_at.get(request, now)
        return BatchDecode(self.decodes.context_of(request), idle_s)

    def _order(self) -> list[SimRequest]:
        """Live decodes, batch decodes that do not sit out, live prompts, batch prompts."""
        if self._prompts is None:
            return super()._order()
        live = [r for r in self.running if r.priority <= 0]
        return [
            *(r for r in live if r.state is State.DECODING),
            *self._served,
            *(r for r in live if r.state is not State.DECODING),
            *(r for r in self.running if r.priority > 0 and r.state is not State.DECODING),
        ]

    def _chunk(self, request: SimRequest, known: int, budget: int) -> int:
        wanted = super()._chunk(request, known, budget)
        if self._prompts is None or request.priority <= 0:
            return wanted
        return self._prompts.grant(wanted, known)

    def _note(self, plan: StepPlan | None, decoding: list[SimRequest], now: float) -> None:
        """When each batch request had its last token, and the batch its last prompt tokens."""
        if plan is None:
            return
        served = self._served_at
        if self._prompts is None:
            served.clear()
            served.update(dict.fromkeys(decoding, now))
            self._prompts_at = now
            return
        for request in decoding:
            if request.state is State.DECODING and request not in plan.postponed:
                served[request] = now
        for request in plan.prefills:
            if request.priority > 0:
                served[request] = now
                self._prompts_at = now
        for gone in [r for r in served if r not in self.running]:
            del served[gone]
