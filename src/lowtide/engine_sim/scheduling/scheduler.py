"""What one step computes: vLLM's V1 scheduler, as read in its source (scheduling.md section 1.4).

Requests that run go first, in the order of their admission: one token for each that decodes, a
chunk for each whose prompt is not finished. A request that needs a block when none is free preempts
another, which starts over later. Only when nothing was preempted are waiting requests admitted,
while tokens, seats and KV for their whole prompt last; an admission preempts none, unless
`preempts_for_rank` says so. `plan` decides a step, `complete` records what came of it.

Where nothing can go wrong in a step (blocks and tokens suffice) the decodes are dealt with as one
number; else `_walk` takes them one by one.
"""

from dataclasses import dataclass, field
from typing import Literal

from lowtide.engine_sim.profiles import StepLoad
from lowtide.engine_sim.scheduling.decodes import DecodeSet
from lowtide.engine_sim.scheduling.scheduler_config import SchedulerConfig
from lowtide.engine_sim.scheduling.waiting import WaitingQueue
from lowtide.engine_sim.state.kv import KvCache
from lowtide.engine_sim.state.requests import SimRequest, State


@dataclass(slots=True)
class StepPlan:
    """One step. A request that leaves before the step is over is taken out of it again."""

    decodes: int = 0
    interactive_decodes: int = 0
    context: int = 0
    chunk_tokens: int = 0
    prefills: dict[SimRequest, tuple[int, int]] = field(default_factory=dict)
    """Tokens that had KV before, and the chunk."""
    postponed: set[SimRequest] = field(default_factory=set)
    """Decodes that get nothing in this step."""
    is_dealt: bool = False
    """The running requests have their tokens, all that are not in `postponed`."""
    unreached: set[SimRequest] | None = None
    """While walking: running requests that were not dealt with yet."""
    admitted: list[SimRequest] = field(default_factory=list)
    preempted: list[SimRequest] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        return self.decodes + self.chunk_tokens

    @property
    def is_empty(self) -> bool:
        return not self.decodes and not self.prefills

    def load(self) -> StepLoad:
        sampled = sum(r.computed >= r.target for r in self.prefills)
        pairs = sum(chunk * (before + chunk / 2) for before, chunk in self.prefills.values())
        return StepLoad(
            tokens=self.tokens,
            decodes=self.decodes,
            prefills=len(self.prefills),
            sampled=self.decodes + sampled,
            context=self.context,
            pairs=pairs,
        )


class StepScheduler:
    """`waiting` and `running` are for reading; `running` is in order of admission."""

    def __init__(self, config: SchedulerConfig, kv: KvCache) -> None:
        self.config = config
        self.kv = kv
        self.waiting = WaitingQueue(by_priority=config.scheduling_policy == "priority")
        self.running: dict[SimRequest, None] = {}
        self.decodes = DecodeSet(kv.block_tokens)
        self._prefilling: dict[SimRequest, None] = {}
        self._chunk_max = config.long_prefill_token_threshold or config.max_num_batched_tokens
        self._watermark = int(config.watermark * kv.blocks)
        self._preempts_last = config.scheduling_policy != "priority" and config.retraction == "vllm"

    def plan(self, now: float) -> StepPlan | None:
        """The next step, for which blocks are taken; None when there is nothing to do."""
        plan = StepPlan()
        while (lack := self._take_all(plan)) is not None:
            if lack == "blocks" and self._preempts_last:
                # The same as walking: whoever comes before has what it needs, or preempts it too.
                self._preempt(next(reversed(self.running)), plan, now)
            else:
                self._walk(plan, now)
                break
        if self.waiting and (plan.is_empty or not plan.preempted):
            self._admit(plan, now)
        return None if plan.is_empty else plan

    def complete(self, plan: StepPlan) -> list[SimRequest]:
        """Every request that got a token of its own in the step: those that decode on are left
        out. A request in it is FINISHED, or DECODING because its prompt was completed."""
        for request in plan.postponed:
            self.decodes.postpone(request)
        reached = self.decodes.advance(plan.decodes)
        for request in reached:
            self.decodes.remove(request)
            self._finish(request)
        for request in plan.prefills:
            if request.computed < request.target:
                continue
            del self._prefilling[request]
            request.made += 1
            if request.made == request.output_tokens:
                self._finish(request)
            else:
                self.decodes.add(request)
            reached.append(request)
        return reached

    def observe(self, load: StepLoad, duration_s: float) -> None:
        """Called with what each step took."""

    def made(self, request: SimRequest) -> int:
        """Tokens generated so far, in completed steps."""
        if request.state is State.DECODING:
            return self.decodes.made(request)
        return request.made

    def abort(self, request: SimRequest, plan: StepPlan | None) -> None:
        """Forgets a request that waits or runs; `plan` is the step under way, if any."""
        if request.state is State.WAITING:
            self.waiting.discard(request, State.ABORTED)
        else:
            self._leave(request, plan)
            request.state = State.ABORTED

    def _take_all(self, plan: StepPlan) -> Literal["tokens", "blocks"] | None:
        """Lets all that run have what they want, if that can be told without looking at each; or
        says what there is too little of."""
        decodes = self.decodes
        budget = self.config.max_num_batched_tokens - decodes.count
        blocks = decodes.blocks_due()
        chunks = []
        for request in self._prefilling:
            wanted = min(request.target - request.computed, self._chunk_max)
            chunk = min(wanted, budget)
            if chunk < wanted and request is not next(reversed(self.running)):
                return "tokens"  # those behind it may have to go without
            budget -= chunk
            after = request.computed + chunk
            blocks += self.kv.blocks_for(after) - self.kv.blocks_for(request.computed)
            chunks.append((request, chunk))
        if blocks > self.kv.free:
            return "blocks"
        plan.is_dealt = True
        plan.decodes = decodes.count
        plan.interactive_decodes = decodes.interactive
        plan.context = decodes.context
        self.kv.take(decodes.blocks_due())
        for request, chunk in chunks:
            if chunk:
                self._compute(plan, request, chunk)
        return None

    def _walk(self, plan: StepPlan, now: float) -> None:
        """Gives the running requests their tokens one by one, with preemptions."""
        budget_max = self.config.max_num_batched_tokens
        plan.unreached = set(self.running)
        for request in self._order():
            if request not in plan.unreached:
                continue  # preempted
            wanted = 1
            if request.state is State.PREFILLING:
                wanted = self._chunk(request, request.computed, budget_max - plan.tokens)
            if plan.tokens >= budget_max:
                break
            if not wanted:
                continue  # it stays in `unreached`, and keeps what it has
            if not self._grant(request, wanted, plan, now):
                break
            plan.unreached.discard(request)
        plan.postponed = {r for r in plan.unreached if r.state is State.DECODING}
        plan.unreached = None
        plan.is_dealt = True

    def _order(self) -> list[SimRequest]:
        """The running requests in the order in which a walk serves them."""
        return list(self.running)

    def _chunk(self, request: SimRequest, known: int, budget: int) -> int:
        """What a request with KV for `known` tokens computes of its prompt, if it gets KV for it;
        0: it sits this step out."""
        return min(request.target - known, self._chunk_max, budget)

    def _grant(self, request: SimRequest, wanted: int, plan: StepPlan, now: float) -> bool:
        """Grants blocks for `wanted` more tokens, at the cost of others.

        Returns False when the request itself was preempted; as in vLLM, later ones then get
        nothing in this step.
        """
        if request.state is State.DECODING:
            blocks = int(self.decodes.needs_block(request))
        else:
            before = self.kv.blocks_for(request.computed)
            blocks = self.kv.blocks_for(request.computed + wanted) - before
        while self.kv.free < blocks:
            victim = self._victim()
            self._preempt(victim, plan, now)
            if victim is request:
                return False
        if request.state is State.DECODING:
            self.kv.take(blocks)
            plan.decodes += 1
            plan.interactive_decodes += request.interactive
            plan.context += self.decodes.context_of(request)
        else:
            self._compute(plan, request, wanted)
        return True

    def _admit(self, plan: StepPlan, now: float) -> None:
        config, kv = self.config, self.kv
        if config.scheduling_policy == "lpm":
            self.waiting.order_by(lambda r: kv.find(r)[1])
        budget = config.max_num_batched_tokens - plan.tokens
        while budget > 0 and (request := self.waiting.head()) is not None:
            if len(self.running) >= config.max_num_seqs:
                if self._make_room(request, 0, plan, now):
                    continue
                break
            hits, cached, spare = kv.find(request)
            known = cached * kv.block_tokens
            chunk = self._chunk(request, known, budget)
            if not chunk:
                break
            whole = request.target if config.reserve_full_isl else known + chunk
            needed = kv.blocks_for(whole) - cached + spare + self._watermark
            if needed > kv.free:
                if self._make_room(request, needed, plan, now):
                    continue
                break
            self.waiting.remove_head()
            kv.admit(request, hits)
            self._enter(request, known, plan, now)
            self._compute(plan, request, chunk)
            budget -= chunk

    def _enter(self, request: SimRequest, known: int, plan: StepPlan, now: float) -> None:
        request.state = State.PREFILLING
        request.computed = known
        if request.scheduled_at is None:
            request.scheduled_at = now
            request.cached_tokens = known
        self.running[request] = None
        self._prefilling[request] = None
        plan.admitted.append(request)

    def _compute(self, plan: StepPlan, request: SimRequest, chunk: int) -> None:
        """Computes a chunk of a prompt. Its blocks can be found at once, even by
        others in this step.
        """
        before, after = request.computed, request.computed + chunk
        self.kv.take(self.kv.blocks_for(after) - self.kv.blocks_for(before))
        request.computed = after
        self.kv.publish(request, after)
        plan.prefills[request] = (before, chunk)
        plan.chunk_tokens += chunk

    def _make_room(self, request: SimRequest, blocks: int, plan: StepPlan, now: float) -> bool:
        """Preempts requests of lower rank until `request` has a seat and `blocks` free blocks.
        Preempts none and returns False when all of them together would not do.
        """
        if not self.config.preempts_for_rank:
            return False
        free, victims = self.kv.free, []
        seats = self.config.max_num_seqs - len(self.running)
        for other in sorted(self.running, key=lambda r: (-r.priority, -r.number)):
            if other.priority - request.priority <= self.config.preempt_gap:
                break
            if seats > 0 and free >= blocks:
                break
            victims.append(other)
            seats += 1
            computed = self._computed(other, plan)
            free += self.kv.would_free(other, self.kv.blocks_for(computed))
        if not victims or seats <= 0 or free < blocks:
            return False
        for victim in victims:
            self._preempt(victim, plan, now)
        return True

    def _victim(self) -> SimRequest:
        if self.config.retraction == "sglang":
            return max(
                self.running, key=lambda r: (r.priority, -self.made(r), r.prompt_tokens, r.number)
            )
        if self.config.scheduling_policy == "priority":
            return max(self.running, key=lambda r: (r.priority, r.number))
        return next(reversed(self.running))

    def _preempt(self, request: SimRequest, plan: StepPlan, now: float) -> None:
        """Frees the request's blocks; it waits, and computes its prompt and what it
        generated again.
        """
        self._leave(request, plan)
        request.target = request.prompt_tokens + request.made
        request.computed = 0
        request.preemptions += 1
        request.stalled_at = now
        self.waiting.put_back(request)
        plan.preempted.append(request)

    def _leave(self, request: SimRequest, plan: StepPlan | None) -> None:
        """Removes a request from the running ones, the plan and the cache."""
        computed = self._computed(request, plan)
        if request.state is State.DECODING:
            if plan is not None and self._advances(request, plan):
                plan.decodes -= 1
                plan.interactive_decodes -= request.interactive
                plan.context -= self.decodes.context_of(request)
            self.decodes.remove(request)
        else:
            del self._prefilling[request]
        if plan is not None:
            plan.chunk_tokens -= plan.prefills.pop(request, (0, 0))[1]
            plan.postponed.discard(request)
            if plan.unreached is not None:
                plan.unreached.discard(request)
        self._release(request, computed)

    def _finish(self, request: SimRequest) -> None:
        request.state = State.FINISHED
        self._release(request, request.prompt_tokens + request.made - 1)

    def _release(self, request: SimRequest, computed: int) -> None:
        del self.running[request]
        self.kv.release(request, computed, self.kv.blocks_for(computed))

    def _advances(self, request: SimRequest, plan: StepPlan) -> bool:
        """Whether a decoding request has a token in this plan already."""
        if plan.is_dealt:
            return request not in plan.postponed
        return plan.unreached is not None and request not in plan.unreached

    def _computed(self, request: SimRequest, plan: StepPlan | None) -> int:
        """Tokens for which it has blocks: with a plan, those that this step computes as well."""
        if request.state is not State.DECODING:
            return request.computed
        known = self.decodes.context_of(request) - 1
        return known + int(plan is not None and self._advances(request, plan))
