"""Faults at the borders of a process: a call is late, fails, has an effect without an answer, or is
the last one that the process makes.

Every call to the database and the object store passes here, before and after its effect. What
happens is drawn from the seed; during `calm` nothing does. Faults are those that the real thing
has: sqlite3's own exceptions for the database, the port's for the object store.
"""

import asyncio
import sqlite3
from collections.abc import Awaitable
from random import Random
from typing import Final, Literal, NoReturn

from lowtide import limits
from lowtide.ports.blobs import BlobsFull, BlobsUnavailable
from testkit.sim import inline_sqlite, memory_blobs
from testkit.sim.fault_kinds import FaultKind
from testkit.sim.kill_points import runs_at
from testkit.sim.loop import virtual_loop
from testkit.sim.process import PROCESS, Process
from testkit.sim.scenario import Scenario
from testkit.sim.trace import Trace

Outage = Literal["database", "slow", "blobs", "disk"]
"""`slow`: a database that takes a second for a statement, and another for a commit."""

_WRITES: Final = ("INSERT", "UPDATE", "DELETE")
_SLOW_S: Final = 1.0
_RARE: Final = 4
"""The factor by which death, or an error, is likelier at what happens less often
than a statement.
"""
_DEATH: Final[dict[inline_sqlite.Moment, FaultKind]] = {
    "db.statement": FaultKind.KILLED_AT_STATEMENT,
    "db.commit": FaultKind.KILLED_AT_COMMIT,
    "db.committed": FaultKind.KILLED_BEHIND_COMMIT,
}


class PortFaults:
    """The faults of one world's database and object store."""

    def __init__(self, scenario: Scenario, trace: Trace) -> None:
        self.rates = scenario.rates
        self.calm = True
        """Whether no faults are injected: before the storm, and after it."""
        self._lease_ttl_s = scenario.lease_ttl_s
        self._random = Random(f"faults {scenario.seed}")
        self._trace = trace
        self._until_s: dict[Outage, float] = {}

    def begin(self, outage: Outage, seconds: float) -> None:
        """Makes the database or the bucket unavailable or slow, or their disk full, for so long."""
        self._until_s[outage] = asyncio.get_running_loop().time() + seconds
        self._trace.note(f"{outage} out for {seconds:.1f} s")

    def tell(self, kind: FaultKind) -> None:
        """Records a fault that happened elsewhere."""
        self._trace.fault(kind)

    def clear(self) -> None:
        """Ends all outages."""
        self.calm = True
        self._until_s.clear()

    def happens(self, chance: float) -> bool:
        return not self.calm and chance > 0 and self._random.random() < chance

    def database(self, moment: inline_sqlite.Moment, statement: str) -> Awaitable[None] | None:
        """The gate of `inline_sqlite`; raises sqlite3.Error."""
        process = PROCESS.get()
        if process is None or self.calm:
            return None
        place = f"{moment} {statement[:40]!r}"
        if moment != "db.committed":
            self._refuse(moment, statement, place)
        elif self.happens(self.rates.db_late):
            self._trace.fault(FaultKind.COMMIT_UNHEARD)
            raise sqlite3.OperationalError("connection lost")
        if self.happens(self.rates.kill * (1 if moment == "db.statement" else _RARE)):
            return self._die(process, _DEATH[moment], place)
        if self._is_out("slow"):
            self._trace.fault(FaultKind.DATABASE_SLOW, place)
            return asyncio.sleep(self._random.expovariate(1 / _SLOW_S))
        return self._wait()

    def _refuse(self, moment: inline_sqlite.Moment, statement: str, place: str) -> None:
        """Raises sqlite3.Error where nothing is to be done."""
        if self._is_out("database"):
            self._trace.fault(FaultKind.DATABASE_AWAY, place)
            raise sqlite3.OperationalError("unable to open database file")
        if self._is_out("disk") and (moment == "db.commit" or statement.startswith(_WRITES)):
            self._trace.fault(FaultKind.DATABASE_FULL, place)
            self._raise_full()
        commit = moment == "db.commit"
        if self.happens(self.rates.db_error * (_RARE if commit else 1)):
            self._trace.fault(
                FaultKind.COMMIT_FAILED if commit else FaultKind.STATEMENT_FAILED, place
            )
            raise sqlite3.OperationalError("disk I/O error")

    async def blobs(self, moment: memory_blobs.Moment, key: str) -> None:
        """The gate of `memory_blobs`; raises BlobError."""
        process = PROCESS.get()
        if process is None:
            return
        process.exit_if_dead()
        if self.calm:
            return
        self._fail_blob(moment, f"{moment} {key}")
        if self.happens(self.rates.kill * _RARE):
            await self._die(process, FaultKind.KILLED_AT_BLOB, f"{moment} {key}")
        if moment == "blob.written" and self.happens(self.rates.freeze):
            self._freeze(process, key)
            await asyncio.sleep(0)
        elif (waiting := self._wait()) is not None:
            await waiting
        process.exit_if_dead()

    def _fail_blob(self, moment: memory_blobs.Moment, place: str) -> None:
        """Raises BlobError."""
        done = moment in ("blob.written", "blob.deleted")
        if not done and self._is_out("blobs"):
            self._trace.fault(FaultKind.BLOBS_AWAY, place)
            raise BlobsUnavailable("the bucket is away")
        if moment == "blob.write" and self._is_out("disk"):
            self._trace.fault(FaultKind.BLOBS_FULL, place)
            raise BlobsFull("no space left")
        if self.happens(self.rates.blob_late if done else self.rates.blob_error):
            self._trace.fault(FaultKind.BLOB_UNHEARD if done else FaultKind.BLOB_REFUSED, place)
            raise BlobsUnavailable("answer lost" if done else "refused")

    def _is_out(self, outage: Outage) -> bool:
        return asyncio.get_running_loop().time() < self._until_s.get(outage, 0.0)

    def _raise_full(self) -> NoReturn:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    def _wait(self) -> Awaitable[None] | None:
        if not self.happens(self.rates.wait):
            return None
        mean_s = self.rates.wait_s
        return asyncio.sleep(self._random.expovariate(1 / mean_s) if mean_s else 0.0)

    def _freeze(self, process: Process, key: str) -> None:
        """Stops the process, so that others take over what it has leased and are at
        it when it wakes.
        """
        seconds = self._lease_ttl_s + limits.REAP_POLL_S + self._random.uniform(0.0, 5.0)
        self._trace.fault(FaultKind.PAUSED_BEFORE_COMMIT, f"behind {key} for {seconds:.1f} s")
        virtual_loop().freeze(process, seconds)

    async def _die(self, process: Process, kind: FaultKind, place: str) -> None:
        self._trace.fault(kind, place)
        if (where := runs_at()) is not None:
            self._trace.deaths.add(where)
        process.kill()
        await asyncio.get_running_loop().create_future()
