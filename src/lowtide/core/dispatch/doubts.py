"""Requests whose failure may be their own or their replica's, until something shows which.

core/dispatch/dispatch.py puts a request in when an attempt failed in a way that the table lets be
judged (core/faults/fault.py), and asks now and then what has been decided. Pure. Invariant: a
request in here is neither pending nor in flight, and comes out exactly once, or its chunk is gone;
none waits for a replica that is called no more.
"""

from typing import Generic, TypeVar

import msgspec

from lowtide.core.dispatch.replica import Replica
from lowtide.core.faults.outcome import Failed
from lowtide.core.faults.scope import Scope

R = TypeVar("R")


class Doubt(msgspec.Struct, Generic[R], frozen=True):
    """`request` was sent to `replica` then, and failed then. `draw` is for its back-off."""

    request: R
    replica: Replica
    scope: Scope
    outcome: Failed
    sent_at_s: float
    failed_at_s: float
    draw: float

    @property
    def is_own(self) -> bool:
        """Whether the failure is known to have been the request's."""
        return self.scope.settles(self.outcome.kind, self.sent_at_s, self.failed_at_s)

    def is_replicas(self, now_s: float) -> bool:
        """Whether the failure is known to have been the replica's, or cannot be judged: the replica
        is away, or this worker calls it no more, so nothing that will be seen here decides it.
        """
        return (
            self.scope.held is not None
            or self.replica.failing_since_s is not None
            or now_s >= self.replica.owned_until_s
        )


class Doubts(Generic[R]):
    """All requests in doubt of one worker."""

    def __init__(self) -> None:
        self.open: list[Doubt[R]] = []
        """The undecided requests."""

    def add(self, doubt: Doubt[R]) -> None:
        self.open.append(doubt)

    def decided(self, now_s: float) -> list[Doubt[R]]:
        """Removes and returns the doubts whose fault is known; asks for trials of the others."""
        still_open: list[Doubt[R]] = []
        decided: list[Doubt[R]] = []
        for doubt in self.open:
            if doubt.is_own or doubt.is_replicas(now_s):
                decided.append(doubt)
            else:
                doubt.scope.ask_if_nobody_did(now_s)
                still_open.append(doubt)
        self.open = still_open
        return decided
