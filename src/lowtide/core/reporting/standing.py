"""What all workers' reports come to: which models can be worked on, and why the others cannot.

Pure. service/standings.py feeds it the stored reports; `core.reporting.progress` makes the reason
of a batch of it, loops/replicas/report.py the log line. Invariant: a worker that has not reported
for its `ttl_s` is taken to be gone, and nothing that it said last counts as present.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

import msgspec

from lowtide import limits
from lowtide.core.reporting.worker_report import BatchReport, ReplicaReport, WorkerReport

_NEAREST: Final = (
    "live_first", "overloaded", "failing", "unreachable", "asleep", "misconfigured"
)  # fmt: skip
"""Conditions, the one first that most likely ends soonest: it speaks for a model."""


AWAY: Final = frozenset({"unreachable", "misconfigured"})
"""Conditions of a replica that is listed and not there."""


class Hold(msgspec.Struct, frozen=True):
    """Why no replica of a model takes its batch calls, and since when.

    `reason` is for operators, `public_reason` for tenants: it has no address.
    """

    condition: str
    reason: str
    public_reason: str
    since: datetime | None = None


class Asleep(msgspec.Struct, frozen=True):
    """A model that has work and no replica. `wake_at`: when one is to be started, None: it is asked
    for. `error`: why what starts it fails, for operators.
    """

    wake_at: datetime | None = None
    error: str = ""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """The state of all workers at one moment.

    `models`: every model that some worker lists, with what holds it, None where nothing does;
    `calls`: what holds calls for a model to one endpoint, where it is not the whole model. `gone`:
    workers that have stopped reporting, with their last instant. `asleep`: models at zero replicas,
    as far as someone has asked for them. `is_known` False: no report was
    read, and nothing follows from what is missing here.
    """

    is_known: bool = True
    live: tuple[str, ...] = ()
    gone: Mapping[str, datetime] = MappingProxyType({})
    models: Mapping[str, Hold | None] = MappingProxyType({})
    calls: Mapping[tuple[str, str], Hold] = MappingProxyType({})
    results_error: str = ""
    validation_error: str = ""
    validating: Mapping[str, datetime] = MappingProxyType({})
    batches: Mapping[str, BatchReport] = MappingProxyType({})
    asleep: Mapping[str, Asleep] = MappingProxyType({})
    knows_all_batches: bool = False

    def hold_of(self, model: str, endpoint: str) -> Hold | None:
        """What holds such calls for one of `models`."""
        return self.models[model] or self.calls.get((model, endpoint))

    def is_away(self, model: str) -> bool:
        """Whether no worker has a replica of the model that can be reached."""
        hold = self.models.get(model)
        return model not in self.models or (hold is not None and hold.condition in AWAY)


NOTHING_KNOWN: Final = Standing(is_known=False)


def standing_of(reports: Iterable[WorkerReport], now: datetime) -> Standing:
    """The standing of the workers that wrote `reports`, one each."""
    live, gone = split(reports, now)
    return Standing(
        live=tuple(report.worker_id for report in live),
        gone={report.worker_id: report.seen_at for report in gone},
        models=_models(live, gone),
        calls=_calls(live),
        results_error=_of_all(live, [report.results_error for report in live]),
        validation_error=_of_all(live, [report.validation_error for report in live]),
        validating={
            report.validating: report.validating_since or report.seen_at
            for report in live
            if report.validating is not None
        },
        batches=_batches(live),
        knows_all_batches=bool(live) and not any(report.more_batches for report in live),
    )


def split(
    reports: Iterable[WorkerReport], now: datetime
) -> tuple[list[WorkerReport], list[WorkerReport]]:
    """The reports of workers that live, and of those that are gone; each by id."""
    live: list[WorkerReport] = []
    gone: list[WorkerReport] = []
    for report in sorted(reports, key=lambda report: report.worker_id):
        is_live = now - report.seen_at < timedelta(seconds=report.ttl_s)
        (live if is_live else gone).append(report)
    return live, gone


def _of_all(live: Sequence[WorkerReport], errors: Sequence[str]) -> str:
    """The error that stops all work: one that every worker has; else ""."""
    return errors[0] if live and all(errors) else ""


def _batches(live: Iterable[WorkerReport]) -> dict[str, BatchReport]:
    """The batches by id; of one that several workers work on, when it last
    moved and all its failures.
    """
    by_id: dict[str, BatchReport] = {}
    for report in live:
        for batch in report.batches:
            known = by_id.get(batch.id, batch)
            if known is not batch:
                batch = msgspec.structs.replace(
                    batch,
                    moved_at=max(batch.moved_at, known.moved_at),
                    failures=batch.failures + known.failures,
                    last_failure=batch.last_failure or known.last_failure,
                )
            by_id[batch.id] = batch
    return by_id


def _models(live: Iterable[WorkerReport], gone: Iterable[WorkerReport]) -> dict[str, Hold | None]:
    serving: dict[str, list[ReplicaReport]] = {}
    for _, replica in by_owner(live):
        for model in () if replica.endpoints else replica.models:
            serving.setdefault(model, []).append(replica)
    holds = {model: _hold(replicas) for model, replicas in serving.items()}
    for report in gone:
        why = f"its worker has not been heard of since {instant_text(report.seen_at)}"
        hold = Hold("worker_gone", f"{why} ({report.worker_id})", why, report.seen_at)
        for replica in report.replicas:
            for model in replica.models:
                holds.setdefault(model, hold)
    return holds


def _calls(live: Iterable[WorkerReport]) -> dict[tuple[str, str], Hold]:
    """What holds single endpoints of models that are not held as a whole."""
    reported = [replica for _, replica in by_owner(live)]
    single = {
        (model, endpoint)
        for each in reported
        for model in each.models
        for endpoint in each.endpoints
    }
    holds: dict[tuple[str, str], Hold] = {}
    for model, endpoint in sorted(single):
        nearest: dict[str, ReplicaReport] = {}
        for each in reported:
            is_of_all = not each.endpoints and each.name not in nearest
            if model in each.models and (is_of_all or endpoint in each.endpoints):
                nearest[each.name] = each
        hold = _hold(list(nearest.values()))
        if hold is not None:
            holds[model, endpoint] = hold
    return holds


def by_owner(live: Iterable[WorkerReport]) -> list[tuple[str, ReplicaReport]]:
    """Each replica as the worker sees it that sends it calls, else as one of the others does; with
    that worker's id.
    """
    owners: dict[str, tuple[str, bool]] = {}
    reported = [(report.worker_id, replica) for report in live for replica in report.replicas]
    for worker_id, replica in reported:
        _, is_owned = owners.get(replica.name, ("", False))
        if replica.name not in owners or (replica.is_owned and not is_owned):
            owners[replica.name] = (worker_id, replica.is_owned)
    return [each for each in reported if owners[each[1].name][0] == each[0]]


def _hold(replicas: Sequence[ReplicaReport]) -> Hold | None:
    """What holds a model: nothing, if one of its replicas takes calls."""
    if any(replica.condition == "ready" for replica in replicas):
        return None
    ranked = sorted(replicas, key=lambda replica: _rank(replica.condition))
    nearest = ranked[0]
    reported = ranked
    if nearest.condition == "live_first":
        reported = [replica for replica in ranked if replica.condition == "live_first"]
    since = [replica.since for replica in replicas if replica.since is not None]
    return Hold(
        nearest.condition,
        _joined(replica.reason for replica in reported),
        _joined(replica.public_reason or "it takes no calls" for replica in reported),
        max(since, default=None),
    )


def _rank(condition: str) -> int:
    """The place of a condition in that order; an unknown word, of a newer version, comes last."""
    return _NEAREST.index(condition) if condition in _NEAREST else len(_NEAREST)


def _joined(reasons: Iterable[str]) -> str:
    """The reasons as one text, each once, a few of them."""
    each = list(dict.fromkeys(reason for reason in reasons if reason))
    more = len(each) - limits.REASONS_JOINED_MAX
    shown = "; ".join(each[: limits.REASONS_JOINED_MAX])
    return f"{shown}; and {more} more" if more > 0 else shown


def instant_text(instant: datetime) -> str:
    """The instant as a sentence names it."""
    return f"{instant:%Y-%m-%d %H:%M:%S} UTC"
