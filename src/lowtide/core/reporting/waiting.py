"""Why a batch waits, as a sentence for its tenant and one for operators.

Pure; called by `core.reporting.progress` with what is known of workers, replicas and queue. The
gravest reason comes first: what stops everything, then what stops a model, then what the batch's
own requests do, then whose turn it is. Invariants: while nothing of a batch moves there is a
reason; `public` names no address and no path, whatever engines and systems said.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Final, Literal

import msgspec

from lowtide import limits
from lowtide.core.accounts.token_queue import TokenWait
from lowtide.core.batches.batch import ASSEMBLING, Batch
from lowtide.core.reporting.public_text import without_places
from lowtide.core.reporting.standing import Asleep, Hold, Standing, instant_text
from lowtide.core.reporting.worker_report import BatchReport

PASSING: Final = frozenset({"live_first", "closed"})
"""Conditions that pass by themselves, and are counted in what is foreseen."""

PAUSED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "operator": "Paused by the operator of this server, who alone can let it go on.",
        "spend_cap": "Paused: the organization has spent what its cap allows for this month."
        " The batch goes on when the cap is raised or the next month begins.",
        "user": "Paused: it goes on with `lowtide batches resume`. Its completion window does not"
        " wait.",
    }
)
"""The words for each hold of a batch; first what a reader cannot end."""


class Queue(msgspec.Struct, frozen=True):
    """What is before one batch: unsettled requests over all batches for its models and, while it
    waits for enqueued tokens, its place and what it lacks.
    """

    waiting: int = 0
    leased: int = 0
    tokens: TokenWait | None = None


NO_QUEUE: Final = Queue()


Kind = Literal[
    "paused", "no_worker", "storage", "validation", "tokens", "model", "live", "own_requests",
    "bound", "queue", "silent", "assembly",
]  # fmt: skip
"""The subject of a reason, for code that counts or compares: the words change, this does not."""


REMEDIES: Final[Mapping[Kind, str]] = MappingProxyType(
    {
        "no_worker": "The operator starts one: `lowtide doctor` says what is missing.",
        "storage": "The operator makes room or mends it: `lowtide doctor` says what is wrong.",
        "validation": "Nothing is to be done: it begins when the file is checked.",
        "tokens": "It begins sooner with a higher limit of enqueued tokens.",
        "model": "It goes on by itself once the model takes batch calls; `lowtide doctor` tells"
        " the operator more.",
        "live": "It goes on faster by itself as live traffic falls.",
        "own_requests": "`lowtide batches errors` groups what failed; cancel the batch where the"
        " rest would fail, too.",
        "bound": "It goes on by itself as requests finish; the operator may raise"
        " `requests_in_flight`.",
        "queue": "Its turn comes by itself; within an organization a higher `priority` goes first.",
        "silent": "The operator looks at the engine: `lowtide doctor` asks each one.",
        "assembly": "Nothing is to be done: it ends by itself.",
    }
)
"""What ends each kind of condition. What is paused says so in its own words."""


class Reason(msgspec.Struct, frozen=True):
    """`full` is for operators; `since` when it began, where that is known."""

    kind: Kind
    public: str
    full: str
    since: datetime | None = None

    @property
    def remedy(self) -> str | None:
        """What ends it; None where `public` says so."""
        return REMEDIES.get(self.kind)


def waiting(
    batch: Batch,
    now: datetime,
    models: Sequence[str],
    standing: Standing,
    queue: Queue,
    in_flight_max: int | None,
) -> tuple[Reason, ...]:
    """All that holds a batch at present, the gravest first, no kind twice: six at most. Empty for a
    batch that moves or has ended.
    """
    found = _conditions(batch, now, models, standing, queue, in_flight_max)
    return tuple(each for each in found if each is not None)


def _conditions(
    batch: Batch,
    now: datetime,
    models: Sequence[str],
    standing: Standing,
    queue: Queue,
    in_flight_max: int | None,
) -> Sequence[Reason | None]:
    """What follows from a graver condition is left out: without a worker no model is served, and
    what is paused is not in the queue. That it stands still is told where nothing explains it.
    """
    no_worker = _without_worker(standing)
    if batch.status == "validating":
        before = [no_worker, _waits_for_tokens(queue.tokens, batch.queued_at)]
        return [*(before if any(before) else [_unvalidated(batch, now, standing)]), _held(batch)]
    if batch.status in ASSEMBLING:
        return [no_worker or _unstored(standing) or _unassembled(batch, now)]
    if batch.status != "in_progress":
        return []
    found = [_held(batch), no_worker, _unstored(standing)]
    if no_worker is None:
        found += [_blocked(models, batch.endpoint, standing), _gives_way(models, standing)]
    if not batch.holds:
        found.append(_harms_itself(batch, standing))
        found.append(_bounded(batch, queue, standing, in_flight_max))
        found.append(_behind(batch, queue, standing))
    return found if any(found) else [_still(batch, now, standing)]


def _held(batch: Batch) -> Reason | None:
    if not batch.holds:
        return None
    words = " ".join(PAUSED[hold] for hold in PAUSED if hold in batch.holds)
    return _alike("paused", words, batch.held_at)


def _alike(kind: Kind, sentence: str, since: datetime | None = None) -> Reason:
    return Reason(kind, sentence, sentence, since)


def _without_worker(standing: Standing) -> Reason | None:
    """The reason when no worker runs; else None."""
    if not standing.is_known or standing.live:
        return None
    if not standing.gone:
        return _alike("no_worker", "No worker is running, so nothing is done.")
    last = max(standing.gone.values())
    sentence = f"No worker is running: the last one was heard of at {instant_text(last)}."
    return _alike("no_worker", sentence, last)


def _waits_for_tokens(wait: TokenWait | None, since: datetime | None) -> Reason | None:
    """The reason of a batch that is validated, and begins once there is room for its tokens; None
    for one that waits for none.
    """
    if wait is None:
        return None
    if wait.place == 1 and wait.lack is None:
        return _alike("tokens", "There is room for its tokens now: it begins in a moment.", since)
    place = "It is the next one" if wait.place == 1 else f"It is number {wait.place} in the queue"
    if (lack := wait.lack) is None:
        what = "Waits for enqueued tokens behind other batches of its organization."
    else:
        what = (
            f"Waits for enqueued tokens of {lack.model}: {lack.enqueued:,} are enqueued, of"
            f" {lack.limit:,} at most, and this batch asks for about {lack.asked:,} more."
        )
    return _alike("tokens", f"{what} {place}, and begins by itself as requests finish.", since)


def _unvalidated(batch: Batch, now: datetime, standing: Standing) -> Reason | None:
    if standing.validation_error:
        return Reason(
            "storage",
            "The input file cannot be read: the server's storage does not answer.",
            f"The input file cannot be read: {standing.validation_error}",
        )
    if _is_recent(batch.created_at, now, within_s=limits.VALIDATION_PATIENCE_S):
        return None
    if (since := standing.validating.get(batch.id)) is not None:
        sentence = f"The input file is being validated since {instant_text(since)}."
        return _alike("validation", sentence, since)
    if standing.validating:
        sentence = "The input file waits while those of other batches are validated."
    elif standing.is_known:
        sentence = "The input file waits to be validated."
    else:
        sentence = "The input file still waits to be validated: is a worker running?"
    return _alike("validation", sentence, batch.created_at)


def _unstored(standing: Standing) -> Reason | None:
    if not standing.results_error:
        return None
    return Reason(
        "storage",
        "Results cannot be stored: the server's storage does not take them."
        " Nothing is lost, and the batch goes on when it does.",
        f"Results cannot be stored: {standing.results_error}",
    )


def _unassembled(batch: Batch, now: datetime) -> Reason | None:
    """The reason while the last calls end and the result files are
    written; both may take a while.
    """
    since = batch.finalizing_at or batch.cancelling_at or now
    if _is_recent(since, now):
        return None
    sentence = f"Its last calls end and its result files are written since {instant_text(since)}."
    return _alike("assembly", sentence, since)


def _blocked(models: Iterable[str], endpoint: str, standing: Standing) -> Reason | None:
    """The reason when such requests for these models cannot run now,
    whatever the queue; else None.
    """
    if not standing.is_known:
        return None
    public, full, since = [], [], []
    for model in models:
        if (asleep := standing.asleep.get(model)) is not None:
            public.append(_asleep(model, asleep))
            full.append(public[-1])
            if asleep.error:
                full[-1] += f" What starts it fails: {asleep.error.rstrip('.')}."
        elif model not in standing.models:
            public.append(f"No replica serves the model {model}.")
            full.append(public[-1])
        elif (hold := standing.hold_of(model, endpoint)) is not None and (
            hold.condition != "live_first"
        ):
            public.append(_not_available(model, hold, without_places(hold.public_reason)))
            full.append(_not_available(model, hold, hold.reason))
            since += [] if hold.since is None else [hold.since]
    if not public:
        return None
    return Reason("model", _few(public), _few(full), min(since, default=None))


def _asleep(model: str, asleep: Asleep) -> str:
    if asleep.wake_at is None:
        return f"The model {model} is scaled to zero, and is asked to start."
    return f"The model {model} is scaled to zero, wakes at {asleep.wake_at:%Y-%m-%d %H:%M} UTC."


def _not_available(model: str, hold: Hold, why: str) -> str:
    since = f" since {instant_text(hold.since)}" if hold.since is not None else ""
    return f"The model {model} is not available{since}: {why.rstrip('.')}."


def _few(sentences: list[str]) -> str:
    more = len(sentences) - limits.MODELS_NAMED_IN_ERROR
    if more > 0:
        sentences = [*sentences[: limits.MODELS_NAMED_IN_ERROR], f"And {more} more models."]
    return " ".join(sentences)


def _gives_way(models: Iterable[str], standing: Standing) -> Reason | None:
    """The reason when requests for these models run, but fewer at a
    time: live traffic goes first.
    """
    for model in models:
        hold = standing.models.get(model)
        if hold is not None and hold.condition == "live_first":
            begins = f"The model {model} serves live traffic first: "
            public = without_places(hold.public_reason)
            return Reason("live", f"{begins}{public}.", f"{begins}{hold.reason}.", hold.since)
    return None


def _harms_itself(batch: Batch, standing: Standing) -> Reason | None:
    """The reason when the replicas are well and the batch's own requests fail; else None."""
    known = standing.batches.get(batch.id)
    words = known.last_failure if known is not None else ""
    if known is not None and known.failures >= limits.BATCH_FAILURES_MIN:
        what = f"{known.failures} attempts at requests of this batch failed lately, and are tried"
        return _of_words(f"{what} again", words)
    counts = batch.counts
    if counts.failed >= limits.BATCH_FAILURES_MIN and counts.failed > counts.completed:
        what = f"{counts.failed} of the {counts.settled} finished requests of this batch failed"
        return _of_words(what, words)
    return None


def _of_words(what: str, words: str) -> Reason:
    if not words:
        return _alike("own_requests", f"{what}.")
    return Reason(
        "own_requests",
        f"{what}; the last: {without_places(words).rstrip('.')}.",
        f"{what}; the last: {words.rstrip('.')}.",
    )


def is_queued(batch: Batch, standing: Standing) -> bool:
    """Whether nothing of the batch came back yet, or no worker has any of it at present."""
    if not batch.counts.settled:
        return True
    return standing.knows_all_batches and batch.id not in standing.batches


def _bounded(
    batch: Batch, queue: Queue, standing: Standing, in_flight_max: int | None
) -> Reason | None:
    """The reason when the organization has as many requests at engines as it may,
    perhaps its own; else None.
    """
    if in_flight_max is None or queue.leased < in_flight_max or not is_queued(batch, standing):
        return None
    return _alike(
        "bound",
        f"Queued: the organization may have {in_flight_max} requests at engines at one time.",
    )


def _behind(batch: Batch, queue: Queue, standing: Standing) -> Reason | None:
    """The reason when others are in the queue; else None."""
    left = batch.counts.total - batch.counts.settled
    others = queue.waiting + queue.leased - left
    if others <= 0 or not is_queued(batch, standing):
        return None
    sentence = f"Queued with {others} requests of other batches for the same models."
    return _alike("queue", sentence)


def _still(batch: Batch, now: datetime, standing: Standing) -> Reason | None:
    """The reason when everything is well, and yet nothing came back for a while; else None."""
    known = standing.batches.get(batch.id)
    since = _moved_at(batch, known)
    patience_s = limits.BATCH_STILL_S if batch.counts.settled else limits.BATCH_SILENT_S
    if not standing.is_known or _is_recent(since, now, within_s=patience_s):
        return None
    if known is not None:
        what = "Its requests are with the engine, which has answered none of them since"
        return _alike("silent", f"{what} {instant_text(since)}.", since)
    if not standing.knows_all_batches or _is_recent(since, now):
        return None
    return _alike(
        "queue", f"Queued since {instant_text(since)}: no worker has taken it yet.", since
    )


def _is_recent(since: datetime, now: datetime, within_s: float = limits.BATCH_STILL_S) -> bool:
    """Whether the instant is recent. One far ahead is of a process whose clock was
    wrong, and proves nothing.
    """
    return -limits.CLOCKS_AGREE_S <= (now - since).total_seconds() < within_s


def _moved_at(batch: Batch, known: BatchReport | None) -> datetime:
    """When one of its requests last settled, else when it began.

    The row says so: a worker counts from its own beginning, and one that is restarted or takes the
    batch again would never have waited long.
    """
    if batch.last_settled_at is None and known is not None and batch.counts.settled:
        return known.moved_at  # of a version before that column
    return (
        batch.last_settled_at or batch.first_settled_at or batch.in_progress_at or batch.created_at
    )
