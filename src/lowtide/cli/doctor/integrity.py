"""What `lowtide doctor` says about drift, and the repairs that it asks for
(service/integrity/checker.py).

Invariant: a check changes nothing, and never opens a database that is not of this version; how much
is kept of what was found does not grow with it.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final

import msgspec

from lowtide.blobs.url import open_blobs
from lowtide.cli.doctor.finding import Finding
from lowtide.cli.terminal.units import human_bytes, plural
from lowtide.config import Settings
from lowtide.core.integrity.consistency import Inconsistency
from lowtide.core.validation.planner import Planner
from lowtide.data_dir import DATABASE_FILE
from lowtide.ports.blobs import Blobs
from lowtide.service.catalogue import catalogue_of
from lowtide.service.integrity.checker import ConsistencyChecker
from lowtide.service.integrity.repair import Repairer, RepairResult
from lowtide.store.schema.tables import HEAD
from lowtide.store.sql_store import SqlStore
from lowtide.system import SystemClock
from lowtide.wiring.database import is_single_machine, store_of

_KEYS_SHOWN: Final = 3
_KEPT_MAX: Final = 1_000
"""Repairs that --json lists one by one."""

OnProgress = Callable[[int], None]

_WORDS: Final = {
    "input": ("input of a batch in progress", "the batch ends; what never ran goes to its errors"),
    "upload": ("content of an uploaded file", "the file is marked as lost"),
    "plan": ("plan of a batch", "made again from the input file"),
    "segment": ("segment of results", "taken back with its charge; those requests run again"),
    "result": ("result file", "assembled again if its segments are there, else marked as lost"),
}
_PROBLEMS: Final = {
    "missing": "missing",
    "size": "of the wrong size",
    "content": "not what was stored",
}


class Kind(msgspec.Struct):
    """All drift of one kind, with the first keys of it."""

    count: int = 0
    bytes: int = 0
    keys: list[str] = msgspec.field(default_factory=list)
    first: Inconsistency | None = None

    def add(self, inconsistency: Inconsistency) -> None:
        self.count += 1
        self.bytes += inconsistency.bytes
        self.first = self.first or inconsistency
        if len(self.keys) < _KEYS_SHOWN:
            self.keys.append(inconsistency.key)


class DriftReport(msgspec.Struct):
    """What one check found. `all_missing`: nothing that was looked for was there."""

    kinds: dict[str, Kind]
    checked: int
    missing: int

    @property
    def all_missing(self) -> bool:
        return 0 < self.checked == self.missing

    @property
    def findings(self) -> list[Finding]:
        findings = [_finding(kind) for kind in self.kinds.values()]
        if not findings:
            what = f"{plural(self.checked, 'blob')} that rows need, all there"
            return [Finding("drift", "ok", what)]
        if self.all_missing:
            remedy = "Is server.blob_url right, and the folder mounted? Only if the blobs are truly"
            remedy += " gone: --repair --accept-loss."
            findings.insert(
                0, Finding("drift", "fail", "every blob that was looked for is missing", remedy)
            )
        return findings


class Repairs(msgspec.Struct):
    """What was done. `listed` has the first of them."""

    listed: list[RepairResult] = msgspec.field(default_factory=list)
    done: Counter[str] = msgspec.field(default_factory=Counter)
    waiting: int = 0


async def can_check(settings: Settings) -> bool:
    """Whether there is a database, and of this version: another one's rows may mean other things.

    Raises StoreError.
    """
    if is_single_machine(settings) and not (settings.server.data_dir / DATABASE_FILE).exists():
        return False
    async with aclosing(store_of(settings)) as store:
        return (await store.facts(SystemClock())).schema == HEAD


async def check_blobs(settings: Settings, *, deep: bool, on_progress: OnProgress) -> DriftReport:
    """Compares rows and blobs. Raises StoreError, BlobError."""
    async with _opened(settings) as (store, blobs):
        care = ConsistencyChecker(store, blobs, on_progress=on_progress)
        kinds: dict[str, Kind] = {}
        async for inconsistency in care.check_all(deep=deep):
            kinds.setdefault(inconsistency.kind, Kind()).add(inconsistency)
        return DriftReport(kinds, care.checked, care.missing)


async def repair(
    settings: Settings,
    *,
    deep: bool,
    on_progress: OnProgress,
    on_mended: Callable[[RepairResult], None],
) -> Repairs:
    """Repairs what was found. Raises StoreError, BlobError; repairs made before stay."""
    repairs = Repairs()
    planner = Planner(catalogue_of(settings), lambda: settings.limits)
    async with _opened(settings) as (store, blobs):
        mending = Repairer(store, blobs, SystemClock(), planner, settings.limits.line_bytes)
        care = ConsistencyChecker(store, blobs, on_progress=on_progress)
        async for mended in mending.mend_all(care, deep=deep):
            on_mended(mended)
            repairs.done[mended.inconsistency.kind] += mended.is_done
            repairs.waiting += not mended.is_done
            if len(repairs.listed) < _KEPT_MAX:
                repairs.listed.append(mended)
    return repairs


def mended_object(mended: RepairResult) -> dict[str, Any]:
    """One repair, for --json."""
    reference = mended.inconsistency.reference
    return {
        "blob": mended.inconsistency.key,
        "trouble": mended.inconsistency.problem,
        "needed_as": None if reference is None else reference.need,
        "did": mended.did,
        "done": mended.is_done,
    }


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[tuple[SqlStore, Blobs]]:
    folder = settings.server.data_dir.absolute() / "blobs"
    # not opened, which would migrate: its schema was looked at
    async with aclosing(store_of(settings)) as store:
        yield store, open_blobs(settings.server.blob_url, folder)


def _finding(kind: Kind) -> Finding:
    assert kind.first is not None
    more = kind.count - len(kind.keys)
    keys = ", ".join(kind.keys) + (f" and {more:,} more" if more else "")
    reference = kind.first.reference
    if reference is None:
        what = f"{plural(kind.count, 'blob')} ({human_bytes(kind.bytes)}) that no row knows: {keys}"
        remedy = "A running server deletes them within hours; --repair does now."
        return Finding("drift", "warn", what, remedy)
    noun, cure = _WORDS[reference.need]
    problem = _PROBLEMS[kind.first.problem]
    what = f"{kind.count:,} x {noun}, {problem}: {keys}"
    return Finding("drift", "fail", what, f"`lowtide doctor --repair`: {cure}.")
