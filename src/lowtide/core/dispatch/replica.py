"""One replica as the dispatcher sees it: window, pause, health, retry budget.

Pure: monotonic seconds go in, decisions come out. One worker owns a replica, so this state has one
owner and needs no lock. The window is the least of four: what refusals and answers make of the
operator's bound, what the controller makes of the engine's metrics (core/capacity/window.py), what
was learned from the answers of an engine without metrics (core/capacity/latency_window.py), and at
the end of a queue this replica's share of what is left. Source of the numbers: scheduling.md
section 2(j) and limits.py.
"""

from collections.abc import Sequence

from lowtide import limits
from lowtide.core.capacity.engine_metrics import BatchCall
from lowtide.core.capacity.latency_window import LatencyWindow, work_of
from lowtide.core.capacity.preemption import PreemptionPolicy
from lowtide.core.capacity.prefill import UNWATCHED_ENGINES, make_way
from lowtide.core.capacity.window import Bound, WindowController
from lowtide.core.dispatch.back_pressure import BackPressure
from lowtide.core.dispatch.suspects import Cuts, Suspects
from lowtide.core.faults.circuit_breaker import Circuit, RetryBudget
from lowtide.core.faults.fault import FaultKind
from lowtide.core.faults.scope import Scope
from lowtide.core.faults.timeouts import TimeoutBlame
from lowtide.core.replicas.replica_changes import name_of
from lowtide.core.usage import Usage


class Replica:
    """Window, circuit and budget of one engine URL, and what is in flight on it."""

    def __init__(
        self,
        url: str,
        models: frozenset[str],
        window: int,
        *,
        controller: WindowController | None = None,
        learned: LatencyWindow | None = None,
        spares_long: bool = False,
        streams: bool | None = False,
        name: str | None = None,
    ) -> None:
        """`window` is the bound. Without a controller and what is `learned` from answers, nothing
        but refusals and time-outs makes it smaller.
        `spares_long`: long prompts have a better place than beside this one's live traffic.
        `name` is what logs, metrics and other workers know the replica by; host:port by default.
        """
        self.url = url
        self.name = name or name_of(url)
        self.models = models
        self.window_max = window
        self.controller = controller
        self.learned = learned
        self.timeouts = TimeoutBlame()
        self.guard = PreemptionPolicy()
        self.takes_cache_salt = False
        """Whether its engine is known to separate its prompt cache by `cache_salt`."""
        self.priority: int | None = None
        """What this engine is to be sent as `priority` of batch calls."""
        self.streams = streams
        """Whether its engine is asked for streams, where these tell; None: if its kind gains."""
        self._gains_by_streams = True
        self.prompt_tokens_max = float("inf")
        """A longer prompt is not sent here at present."""
        self.drain_share: int | None = None
        """This replica's share of what is left, once the queue behind it is empty."""
        self.collects_stats = False
        self._goes_by_answers = False
        self._refused = 0  # answers in a row that taught nothing
        self._spares_long = spares_long
        self._unrefused = float(window)
        self.places = window
        """Calls that may be in flight now: the window in whole calls, or this replica's share."""
        self.in_flight = 0
        self.resize(float("-inf"))
        self.alone = False
        """The one request in flight is to have no company."""
        self.owned_until_s = float("inf")
        """Batch calls may be sent until this monotonic second; see loops/replicas/ownership.py."""
        self.circuit = Circuit()
        self.budget = RetryBudget()
        self.scopes: dict[tuple[str, str], Scope] = {}
        """The scopes by (model, endpoint), each created at its first call."""
        self.suspects = Suspects()
        self.cuts = Cuts()
        self.failing_since_s: float | None = None
        """When connections began to fail or be cut, in monotonic seconds; None: they do not."""
        self.trial_at_s: float | None = None
        """When a trial call is to show whether it works again."""
        self.trials_in_flight = 0
        self.pressure = BackPressure()
        self._cut_at_s = float("-inf")

    def adopt(self, fresh: "Replica") -> None:
        """Takes over the settings of `fresh`; keeps what was learned, clears what was wrong."""
        was_bound_alone = self._unrefused >= self.window_max
        self.url = fresh.url
        self.streams = fresh.streams
        self.window_max = fresh.window_max
        self._unrefused = min(self._unrefused, float(fresh.window_max))
        if was_bound_alone:
            self._unrefused = float(fresh.window_max)
        if self.controller is not None and fresh.controller is not None:
            self.controller.adopt(fresh.controller)
        if self.learned is not None and fresh.learned is not None:
            self.learned.adopt(fresh.learned)
        self._spares_long = fresh._spares_long
        self.circuit = Circuit()
        for scope in self.scopes.values():
            if scope.held is not None:  # what held it may be mended by what changed
                scope.ask(float("-inf"))
        self.resize(float("-inf"))

    def serve(self, models: frozenset[str]) -> None:
        """Sets the models that the replica serves."""
        self.models = models

    def own_until(self, until_s: float) -> None:
        """Sets the monotonic second until which batch calls may be sent; infinite: no end."""
        self.owned_until_s = until_s

    def know_engine(self, kind: str, *, priority: int | None) -> None:
        """Records what its engine was found to be, as `ports.engine.EngineInfo` says it."""
        self.priority, self.takes_cache_salt = priority, kind == "vllm"
        self._gains_by_streams = kind not in UNWATCHED_ENGINES

    def forget_priority(self) -> None:
        """Stops sending the field `priority`, which its engine refuses."""
        self.priority = None

    def stop_streams(self) -> None:
        """Stops asking for streams, which its engine refuses or which tell nothing."""
        self.streams = False

    def trial_started(self) -> None:
        """Counts a trial call that is being sent."""
        self.trial_at_s = None
        self.trials_in_flight += 1
        self.circuit.sent()

    def trial_ended(self) -> None:
        self.trials_in_flight -= 1

    @property
    def calls(self) -> int:
        """Batch and trial calls in flight from this process; trial calls are outside the window."""
        return self.in_flight + self.trials_in_flight

    def has_room(self, now_s: float) -> bool:
        """Whether one more request may be sent."""
        return self.in_flight < self.places and not self.alone and self.takes_calls(now_s)

    def is_paced(self, now_s: float) -> bool:
        """Whether a prompt was held back, and for longer than now."""
        return self.controller is not None and now_s < self.controller.pacer.opens_at_s

    def live_asked(
        self, tokens: int, calls: Sequence[BatchCall], now_s: float
    ) -> list[tuple[int, int]]:
        """A live call of so many prompt tokens is about to be sent here: (place, tokens unread) of
        those of `calls` to take back for it, because their prompts are not read yet.
        """
        if self.controller is None:
            return []
        pacer = self.controller.pacer
        back = []
        if pacer.is_needed:
            back = make_way(pacer, calls, now_s, tells_prompts=self.controller.tells_prompts)
        pacer.live_asked(tokens, now_s)
        self.timeouts.crowded_at_s = now_s
        return back

    def live_answered(self, tokens: int, now_s: float) -> None:
        """Records that a live call has its first byte, or ended without one."""
        if self.controller is not None:
            self.controller.pacer.live_answered(tokens, now_s)

    @property
    def watches(self) -> bool:
        """Whether prompts are worth watching: live calls may wait behind them, streams show it."""
        if self.controller is None or not self.controller.pacer.active:
            return False
        return self._gains_by_streams if self.streams is None else self.streams

    def end_prefill(self, tokens: int, now_s: float) -> None:
        """Records that a watched call has its first token, or ended without one."""
        if self.controller is not None:
            self.controller.pacer.read(tokens, now_s)

    def cannot_watch(self, tokens: int, now_s: float) -> None:
        """Records that the call started as a watched one is not watched."""
        if self.controller is not None:
            self.controller.pacer.read(tokens, now_s)
            self.controller.pacer.sent(tokens, now_s)

    def resize(self, now_s: float) -> None:
        """Fits the window to what refusals, the controller and the end of the queue leave of it."""
        self.window = self._unrefused
        if self.controller is not None:
            live = self.controller.live
            self.window = min(self.window, float(self.controller.window))
            self.collects_stats = live.was_ever or self.controller.has_metrics
            is_paced = self.controller.pacer.is_needed
            spares = self._spares_long and is_paced and live.is_recent(now_s)
            self.prompt_tokens_max = float(limits.LONG_PROMPT_TOKENS) if spares else float("inf")
        self._goes_by_answers = self.learned is not None and not self._has_metrics
        if self.learned is not None and self._goes_by_answers:
            self.window = min(self.window, float(self.learned.width))
        self.places = int(self.window) + self._is_stuck(now_s)
        if self.drain_share is not None:
            self.places = min(self.places, self.drain_share)

    def limit_drain(self, share: int | None, now_s: float) -> None:
        """Takes no more than this share of what is left at the end of the queue; None: no bound."""
        self.drain_share = share
        self.resize(now_s)

    def _is_stuck(self, now_s: float) -> bool:
        """Whether calls that may hang fill a narrow window; then one more is worth trying."""
        if self.learned is None or not self._goes_by_answers or self.window >= self.window_max:
            return False
        is_silent = self.timeouts.silence_s(now_s) >= limits.LEARN_SILENCE_S
        return is_silent and self.in_flight >= self.window and self.learned.may_add_one

    @property
    def bound(self) -> Bound:
        """What keeps the window from being larger, as metrics name it."""
        learned = self.learned
        if learned is not None and self._goes_by_answers and learned.width <= self.window:
            return "answers" if learned.width < learned.width_max else "operator"
        return self.controller.bound if self.controller is not None else "operator"

    def takes_calls(self, now_s: float) -> bool:
        """Whether ownership, circuit and pause let batch calls pass; the window aside."""
        is_ours_to_call = self.pressure.paused_until_s <= now_s < self.owned_until_s
        return is_ours_to_call and (self.circuit.state == "closed" or self.circuit.admits(now_s))

    def scope(self, key: tuple[str, str]) -> Scope:
        """The scope of that (model, endpoint)."""
        scope = self.scopes.get(key)
        if scope is None:
            scope = self.scopes[key] = Scope(*key)
        return scope

    @property
    def held_scopes(self) -> frozenset[tuple[str, str]]:
        """(model, endpoint) of the scopes that take no calls until an operator has mended them."""
        return frozenset(key for key, scope in self.scopes.items() if scope.held is not None)

    @property
    def is_well(self) -> bool:
        """Whether its engine is reached, and nothing of its set-up is known to be at fault."""
        if self.circuit.state != "closed":
            return False
        return all(scope.held is None for scope in self.scopes.values())

    def is_out(self, now_s: float) -> bool:
        """Whether its engine cannot be reached, and has not been for longer than a hiccup."""
        since_s = self.circuit.opened_at_s
        return since_s is not None and now_s - since_s >= limits.CHUNK_KEEP_S

    def is_alive(self, now_s: float) -> None:
        """Records that the engine answered, whatever it said: connections are well."""
        self.circuit.succeeded(now_s)
        if self.failing_since_s is not None:
            self.failing_since_s = self.trial_at_s = None
            self.suspects.settled()

    def is_lost(self, why: str, now_s: float, kind: FaultKind) -> None:
        """Records that a connection was cut, or that a proxy says that its own was."""
        if self.failing_since_s is None:
            self.failing_since_s = now_s
        self.circuit.failed(now_s, why, kind)

    def is_away(self, why: str, now_s: float, kind: FaultKind) -> None:
        """Records that no connection comes about, or that what was cut before is cut still."""
        self.is_lost(why, now_s, kind)
        self.suspects.pardon()

    def ask_for_trial(self, now_s: float) -> None:
        """Asks for a trial call if the replica is failing and no call is testing it already."""
        if (
            self.failing_since_s is None
            or self.trials_in_flight
            or self.circuit.state == "half_open"
        ):
            return
        due_s = self.failing_since_s + limits.TRIAL_PATIENCE_S if self.in_flight else now_s
        self.trial_at_s = due_s if self.circuit.state == "closed" else self.circuit.retry_at_s

    @property
    def _has_metrics(self) -> bool:
        return self.controller is not None and self.controller.has_metrics

    @property
    def assumed_capacity(self) -> float:
        """Assumed concurrent calls: the learned window, else the configured
        one, else the current one.
        """
        if self._goes_by_answers and self.learned is not None and self.learned.phase == "steady":
            return self.window
        is_bound = self.window_max < limits.WINDOW_MAX
        return self.window_max if is_bound else max(float(limits.WINDOW_DEFAULT), self.window)

    @property
    def resumes_at_s(self) -> float | None:
        """When time alone makes calls possible: end of a pause, probe, trial, prompt that waits."""
        paced_until_s = self.controller.pacer.opens_at_s if self.controller is not None else None
        times = (self.circuit.retry_at_s, self.pressure.paused_until_s, paced_until_s)
        latest = max(time for time in times if time is not None)
        return None if latest == float("-inf") else latest

    def started(
        self, *, alone: bool = False, tokens: int = 0, now_s: float = 0.0, watched: bool = False
    ) -> None:
        """Counts a call; `tokens` is its estimated prompt. `watched`: `end_prefill` follows."""
        self.in_flight += 1
        if self.in_flight > 1:
            self.timeouts.crowded_at_s = now_s
        else:
            self.timeouts.busy_since_s = now_s
        if self.controller is not None and self.controller.pacer.active:
            self.controller.pacer.sent(tokens, now_s, watched=watched)
        self.alone = alone
        if self.circuit.state != "closed":
            self.circuit.sent()

    def ended(self) -> None:
        self.in_flight, self.alone = self.in_flight - 1, False

    def answered(self, now_s: float) -> None:
        """Records a final answer: the replica is well."""
        if self.failing_since_s is not None or not self.circuit.is_calm:
            self.is_alive(now_s)
        if not self.pressure.is_calm:
            self.pressure.answered()
        self.timeouts.answered_at_s = now_s
        self._refused += 1
        if self._refused >= limits.LEARN_ANSWERS and self.learned and self._goes_by_answers:
            self._refused = 0
            self.learned.only_refused(now_s)
            self.resize(now_s)
        if not self.budget.is_full:
            self.budget.earn()
        if self._unrefused < self.window_max:
            grown = self._unrefused + 1.0 / max(1.0, self.window)
            self._unrefused = min(float(self.window_max), grown)
            self.resize(now_s)

    def learn(self, usage: Usage, tokens: int, sent_at_s: float, now_s: float) -> None:
        """Records a successful call, for windows and preemption; `tokens` as for `started`."""
        if self.timeouts.was_any:
            self.timeouts.succeeded(tokens, sent_at_s)
        self._refused = 0
        learned = self.learned
        if learned is not None and self._goes_by_answers and now_s >= learned.rests_until_s:
            width = learned.width
            learned.answered(sent_at_s, now_s, work_of(usage), self.in_flight + 1)
            if learned.width != width:
                self.resize(now_s)
        if not self.collects_stats or self.controller is None:
            return
        self.controller.finished(
            usage.input_tokens, usage.cached_tokens, usage.output_tokens, now_s - sent_at_s
        )
        if self.controller.pacer.active:
            self.controller.pacer.parts.counted(tokens, usage.input_tokens)
        self.guard.finished(usage.total_tokens, now_s)

    def timed_out(self, sent_at_s: float, now_s: float) -> None:
        """Narrows the window after a call that timed out waiting behind other batch calls.

        All that were sent before a cut are late for the same reason, so they count once.
        """
        self.timeouts.was_any = True
        if self.learned is not None and self._goes_by_answers:
            self.learned.timed_out(sent_at_s, now_s)
        elif sent_at_s >= self._cut_at_s:
            self._cut_at_s = now_s
            self._unrefused = max(1.0, self.window * limits.TIMEOUT_SHRINK)
        self.resize(now_s)

    def throttled(
        self, now_s: float, retry_after_s: float | None = None, why: str = "no room"
    ) -> None:
        """Pauses for lack of room, and shrinks the window once per span;
        it grows back with answers.
        """
        is_starting = self.failing_since_s is not None
        if is_starting:
            self.suspects.pardon()  # its end was no request's doing
        self.is_alive(now_s)
        if self.pressure.refused(now_s, retry_after_s, why, is_starting=is_starting):
            self._unrefused = max(1.0, self.window * limits.THROTTLE_SHRINK)
            self.resize(now_s)
