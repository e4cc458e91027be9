"""Our rule: core.dispatch.replica with its controller and guard, fed as the worker feeds them.

What the product cannot see is not used: first tokens of batch calls are seen beside live traffic,
where the product streams them, and HOP_S late; the engine's numbers come twice a second, its
histograms with vLLM's edges.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Final

from bench.live_traffic.gateway import Rule
from lowtide import limits
from lowtide.core.capacity.engine_metrics import BatchCall, EngineMetrics, LiveSeen
from lowtide.core.capacity.prompt_parts import least_part
from lowtide.core.capacity.window import WindowController
from lowtide.core.dispatch.replica import Replica
from lowtide.core.usage import Usage
from lowtide.engine_sim.engine import SimEngine, StepEvents
from lowtide.engine_sim.state.requests import Piece, SimRequest

ITL_EDGES: Final = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5),
    *(0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, float("inf")),
)
"""vLLM's buckets of vllm:inter_token_latency_seconds."""


HOP_S: Final = 0.003
"""From an engine's first token until the next prompt, sent for it, is there."""


class Ours(Rule):
    """`sees_live`: live calls come through Lowtide; else they go straight to the engine."""

    def __init__(
        self,
        *,
        priority: int = 0,
        sees_live: bool = True,
        yields: bool = True,
        streams: bool = True,
        parts: bool = True,
        window_max: int = limits.WINDOW_MAX,
        itl_slo_s: float = limits.ITL_SLO_MS / 1000,
        ttft_slo_s: float = limits.TTFT_SLO_MS / 1000,
    ) -> None:
        self.priority = priority
        self._sees_live, self._yields = sees_live, yields
        self._ttft_slo_s = ttft_slo_s
        self.controller = WindowController(
            window_max, itl_slo_s=itl_slo_s, ttft_slo_s=ttft_slo_s, allows_parts=parts and streams
        )
        self.replica = Replica("sim", frozenset({"m"}), window_max, controller=self.controller)
        self.replica.streams = streams
        self._sent_at: dict[str | int, float] = {}
        self._live: dict[str | int, tuple[float, int]] = {}
        self._unanswered: dict[str | int, float] = {}
        self._left: dict[str | int, int] = {}
        self._is_read: dict[str | int, bool] = {}
        self._heard: list[tuple[float, int]] = []
        self._steps_seen: list[float] = []
        self._wholes: dict[str | int, tuple[SimRequest, int]] = {}
        self._gap_counts = [0] * len(ITL_EDGES)

    def allowed(self, now: float, in_flight: int) -> int:
        return in_flight + self.replica.has_room(now)

    def next_call(self, request: SimRequest, now: float) -> SimRequest | None:
        self._hear(now)
        left = self._unread(request)
        least = least_part(request.prompt_tokens)
        size = self.controller.pacer.size_to_send(left, least, now)
        if size >= left:
            return request
        if size <= 0:
            return None
        ends = request.prompt_tokens - left + size
        part = SimRequest(f"{request.id}/{ends}", _beginning(request, ends), 1)
        self._left[part.id] = size
        self._wholes[part.id] = request, left - size
        return part

    def whole_of(self, call: SimRequest) -> SimRequest | None:
        return self._wholes[call.id][0] if call.id in self._wholes else None

    def _hear(self, now: float) -> None:
        """Learns what the engine's streams have told meanwhile."""
        while self._heard and self._heard[0][0] <= now:
            self.replica.end_prefill(self._heard.pop(0)[1], now)
        while self._steps_seen and self._steps_seen[0] <= now:
            self.controller.pacer.parts.token_seen(0, self._steps_seen.pop(0))

    def asks_again_at(self, now: float) -> float | None:
        at = self.controller.pacer.opens_at_s
        return min(at, self._heard[0][0]) if self._heard else at

    def sent(self, request: SimRequest, now: float) -> None:
        self._sent_at[request.id] = now
        watched = self.replica.watches
        if watched:
            self._is_read[request.id] = False
        self.replica.started(tokens=self._unread(request), now_s=now, watched=watched)

    def step(self, events: StepEvents) -> float | None:
        """The engine's own histogram: what a reader of its metrics gets. The streams of batch calls
        that decode show that a step has ended.
        """
        place = next(n for n, edge in enumerate(ITL_EDGES) if events.duration_s <= edge)
        self._gap_counts[place] += events.load.decodes
        parts, seen_at = self.controller.pacer.parts, events.ended_at + HOP_S
        if events.load.decodes <= events.interactive_decodes or not parts.is_active(seen_at):
            return None
        self._steps_seen.append(seen_at)
        return seen_at

    def live_asked(
        self, request: SimRequest, own: Sequence[SimRequest], now: float
    ) -> Sequence[SimRequest]:
        if not self._sees_live:
            return ()
        self._live[request.id] = now, request.prompt_tokens
        self._unanswered[request.id] = now
        if not self._yields:
            return ()
        self._hear(now)
        calls = self._calls(own, now)
        back = self.replica.live_asked(request.prompt_tokens, calls, now)
        self._left |= {own[place].id: left for place, left in back}
        return [own[place] for place, _ in back]

    def first_token(self, request: SimRequest, now: float) -> None:
        answered = request.interactive and self._unanswered.pop(request.id, None) is not None
        if answered and self._yields:
            self.replica.live_answered(request.prompt_tokens, now)
        if self._is_read.get(request.id) is False:
            self._is_read[request.id] = True
            self._heard.append((now + HOP_S, self._unread(request)))

    def finished(self, request: SimRequest, now: float) -> None:
        if request.interactive:
            self._live.pop(request.id, None)
            return
        self._is_read.pop(request.id, None)
        elapsed_s = now - self._sent_at.pop(request.id)
        self._left.pop(request.id, None)
        usage = Usage(request.prompt_tokens, request.cached_tokens, request.output_tokens)
        self.replica.ended()
        self.replica.answered(now)
        self.replica.learn(usage, 0, now - elapsed_s, now)

    def part_finished(self, part: SimRequest, whole: SimRequest, now: float) -> None:
        self._left[whole.id] = self._wholes.pop(part.id)[1]
        del self._is_read[part.id], self._sent_at[part.id], self._left[part.id]
        self.replica.ended()
        self.replica.answered(now)

    def taken_back(self, request: SimRequest, now: float) -> None:
        del self._sent_at[request.id]
        if self._is_read.pop(request.id, None) is False:
            self.replica.end_prefill(self._unread(request), now)
        self._wholes.pop(request.id, None)
        self.replica.ended()

    def poll(
        self, engine: SimEngine, own: Sequence[SimRequest], now: float
    ) -> Sequence[SimRequest]:
        calls = self._calls(own, now)
        live = self._seen(now)
        metrics = self._metrics(engine)
        self.controller.observe(metrics, calls, now, live)
        outputs = list(self.controller.work.output_so_far(calls))
        chosen = self.replica.guard.revoke(
            metrics, calls, outputs, live, self.controller.live.waiting, now
        )
        if chosen:
            self.controller.revoked(len(chosen), len(calls), now)
        self.replica.resize(now)
        return [own[place] for place in chosen]

    def _calls(self, own: Sequence[SimRequest], now: float) -> list[BatchCall]:
        return [
            BatchCall(
                now - self._sent_at[call.id],
                call.prompt_tokens if self._is_read.get(call.id) else self._unread(call),
                self._is_read.get(call.id),
            )
            for call in own
        ]

    def _unread(self, request: SimRequest) -> int:
        """Prompt tokens that are not in the engine's prefix cache from an earlier try."""
        return self._left.get(request.id, request.prompt_tokens)

    def _seen(self, now: float) -> LiveSeen:
        patience_s = limits.LIVE_WAIT_SHARE * self._ttft_slo_s
        waiting = sum(now - at > patience_s for at in self._unanswered.values())
        each = [float(tokens) for _, tokens in self._live.values()]
        if not each:
            return LiveSeen()
        return LiveSeen(len(each), waiting, sum(each) / len(each) + limits.LIVE_CALL_TOKENS / 4)

    def _metrics(self, engine: SimEngine) -> EngineMetrics:
        counters = engine.counters
        return EngineMetrics(
            running=engine.running,
            waiting=engine.waiting,
            kv_used=engine.kv_usage,
            kv_capacity_tokens=engine.kv.blocks * engine.kv.block_tokens,
            seats_max=engine.config.max_num_seqs,
            preemptions_total=counters.preemptions,
            prompt_tokens_total=counters.prompt_tokens,
            cached_tokens_total=counters.prompt_tokens_cached,
            generation_tokens_total=counters.generation_tokens,
            itl_buckets=tuple(zip(ITL_EDGES, accumulate(self._gap_counts), strict=True)),
            bounds_steps=engine.config.step_limits is not None,
            caches_prefixes=True,
        )


def _beginning(request: SimRequest, tokens: int) -> list[Piece]:
    """The pieces of its prompt's first tokens."""
    pieces: list[Piece] = []
    for segment, size in request.pieces:
        if tokens > 0:
            pieces.append((segment, min(size, tokens)))
        tokens -= size
    return pieces
