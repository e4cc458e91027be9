"""Trial calls: the smallest calls that Lowtide makes itself, sent where nothing else shows whose
fault a failure is.

A `Judge` says when one is wanted (core/dispatch/trials.py), and takes its outcome. The dispatcher
starts them beside its windows, so that a full one delays no judgement; `TrialLoop` is for what
live calls alone have met, because a caller's call is no probe. Invariant: each trial that was
begun is reported exactly once, aborted or not, and none is sent to a replica that is called by
this process no more.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol

import structlog

from lowtide import limits
from lowtide.core.dispatch.replica import Replica
from lowtide.core.dispatch.trials import LiveTrials
from lowtide.core.faults.outcome import Outcome
from lowtide.core.faults.scope import Scope
from lowtide.loops.dispatch.attempt import Upstream, attempt_trial
from lowtide.ports.clock import Clock

log = structlog.get_logger(__name__)


class Judge(Protocol):
    """What asks for trials: `core.dispatch.dispatch.Dispatch`, or
    `core.dispatch.trials.LiveTrials`.
    """

    def trial(self, replica: Replica, now_s: float) -> Scope | None:
        """The scope to send a trial for now; `trial_ended` must follow. None: none is due."""

    def may_try(self, replica: Replica, now_s: float) -> bool:
        """Whether a trial may still be sent, after a delay."""

    def trial_ended(
        self, replica: Replica, scope: Scope, outcome: Outcome | None, now_s: float
    ) -> None:
        """Records the outcome of a trial; None: it was aborted."""


class Trials:
    """The trial calls under way for one judge."""

    def __init__(
        self, judge: Judge, clock: Clock, on_ended: Callable[[], None] = lambda: None
    ) -> None:
        """`on_ended` is called after each trial: its outcome may let work go on."""
        self._judge = judge
        self._clock = clock
        self._on_ended = on_ended
        self.under_way: dict[asyncio.Task[Outcome | None], str] = {}
        """Trial calls under way, with the name of the replica that each was sent to."""

    def start(self, upstream: Upstream, now_s: float) -> None:
        """Sends all trials that are due for that replica now."""
        while (scope := self._judge.trial(upstream.replica, now_s)) is not None:
            trial = asyncio.get_running_loop().create_task(self._send(upstream, scope))
            self.under_way[trial] = upstream.replica.name
            trial.add_done_callback(partial(self._ended, upstream, scope))

    def take_back(self, replica_names: Collection[str]) -> None:
        """Aborts the trials at replicas that this process may not call any more."""
        for trial, name in self.under_way.items():
            if name in replica_names:
                trial.cancel()

    async def aclose(self) -> None:
        """Aborts all trials."""
        pending = list(self.under_way)
        for trial in pending:
            trial.cancel()
        await asyncio.gather(*pending, return_exceptions=True)

    async def _send(self, upstream: Upstream, scope: Scope) -> Outcome | None:
        """Sends a trial call. Returns None when the replica may not be called any more."""
        if not self._judge.may_try(upstream.replica, self._clock.monotonic()):
            return None
        return await attempt_trial(upstream, scope)

    def _ended(self, upstream: Upstream, scope: Scope, trial: asyncio.Task[Outcome | None]) -> None:
        del self.under_way[trial]
        now_s, replica = self._clock.monotonic(), upstream.replica
        error = None if trial.cancelled() else trial.exception()
        if error is not None:
            log.error("trial.failed", replica=replica.name, exc_info=error)
        outcome = None if trial.cancelled() or error is not None else trial.result()
        self._judge.trial_ended(replica, scope, outcome, now_s)
        self._on_ended()


class TrialLoop:
    """Sends trial calls for the failures of a process's live calls, for replicas that no dispatcher
    of this process calls.
    """

    name = "trials"

    def __init__(self, upstreams: Sequence[Upstream], clock: Clock, *, is_alone: bool) -> None:
        """`upstreams` may change at run time. `is_alone`: no dispatcher runs in this process."""
        self._upstreams = upstreams
        self._clock = clock
        self._trials = Trials(LiveTrials(is_alone=is_alone), clock)

    async def tick(self, now: datetime) -> datetime | None:
        """Sends the trials that are due; a live call may fail at any moment, so the
        next tick is soon.
        """
        now_s = self._clock.monotonic()
        for upstream in self._upstreams:
            self._trials.start(upstream, now_s)
        return now + timedelta(seconds=limits.TRIAL_PATIENCE_S)

    @property
    def under_way(self) -> Mapping[asyncio.Task[Outcome | None], str]:
        """See `Trials`."""
        return self._trials.under_way

    async def aclose(self) -> None:
        """Aborts the trials under way."""
        await self._trials.aclose()
