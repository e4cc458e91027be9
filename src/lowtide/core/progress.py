"""How far a batch is, when it will be done, and why it does not move.

Pure; service/batches.py gathers the facts and the dialects show the result, so that nobody stares
at a batch that "stays at 0/15 for over an hour". Invariant: an estimate is given only when it
rests on work that was done; where nothing is known the answer is None, never a guess.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final, Literal

import msgspec

from lowtide import limits
from lowtide.core.batch import TERMINAL, Batch, PausedReason
from lowtide.core.completion import UNKNOWN, Verdict

Stage = Literal["validation", "queuing", "processing", "aggregation"]
"""The words of the launch promise. A batch that ended is in no stage."""


class Prospect(msgspec.Struct, frozen=True):
    """What is foreseen of a batch in progress. `eta_s` None: not foreseeable."""

    eta_s: float | None = None
    verdict: Verdict = UNKNOWN


NOTHING_FORESEEN: Final = Prospect()


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """`eta_s` in seconds from now; `reason` a sentence why requests of the batch wait; `verdict`
    whether its window can be kept."""

    stage: Stage | None = None
    eta_s: float | None = None
    completion_at: datetime | None = None
    reason: str | None = None
    verdict: Verdict = UNKNOWN


class Queue(msgspec.Struct, frozen=True):
    """Unsettled requests over all batches for the models of one batch."""

    waiting: int = 0
    leased: int = 0


NO_QUEUE: Final = Queue()

LIVE_LOAD: Final = "live load"
"""How the sentence begins that says of a model that live traffic goes first."""

OPENS: Final = "window opens"
"""How the sentence begins that says of a model when its batch work may start (core/opening.py)."""

PAUSED: Final[Mapping[PausedReason, str]] = MappingProxyType(
    {
        "spend_cap": "Paused: the organization has spent what its cap allows for this month."
        " The batch goes on when the cap is raised or the next month begins.",
    }
)


def progress_of(
    batch: Batch,
    now: datetime,
    *,
    models: Iterable[str] = (),
    replicas: Mapping[str, str | None] | None = None,
    queue: Queue = NO_QUEUE,
    in_flight_max: int | None = None,
    prospect: Prospect = NOTHING_FORESEEN,
) -> Progress:
    """Everything above about `batch`.

    `models` are the canonical ids its requests name, empty while unknown. `replicas` maps a model
    that some replica serves to None, or to a sentence why it is not served at this moment; None
    means that nothing is known about replicas here. `in_flight_max` bounds what the batch's
    organisation may have at engines. `prospect` is what its pools' pace and backlog come to.
    """
    models = tuple(models)
    stands = batch.paused_reason is not None or _is_unserved(models, replicas)
    eta = None if stands else _end_s(batch, now, prospect, in_flight_max)
    return Progress(
        stage=stage_of(batch),
        eta_s=eta,
        completion_at=now + timedelta(seconds=eta) if eta is not None else None,
        reason=_reason(batch, now, models, replicas, queue, in_flight_max),
        verdict=prospect.verdict,
    )


def stage_of(batch: Batch) -> Stage | None:
    """`queuing`: in progress, nothing settled yet. `aggregation`: result files are written."""
    if batch.status in TERMINAL:
        return None
    if batch.status == "validating":
        return "validation"
    if batch.status == "in_progress":
        return "processing" if batch.counts.settled else "queuing"
    return "aggregation"


def _is_unserved(models: tuple[str, ...], replicas: Mapping[str, str | None] | None) -> bool:
    """Some request cannot run, and nobody can say until when. Live load and hours pass."""
    if replicas is None:
        return False
    whys = (replicas.get(model, "no replica") for model in models)
    return any(why is not None and not why.startswith((LIVE_LOAD, OPENS)) for why in whys)


def _end_s(
    batch: Batch, now: datetime, prospect: Prospect, in_flight_max: int | None
) -> float | None:
    """What is foreseen of the pool, which knows the queue and the hours to come; else the batch's
    own pace. A bound on what the organisation may run makes its own pace the better witness."""
    own = eta_s(batch, now)
    if prospect.eta_s is None or (own is not None and in_flight_max is not None):
        return own
    return prospect.eta_s


def eta_s(batch: Batch, now: datetime) -> float | None:
    """Seconds until the last request settles, at the mean rate since the first one did.

    The time before the first result is left out: it was spent in the queue, and says nothing
    about the pace. None before there is enough to go by, and outside of processing.
    """
    settled, total = batch.counts.settled, batch.counts.total
    if batch.status != "in_progress" or batch.first_settled_at is None or settled < 2:
        return None
    if settled < limits.ETA_SETTLED_MIN and settled < limits.ETA_SHARE_MIN * total:
        return None
    elapsed = (now - batch.first_settled_at).total_seconds()
    if elapsed < limits.ETA_ELAPSED_S_MIN:
        return None
    return (total - settled) * elapsed / (settled - 1)


def _reason(
    batch: Batch,
    now: datetime,
    models: tuple[str, ...],
    replicas: Mapping[str, str | None] | None,
    queue: Queue,
    in_flight_max: int | None,
) -> str | None:
    match batch.status:
        case "validating":
            waited = (now - batch.created_at).total_seconds()
            if waited < limits.VALIDATION_PATIENCE_S:
                return None
            return "The input file still waits to be validated: is a worker running?"
        case "in_progress" if batch.paused_reason is not None:
            return PAUSED[batch.paused_reason]
        case "in_progress":
            return (
                _blocked(models, replicas)
                or _gives_way(models, replicas)
                or _bounded(batch, queue, in_flight_max)
                or _behind(batch, queue)
            )
        case _:
            return None


def _blocked(models: tuple[str, ...], replicas: Mapping[str, str | None] | None) -> str | None:
    """Requests for these models cannot run now, whatever the queue."""
    if replicas is None:
        return None
    troubles = [
        f"No replica serves the model {model}."
        if model not in replicas
        else f"The model {model} is not available: {replicas[model]}."
        for model in models
        if (why := replicas.get(model, "")) is not None and not why.startswith(LIVE_LOAD)
    ]
    if len(troubles) > limits.MODELS_NAMED_IN_ERROR:
        more = len(troubles) - limits.MODELS_NAMED_IN_ERROR
        troubles = [*troubles[: limits.MODELS_NAMED_IN_ERROR], f"And {more} more models."]
    return " ".join(troubles) or None


def _gives_way(models: tuple[str, ...], replicas: Mapping[str, str | None] | None) -> str | None:
    """Requests for these models run, but fewer at a time: live traffic goes first."""
    for model in models:
        why = (replicas or {}).get(model)
        if why is not None and why.startswith(LIVE_LOAD):
            return f"The model {model} serves live traffic first: {why}."
    return None


def _bounded(batch: Batch, queue: Queue, in_flight_max: int | None) -> str | None:
    """As many requests as the organisation may have are at engines; perhaps they are its own."""
    if batch.counts.settled or in_flight_max is None or queue.leased < in_flight_max:
        return None
    return f"Queued: the organization may have {in_flight_max} requests at engines at one time."


def _behind(batch: Batch, queue: Queue) -> str | None:
    """Nothing of this batch came back yet, and others are in the queue."""
    if batch.counts.settled:
        return None
    others = queue.waiting + queue.leased - batch.counts.total
    if others <= 0:
        return None
    return f"Queued with {others} requests of other batches for the same models."
