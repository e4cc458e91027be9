"""Counts of what attempts came to, by replica and model: for metrics and logs.

Fed by loops/dispatch/dispatch.py with every outcome, so a good answer costs a few additions and
nothing else; read once a second by loops/replicas/report.py. Invariant: counts never fall.
"""

from collections.abc import Iterator

import msgspec

from lowtide.core.faults.outcome import Outcome, Rejected, Succeeded, Throttled
from lowtide.core.usage import Usage

SUCCEEDED = "ok"
"""The code of an attempt that gave an answer."""
PREEMPTED = "preempted"
"""The code of an attempt that lost its place (core/dispatch/share_preemption.py)."""


class Tally(msgspec.Struct):
    """Attempts of one model at one replica. `failed`: those without an answer, by code;
    `unreported`: answers without usable usage, whose tokens are an estimate.
    """

    succeeded: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    unreported: int = 0
    retries: int = 0
    failed: dict[str, int] = msgspec.field(default_factory=dict)

    def add_success(self, usage: Usage) -> None:
        """Counts a good answer; called for every one."""
        self.succeeded += 1
        self.input_tokens += usage.input_tokens
        self.cached_tokens += usage.cached_tokens
        self.output_tokens += usage.output_tokens
        self.unreported += usage.unreported

    def add_failure(self, outcome: Outcome, *, is_retried: bool) -> None:
        """Counts any other outcome; `is_retried` when the request will be sent again."""
        code = code_of(outcome)
        self.failed[code] = self.failed.get(code, 0) + 1
        self.retries += is_retried

    def add_preempted(self) -> None:
        """A call that was aborted, as another organization waited for its place."""
        self.failed[PREEMPTED] = self.failed.get(PREEMPTED, 0) + 1
        self.retries += 1


def code_of(outcome: Outcome) -> str:
    """The word for an outcome in metrics and logs: a code of an error file, or a kind of fault
    (core/faults/fault.py)."""
    match outcome:
        case Succeeded():
            return SUCCEEDED
        case Throttled():
            return "throttled"
        case Rejected():
            return outcome.code
        case _:
            return outcome.kind


class Tallies:
    """All counts of one worker."""

    def __init__(self) -> None:
        self._by_replica: dict[str, dict[str, Tally]] = {}

    def of(self, replica: str, model: str) -> Tally:
        """The counts of that pair; both are names, never an address."""
        by_model = self._by_replica.get(replica)
        if by_model is None:
            by_model = self._by_replica[replica] = {}
        tally = by_model.get(model)
        if tally is None:
            tally = by_model[model] = Tally()
        return tally

    def all(self) -> Iterator[tuple[str, str, Tally]]:
        """(replica, model, counts)."""
        for replica, by_model in self._by_replica.items():
            for model, tally in by_model.items():
                yield replica, model, tally
