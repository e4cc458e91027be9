"""Trouble at the borders of a process: late, failed, unheard-of, or the last thing it ever did.

Every call to the database and the object store passes here, before and after its effect. What
happens is drawn from the seed; during `calm` nothing does. Faults are those that the real thing
has: sqlite3's own exceptions for the database, the port's for the object store.
"""

import asyncio
import sqlite3
from collections.abc import Awaitable
from random import Random
from typing import Literal, NoReturn

from lowtide import limits
from lowtide.ports.blobs import BlobError, BlobsFull, BlobsUnavailable
from lowtide.testing.sim import inline_sqlite, memory_blobs
from lowtide.testing.sim.loop import virtual_loop
from lowtide.testing.sim.process import PROCESS, Process
from lowtide.testing.sim.scenario import Scenario
from lowtide.testing.sim.trace import Trace

Outage = Literal["database", "blobs", "disk"]

_WRITES = ("INSERT", "UPDATE", "DELETE")


class Faults:
    """The weather of one world."""

    def __init__(self, scenario: Scenario, trace: Trace) -> None:
        self.rates = scenario.rates
        self.calm = False
        self._lease_ttl_s = scenario.lease_ttl_s
        self._random = Random(f"faults {scenario.seed}")
        self._trace = trace
        self._until_s: dict[Outage, float] = {}

    def begin(self, outage: Outage, seconds: float) -> None:
        """The database or the bucket is away, or the disk they share is full, for that long."""
        self._until_s[outage] = asyncio.get_running_loop().time() + seconds
        self._trace.note(f"{outage} out for {seconds:.1f} s")

    def clear(self) -> None:
        """No more trouble from now on."""
        self.calm = True
        self._until_s.clear()

    def happens(self, chance: float) -> bool:
        return not self.calm and chance > 0 and self._random.random() < chance

    def database(self, moment: inline_sqlite.Moment, statement: str) -> Awaitable[None] | None:
        """The gate of `inline_sqlite`; raises sqlite3.Error."""
        process = PROCESS.get()
        if process is None or self.calm:
            return None
        if moment != "db.committed":
            if self._is_out("database"):
                raise sqlite3.OperationalError("unable to open database file")
            if self._is_out("disk") and (moment == "db.commit" or statement.startswith(_WRITES)):
                self._raise_full()
            if self.happens(self.rates.db_error):
                self._trace.note(f"{moment} fails: {statement[:40]!r}")
                raise sqlite3.OperationalError("disk I/O error")
        elif self.happens(self.rates.db_late):
            self._trace.note("committed, but the answer is lost")
            raise sqlite3.OperationalError("connection lost")
        if self.happens(self.rates.kill):
            return self._die(process, f"{moment} {statement[:40]!r}")
        return self._wait()

    async def blobs(self, moment: memory_blobs.Moment, key: str) -> None:
        """The gate of `memory_blobs`; raises BlobError."""
        process = PROCESS.get()
        if process is None:
            return
        process.exit_if_dead()
        if self.calm:
            return
        if (error := self._blob_error(moment)) is not None:
            self._trace.note(f"{moment} {key} fails: {error}")
            raise error
        if self.happens(self.rates.kill):
            await self._die(process, f"{moment} {key}")
        if moment == "blob.written" and self.happens(self.rates.freeze):
            self._freeze(process, key)
            await asyncio.sleep(0)
        elif (waiting := self._wait()) is not None:
            await waiting
        process.exit_if_dead()

    def _blob_error(self, moment: memory_blobs.Moment) -> BlobError | None:
        done = moment in ("blob.written", "blob.deleted")
        if not done and self._is_out("blobs"):
            return BlobsUnavailable("the bucket is away")
        if moment == "blob.write" and self._is_out("disk"):
            return BlobsFull("no space left")
        if self.happens(self.rates.blob_late if done else self.rates.blob_error):
            return BlobsUnavailable("answer lost" if done else "refused")
        return None

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
        """Others take over what it has leased, and are at it when it wakes."""
        seconds = self._lease_ttl_s + limits.REAP_POLL_S + self._random.uniform(0.0, 5.0)
        self._trace.note(f"SIGSTOP behind {key} for {seconds:.1f} s")
        self._trace.count("frozen")
        virtual_loop().freeze(process, seconds)

    async def _die(self, process: Process, where: str) -> None:
        self._trace.note(f"killed at {where}")
        process.kill()
        await asyncio.get_running_loop().create_future()
