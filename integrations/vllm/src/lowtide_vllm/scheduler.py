"""The scheduler class for vLLM's --scheduler-cls: vLLM's own, with a bound on the batch's part.

vLLM plans each step itself. Before it does, `step_budget.decide` says which batch decodes sit out
and what batch prompts may have; vLLM asks how many tokens a request gets in one method that it has
for another purpose (`_reserve_prefill_lookahead`, called for each running and each waiting
request), and the answer is given there: 0 tokens make it pass over a running request and admit no
further waiting one. Before the step, batch calls are preempted if a live call waits for their
memory, their seat or the place of their LoRA adapter. As calls sit out, their adapters are counted
here, too, before one more is admitted (`_handle_blocked_waiting_request`): vLLM counts those of the
step alone, and its engine ends when more calls run than it has places for. Nothing else of vLLM is
changed. Without live calls nothing is changed at all.

A request is the batch's when its priority is above 0.
"""

import time
from collections.abc import Iterable
from itertools import takewhile
from typing import Any, Final

import vllm
from vllm.logger import init_logger
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus

from .requirements import Unsupported, check, limits_of
from .step_budget import BatchDecode, PromptBudget, decide
from .step_time import StepShape, StepTimeModel

logger = init_logger(f"vllm.{__name__}")  # vLLM shows what its own loggers say alone

ROOM_AGAIN_S: Final = 1.0
"""Room is made for one waiting call at most so often: it may wait for something else as well."""
STEPS_IN_FLIGHT_MAX: Final = 16


class _StepBound(Scheduler):
    """`step_times` is what it has learned of the engine's pace."""

    plans_ahead = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        config = kwargs["vllm_config"] if "vllm_config" in kwargs else args[0]
        kv_cache = kwargs["kv_cache_config"] if "kv_cache_config" in kwargs else args[1]
        try:
            check(config, kv_cache, vllm.__version__, plans_ahead=self.plans_ahead)
            self._limits = limits_of(config)
        except Unsupported as refusal:
            # Any other exception vLLM logs with its traceback, where nobody finds the sentence.
            logger.error("%s", refusal)
            raise SystemExit(1) from refusal
        super().__init__(*args, **kwargs)
        self.step_times = StepTimeModel()
        self._prompts: PromptBudget | None = None
        self._held: frozenset[str] = frozenset()
        self._counted: set[str] = set()
        """Live requests whose tokens the budget has counted already."""
        self._served_at: dict[str, float] = {}
        self._prompts_at = 0.0
        self._room_at: tuple[str, float] = ("", 0.0)
        self._adapters: set[int] = set()
        """LoRA adapters of all calls that run, whether or not they sit out this step."""
        self._in_flight: dict[int, tuple[StepShape, float]] = {}
        self._output_at = 0.0
        logger.info("Batch work gets what live calls leave of a step: %s", self._limits)

    def schedule(self, *args: Any, **kwargs: Any) -> SchedulerOutput:
        """vLLM's, with the batch's part bounded while live calls run or wait."""
        now = time.monotonic()
        batch = [request for request in self.running if request.priority > 0]
        self._adapters = self._running_adapters()
        live = self._live_work(batch, now)
        decodes = [request for request in batch if self._wanted(request) <= 1]
        decision = decide(
            live,
            [self._batch_decode(request, now) for request in decodes] if live else [],
            now - self._prompts_at,
            self.step_times,
            self._limits,
        )
        self._prompts = decision.prompts
        self._held = frozenset(decodes[place].request_id for place in decision.held)
        try:
            output = super().schedule(*args, **kwargs)
        finally:
            self._prompts, self._held = None, frozenset()
        self._note(output, is_beside_live=live is not None, now=now)
        return output

    def update_from_output(
        self, scheduler_output: SchedulerOutput, model_runner_output: ModelRunnerOutput
    ) -> Any:
        """vLLM's; the step's time is learned."""
        now = time.monotonic()
        step = self._in_flight.pop(id(scheduler_output), None)
        if step is not None:
            shape, scheduled_at = step
            self.step_times.observe(shape, now - max(scheduled_at, self._output_at))
        self._output_at = now
        return super().update_from_output(scheduler_output, model_runner_output)

    def _reserve_prefill_lookahead(
        self, request: Request, num_computed_tokens: int, num_new_tokens: int
    ) -> int:
        """How many of `num_new_tokens` a request gets in this step: vLLM's question, our answer."""
        tokens = super()._reserve_prefill_lookahead(request, num_computed_tokens, num_new_tokens)
        if request.status != RequestStatus.RUNNING:
            self._adapters |= _adapters([request])
        budget = self._prompts
        if budget is None:
            return tokens
        if request.priority <= 0:
            if request.request_id not in self._counted:
                budget.charge(tokens, num_computed_tokens)
            return tokens
        if request.request_id in self._held:
            return 0
        if tokens <= 1 and request.status == RequestStatus.RUNNING:
            return tokens  # a decode, which the budget holds already
        return budget.grant(tokens, num_computed_tokens)

    def _handle_blocked_waiting_request(self, request: Request) -> bool:
        """vLLM's; also False, so that others pass it by, while its adapter has no place."""
        return super()._handle_blocked_waiting_request(request) and self._has_place(request)

    def _running_adapters(self) -> set[int]:
        return _adapters(self.running) if self.lora_config else set()

    def _has_place(self, request: Request) -> bool:
        """Whether its adapter, if it has one, runs already or may run beside those that do."""
        known = self._adapters | _adapters([request])
        return known == self._adapters or len(known) <= self.lora_config.max_loras

    def _live_work(self, batch: list[Request], now: float) -> StepShape | None:
        """What live calls want of the step; None when there is none that could have any of it."""
        waiting = [*filter(_is_ready, takewhile(lambda r: r.priority <= 0, self.waiting))]
        if len(batch) == len(self.running) and not waiting:
            return None
        if waiting:
            self._make_room(waiting[0], batch, now)
        self._counted = set()
        shape, room = StepShape(), self._limits.tokens_max
        for request in self.running:
            if request.priority <= 0:
                self._counted.add(request.request_id)
                wanted = min(self._wanted(request), room - shape.tokens)
                if wanted <= 1:
                    shape = shape.with_decode(request.num_computed_tokens + 1)
                else:
                    shape = shape.with_chunk(wanted, request.num_computed_tokens)
        for request in waiting:
            if shape.tokens >= room:
                break
            if not self._has_place(request):
                continue
            self._counted.add(request.request_id)
            shape = shape.with_chunk(min(request.num_tokens, room - shape.tokens), 0)
        return shape

    def _make_room(self, head: Request, batch: list[Request], now: float) -> None:
        """Preempts batch calls, the youngest first, until a live call has a seat and memory, and
        those with one adapter before if it has no place for its own.

        Preempts none where all of them would not do. `batch` is left with those that run on.
        """
        if self._room_at[0] == head.request_id and now - self._room_at[1] < ROOM_AGAIN_S:
            return
        groups = len(self.kv_cache_config.kv_cache_groups)
        lacking = groups * -(-head.num_tokens // self.block_size)
        lacking -= self.kv_cache_manager.block_pool.get_num_free_blocks()
        seats = self.max_num_active_reqs - len(self.running)
        has_place = self._has_place(head)
        if seats > 0 and lacking <= 0 and has_place:
            return
        first = [] if has_place else self._calls_of_one_adapter(batch)
        if not has_place and not first:
            return
        youngest = sorted(batch, key=lambda r: (r.priority, r.arrival_time), reverse=True)
        victims = []
        for request in [*first, *(each for each in youngest if each not in first)]:
            if len(victims) >= len(first) and seats > 0 and lacking <= 0:
                break
            victims.append(request)
            seats += 1
            lacking -= groups * (request.num_computed_tokens // self.block_size)
        if seats <= 0 or lacking > 0:
            return
        self._room_at = head.request_id, now
        for request in victims:
            self.running.remove(request)
            self._preempt_request(request, now)
            batch.remove(request)
        self._adapters = self._running_adapters()

    def _calls_of_one_adapter(self, batch: list[Request]) -> list[Request]:
        """The batch calls with the adapter that fewest of them have and no live call; or none."""
        spare = _adapters(batch) - _adapters(r for r in self.running if r.priority <= 0)
        calls = ([r for r in batch if _adapters([r]) == {adapter}] for adapter in sorted(spare))
        return min(calls, key=len, default=[])

    def _batch_decode(self, request: Request, now: float) -> BatchDecode:
        idle_s = now - self._served_at.get(request.request_id, now)
        return BatchDecode(request.num_computed_tokens + 1, idle_s)

    @staticmethod
    def _wanted(request: Request) -> int:
        """Tokens that vLLM would compute of it: all that are known and have no KV."""
        known: int = request.num_tokens_with_spec + request.num_output_placeholders
        return known - request.num_computed_tokens

    def _note(self, output: SchedulerOutput, *, is_beside_live: bool, now: float) -> None:
        """Remembers what the step computes, and when each batch request was served."""
        shape, served = StepShape(), {}
        for request_id, tokens in output.num_scheduled_tokens.items():
            request = self.requests[request_id]
            before = request.num_computed_tokens - tokens
            if tokens == 1:
                shape = shape.with_decode(before + 1)
            else:
                shape = shape.with_chunk(tokens, before)
            if request.priority > 0:
                served[request_id] = now
                if tokens > 1:
                    self._prompts_at = now
        if is_beside_live:
            running = {request.request_id for request in self.running}
            kept = {name: at for name, at in self._served_at.items() if name in running}
            self._served_at = kept | served
        else:
            self._served_at, self._prompts_at = served, now
        if shape.tokens:
            if len(self._in_flight) >= STEPS_IN_FLIGHT_MAX:
                self._in_flight.clear()
            self._in_flight[id(output)] = shape, time.monotonic()


def _adapters(requests: Iterable[Request]) -> set[int]:
    """The LoRA adapters that they have."""
    return {r.lora_request.lora_int_id for r in requests if r.lora_request is not None}


def _is_ready(request: Request) -> bool:
    """Whether it waits for nothing but its turn: no grammar, and no next part of a session."""
    if request.status == RequestStatus.WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR:
        asked = request.structured_output_request
        return asked is not None and asked.grammar is not None
    return request.status in (RequestStatus.WAITING, RequestStatus.PREEMPTED)


class StepBoundScheduler(_StepBound, AsyncScheduler):
    """The one to choose: vLLM goes on planning a step while the one before it runs."""

    plans_ahead = True


class StepBoundSyncScheduler(_StepBound):
    """For engines without asynchronous scheduling, as vLLM's on a CPU."""
