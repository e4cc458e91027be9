"""How far a batch is, when it will be done, and why it does not move (`core.reporting.waiting`).

Pure; service/batches/progress.py gathers the facts and the dialects show the result, so that no
submitter has to guess why a batch "stays at 0/15 for over an hour". Invariant: an estimate is given
only when it rests on work that was done; where nothing is known the answer is None, never a guess.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final, Literal

import msgspec

from lowtide import limits
from lowtide.core.batches.batch import TERMINAL, Batch
from lowtide.core.history.measured_pace import NOTHING_MEASURED, MeasuredPace
from lowtide.core.reporting.standing import NOTHING_KNOWN, Hold, Standing
from lowtide.core.reporting.waiting import NO_QUEUE, PASSING, Queue, Reason, waiting
from lowtide.core.scheduling.feasibility import UNKNOWN, Feasibility

Stage = Literal["validation", "queuing", "processing", "aggregation"]
"""The words of the launch promise. A batch that ended is in no stage."""


class Prospect(msgspec.Struct, frozen=True):
    """What is foreseen of a batch in progress: when it ends, in seconds from now.

    `eta_s` is the end at the usual pace; None: not foreseeable. `cautious_eta_s` is the end at the
    pace that is reached in four weeks of five, and no earlier; None: not foreseeable.
    """

    eta_s: float | None = None
    cautious_eta_s: float | None = None
    verdict: Feasibility = UNKNOWN


NOTHING_FORESEEN: Final = Prospect()
_NO_REPLICA: Final = Hold("unserved", "no replica", "no replica")


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """`eta_s` and `cautious_eta_s` as in `Prospect`, with the instants of both. The cautious one is
    no earlier than the batch's own pace of late gives, and None where it is less than
    `CAUTIOUS_ETA_GAP_S_MIN` after `eta_s`. `reason` a sentence for tenants why requests of the
    batch wait, `cause` the same with what operators may see; `verdict` whether its window can be
    kept."""

    stage: Stage | None = None
    eta_s: float | None = None
    completion_at: datetime | None = None
    cautious_eta_s: float | None = None
    cautious_completion_at: datetime | None = None
    reason: str | None = None
    cause: Reason | None = None
    causes: tuple[Reason, ...] = ()
    """All conditions that hold the batch; the first is `cause`."""
    verdict: Feasibility = UNKNOWN
    queue_position: int | None = None
    """The place of a batch that waits for enqueued tokens: 1 for the next one."""
    unexecuted: int = 0
    """Lines of a batch that has ended, among its failed ones, that no engine saw."""


LIVE_LOAD: Final = "live load"
"""How the sentence begins that says of a model that live traffic goes first."""


def progress_of(
    batch: Batch,
    now: datetime,
    *,
    models: Iterable[str] = (),
    standing: Standing = NOTHING_KNOWN,
    queue: Queue = NO_QUEUE,
    in_flight_max: int | None = None,
    prospect: Prospect = NOTHING_FORESEEN,
    pace: MeasuredPace = NOTHING_MEASURED,
) -> Progress:
    """The progress of `batch`.

    `models` are the canonical ids its requests name, empty while unknown. `standing` is what the
    workers report of themselves and their replicas. `in_flight_max` bounds what the batch's
    organization may have at engines. `prospect` is what its pools' pace and backlog come to;
    `pace` what was measured of the batch itself.
    """
    models = tuple(models)
    stands = bool(batch.holds) or _is_unserved(models, batch.endpoint, standing)
    eta, cautious_eta = None, None
    if not stands:
        eta, cautious_eta = _ends_s(batch, now, prospect, in_flight_max, pace)
    causes = waiting(batch, now, models, standing, queue, in_flight_max)
    cause = causes[0] if causes else None
    return Progress(
        stage=stage_of(batch),
        eta_s=eta,
        completion_at=_after(now, eta),
        cautious_eta_s=cautious_eta,
        cautious_completion_at=_after(now, cautious_eta),
        reason=cause.public if cause is not None else None,
        cause=cause,
        causes=causes,
        verdict=prospect.verdict,
        queue_position=queue.tokens.place if queue.tokens else None,
    )


def stage_of(batch: Batch) -> Stage | None:
    """`queuing`: in progress and nothing settled yet, or validated and waiting for enqueued tokens.
    `aggregation`: result files are written.
    """
    if batch.status in TERMINAL:
        return None
    if batch.status == "validating":
        return "validation" if batch.queued_at is None else "queuing"
    if batch.status == "in_progress":
        return "processing" if batch.counts.settled else "queuing"
    return "aggregation"


def _is_unserved(models: tuple[str, ...], endpoint: str, standing: Standing) -> bool:
    """Whether some request cannot run for an unknown time. Live load and
    hours do not count: they pass.
    """
    if not standing.is_known:
        return False
    if not standing.live:
        return True
    holds = (
        standing.hold_of(model, endpoint) if model in standing.models else _NO_REPLICA
        for model in models
    )
    return any(hold is not None and hold.condition not in PASSING for hold in holds)


def _after(now: datetime, seconds: float | None) -> datetime | None:
    return now + timedelta(seconds=seconds) if seconds is not None else None


def _ends_s(
    batch: Batch,
    now: datetime,
    prospect: Prospect,
    in_flight_max: int | None,
    pace: MeasuredPace,
) -> tuple[float | None, float | None]:
    """The usual and the cautious end: what is foreseen of the pool, which knows the queue and the
    hours to come; else the batch's own pace. A bound on what the organization may run makes its own
    pace the better witness."""
    own = eta_s(batch, now, pace.held_s)
    if prospect.eta_s is None or (own is not None and in_flight_max is not None):
        return own, _cautious_s(batch, own, None, pace)
    return prospect.eta_s, _cautious_s(batch, prospect.eta_s, prospect.cautious_eta_s, pace)


def _cautious_s(
    batch: Batch, usual_s: float | None, cautious_s: float | None, pace: MeasuredPace
) -> float | None:
    """The later of the cautious end and the one at the measured pace of late: a forecast may expect
    it to quicken, and be wrong. None where that tells no more than the usual end."""
    if usual_s is None:
        return None
    ends_s = [] if cautious_s is None else [cautious_s]
    if pace.recent_per_s and batch.status == "in_progress":
        ends_s.append((batch.counts.total - batch.counts.settled) / pace.recent_per_s)
    late_s = max(ends_s, default=usual_s)
    return late_s if late_s - usual_s >= limits.CAUTIOUS_ETA_GAP_S_MIN else None


def eta_s(batch: Batch, now: datetime, held_s: float = 0.0) -> float | None:
    """Seconds until the last request settles, at the mean rate since the first one did. `held_s`:
    seconds of that in which the batch was held.

    The time before the first result, and that of holds, is left out: it says nothing about the
    pace. None before there is enough to go by, and outside of processing.
    """
    settled, total = batch.counts.settled, batch.counts.total
    if batch.status != "in_progress" or batch.first_settled_at is None or settled < 2:
        return None
    if settled < limits.ETA_SETTLED_MIN and settled < limits.ETA_SHARE_MIN * total:
        return None
    elapsed = (now - batch.first_settled_at).total_seconds() - held_s
    if elapsed < limits.ETA_ELAPSED_S_MIN:
        return None
    return (total - settled) * elapsed / (settled - 1)
