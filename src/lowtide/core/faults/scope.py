"""Whether the calls to one endpoint of one model on one replica are well, in doubt or held.

A failure that the table (core/faults/fault.py) lets be judged says little by itself: a key may be
wrong, or one line may be forbidden. What decides is whether another call of the same scope succeeds
after it: a batch call, a live call, or, where there is none, a trial call
(core/faults/trial_call.py). If it does, the failed requests were at fault; if the trial fails, the
scope is held and nothing is sent to it but trials, with growing pauses, until one succeeds.

Pure; each core/dispatch/replica.py `Replica` has its scopes, core/dispatch/dispatch.py and
service/live/live.py tell them the outcomes of calls. Invariant: a scope that is closed wants a
trial at some instant, so no scope stays closed for lack of a caller that asks. Two clocks matter: a
success that was *sent* after a refusal shows that the set-up is right (the key may have changed
while older calls ran), one that *ended* after a failure shows that the engine is well.
"""

from lowtide import limits
from lowtide.core.faults.fault import FAULTS, FaultKind

_NEVER = float("inf")


class Scope:
    """The state of one scope. `failures`: requests in a row that failed for the first
    time, with no success since.
    """

    __slots__ = (
        "_ask_at_s",
        "_pause_s",
        "_shows_set_up",
        "_tolerance",
        "_trial_sent_at_s",
        "answered_at_s",
        "detail",
        "endpoint",
        "failing_since_s",
        "failures",
        "held",
        "held_since_s",
        "is_closed",
        "model",
        "proved_at_s",
    )

    def __init__(self, model: str, endpoint: str) -> None:
        self.model = model
        self.endpoint = endpoint
        self.is_closed = False
        """Whether no batch call is sent: the scope is held, or too many failures
        in a row wait for a trial.
        """
        self.held: FaultKind | None = None
        self.held_since_s: float | None = None
        self.detail = ""
        self.failures = 0
        self.failing_since_s = -_NEVER
        self.answered_at_s = -_NEVER
        """When a success was last seen to end."""
        self.proved_at_s = -_NEVER
        """When the success that was sent last was sent."""
        self._shows_set_up = False
        self._tolerance = limits.CIRCUIT_FAILURES
        self._pause_s = limits.CIRCUIT_COOLDOWN_S
        self._ask_at_s = _NEVER
        self._trial_sent_at_s: float | None = None

    # ---- what calls tell ----

    def succeeded(self, sent_at_s: float, now_s: float) -> None:
        """Records the success of a call that was sent then."""
        self.answered_at_s = now_s
        if sent_at_s > self.proved_at_s:
            self.proved_at_s = sent_at_s
        if self.failures or self.is_closed:
            self._doubt_ends(sent_at_s)

    def failed(
        self, kind: FaultKind, detail: str, now_s: float, *, is_first: bool, others: bool
    ) -> None:
        """Records a failure that may be the request's own.

        `is_first`: nothing was held against its request before. `others`: calls are in
        flight that may soon show more.
        """
        if self.held is not None:
            return
        self.detail = detail
        self._shows_set_up = FAULTS[kind].blame == "set-up"
        if is_first:
            if not self.failures:
                self.failing_since_s = now_s
            self.failures += 1
        self.is_closed = self.is_closed or self.failures >= self._tolerance
        self.ask(now_s if self.is_closed or not others else now_s + limits.TRIAL_PATIENCE_S)

    def settles(self, kind: FaultKind, sent_at_s: float, failed_at_s: float) -> bool:
        """Whether a failure of that kind is known to have been the request's own."""
        if FAULTS[kind].blame == "set-up":
            return self.proved_at_s > sent_at_s
        return self.answered_at_s >= failed_at_s

    # ---- trials ----

    def ask(self, at_s: float) -> None:
        """Asks for a trial at that time at the latest."""
        self._ask_at_s = min(self._ask_at_s, at_s)

    def ask_if_nobody_did(self, now_s: float) -> None:
        """Asks for a trial, unless one is due or under way: something waits to be judged here."""
        if self._trial_sent_at_s is None and self._ask_at_s == _NEVER:
            self._ask_at_s = now_s + limits.TRIAL_PATIENCE_S

    @property
    def trial_at_s(self) -> float | None:
        """When a trial is to be sent; None: none is wanted, or one is under way."""
        if self._trial_sent_at_s is not None or self._ask_at_s == _NEVER:
            return None
        return self._ask_at_s

    def trial_sent(self, now_s: float) -> None:
        self._trial_sent_at_s = now_s
        self._ask_at_s = _NEVER

    def trial_succeeded(self, now_s: float) -> None:
        """Records that the set-up is right and the engine works: what failed before the
        trial was sent was at fault.
        """
        sent_at_s, self._trial_sent_at_s = self._trial_sent_at_s, None
        self.succeeded(now_s if sent_at_s is None else sent_at_s, now_s)

    def trial_failed(self, kind: FaultKind, detail: str, now_s: float) -> None:
        """Holds the scope until a later trial succeeds; the pause before it doubles."""
        sent_at_s, self._trial_sent_at_s = self._trial_sent_at_s, None
        if sent_at_s is not None and self.settles(kind, sent_at_s, now_s):
            return  # another call has shown the contrary meanwhile
        self.hold(kind, detail, now_s)

    def trial_unclear(self, now_s: float) -> None:
        """Asks for another trial a little later: the engine had no room, or was away."""
        self._trial_sent_at_s = None
        self.ask(now_s + self._pause_s)
        self._pause_s = min(limits.CIRCUIT_COOLDOWN_S_MAX, 2 * self._pause_s)

    def hold(self, kind: FaultKind, detail: str, now_s: float) -> None:
        """Holds the scope, which is known to be at fault: only trials
        are sent until one succeeds.
        """
        is_set_up = FAULTS[kind].blame == "set-up"
        if self.held is None:
            self.held_since_s = now_s
            self._pause_s = limits.CIRCUIT_COOLDOWN_S
            self._tolerance = limits.CIRCUIT_FAILURES
        self.held, self.detail, self.is_closed = kind, detail, True
        self._ask_at_s = now_s + self._pause_s
        longest = limits.TRIAL_PAUSE_S_MAX if is_set_up else limits.CIRCUIT_COOLDOWN_S_MAX
        self._pause_s = min(longest, 2 * self._pause_s)

    def takes_live(self, now_s: float) -> bool:
        """Whether a live call may be sent: a doubt holds none up, and one may be the trial."""
        return self.held is None or now_s >= self._ask_at_s

    def live_trial(self, now_s: float) -> None:
        """Counts a live call sent to a held scope as a trial: the next one comes after a pause."""
        self._ask_at_s = max(self._ask_at_s, now_s + self._pause_s)

    def _doubt_ends(self, sent_at_s: float) -> None:
        since_s = self.held_since_s if self.held is not None else self.failing_since_s
        shows_set_up = self._shows_set_up or self.held is not None
        if shows_set_up and since_s is not None and sent_at_s < since_s:
            return  # an older call: what went wrong may have gone wrong after it was sent
        if self.is_closed and self.held is None:
            # These are lines at fault, and so may the next ones be: wait for fewer trials.
            self._tolerance = min(limits.WINDOW_MAX, 2 * self._tolerance)
        self.held = self.held_since_s = None
        self.is_closed = False
        self.failures = 0
        self._ask_at_s = _NEVER
        self._pause_s = limits.CIRCUIT_COOLDOWN_S
