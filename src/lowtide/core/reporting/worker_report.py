"""What a worker tells of itself with its heartbeat, for every process that shares its store.

loops/replicas/report.py makes and writes it, `core.reporting.standing` reads what all workers have
written. Invariant: a report holds plain words and aware UTC instants, so a process of another
version can read it; its lists are bounded (limits.py), however much a worker has.
"""

from datetime import datetime
from typing import Final

import msgspec


class ReplicaLoad(msgspec.Struct, frozen=True, kw_only=True):
    """How full a replica is: batch calls in flight and allowed, what bounds them, and the engine's
    own figures, None where it does not tell. `kv_used` is a share from 0 to 1. `bounds_steps`: its
    scheduler gives batch calls what live ones leave, so nothing is paced. `sends_parts`: long batch
    prompts go there in parts at present. `live_target_s`: how soon
    a live call should begin there, None where nothing is steered by that.
    """

    in_flight: int
    window: int
    bound: str
    running: int | None = None
    waiting: int | None = None
    kv_used: float | None = None
    bounds_steps: bool = False
    sends_parts: bool = False
    live_target_s: float | None = None


class ReplicaReport(msgspec.Struct, frozen=True, kw_only=True):
    """One replica as its worker sees it, or those models of it that are in one state:
    `core.reporting.replica_state.ReplicaState`, with an instant.

    `since`: when the condition began, None while ready. `is_owned`: whether this worker may send it
    batch calls; of a replica that another one has, a worker knows little. `endpoints`: what is told
    is of calls to these alone; empty: of all.
    """

    name: str
    models: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    condition: str = "ready"
    reason: str = ""
    public_reason: str = ""
    remedy: str = ""
    since: datetime | None = None
    is_owned: bool = True
    load: ReplicaLoad | None = None
    """None in reports of older versions."""


class BatchReport(msgspec.Struct, frozen=True, kw_only=True):
    """A batch that the worker has chunks of, or had a moment ago.

    `moved_at`: when one of its requests settled last, or else the work on it began. `failures`:
    attempts of its requests lately that failed by themselves; `last_failure` says how, in the
    engine's words.
    """

    id: str
    moved_at: datetime
    failures: int = 0
    last_failure: str = ""


SETTINGS_LABEL: Final = "settings"
"""The label of a report on the settings file, while what it says now cannot be taken over."""


class SourceReport(msgspec.Struct, frozen=True, kw_only=True):
    """A place where engines are found, and the names of those that it told last. `stale_since`: it
    has not answered since; None while it does. `error`: why, or what of it cannot be used.
    """

    label: str
    engines: tuple[str, ...] = ()
    stale_since: datetime | None = None
    error: str = ""


class ScalerReport(msgspec.Struct, frozen=True, kw_only=True):
    """A scaler, as the worker sees it that alone asks it. `target`: the replicas that the place was
    told to have, and `running` those that there are, None while it was not read. `asked` at
    `asked_at`: what this worker asked for last, with its `reason`. `error`: what fails, since
    `error_since`. `hides`: one engine stands for all that run.
    """

    label: str
    models: tuple[str, ...] = ()
    dry_run: bool = False
    target: int | None = None
    running: int | None = None
    hides: bool = False
    asked: int | None = None
    asked_at: datetime | None = None
    reason: str = ""
    error: str = ""
    error_since: datetime | None = None


class WorkerReport(msgspec.Struct, frozen=True, kw_only=True):
    """The report of one worker at `seen_at`; `ttl_s` later it says nothing
    about the present any more.

    `results_error`: why results cannot be stored; `validation_error`: why no input
    file can be read. Both are for operators, empty when all is well. `validating` is the
    batch whose file is read, since when in `validating_since`. `batches` are all that it
    works on unless `more_batches`.
    """

    worker_id: str
    seen_at: datetime
    ttl_s: float
    replicas: tuple[ReplicaReport, ...] = ()
    results_error: str = ""
    validation_error: str = ""
    validating: str | None = None
    validating_since: datetime | None = None
    batches: tuple[BatchReport, ...] = ()
    more_batches: bool = False
    sources: tuple[SourceReport, ...] = ()
    """The sources as this process sees them; empty in reports of older versions."""
    scalers: tuple[ScalerReport, ...] = ()
    """Those that this worker asks; empty in reports of older versions."""
