"""What a run is measured by: calls answered, engines there, and what PostgreSQL took.

Used by __main__.py and page.py. Invariant: a sample is a sum since the begin of the run; what held
between two of them is their difference.
"""

import json
import os
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from testkit.postgres import PostgresServer

# Heads of organizations' queues, as claims read them; the leases that follow; all statements.
_COSTS: Final = """
SELECT coalesce(sum(calls) FILTER (WHERE head), 0),
       coalesce(sum(total_exec_time) FILTER (WHERE head), 0),
       coalesce(sum(calls) FILTER (WHERE lease), 0),
       coalesce(sum(total_exec_time), 0)
FROM (SELECT calls, total_exec_time,
             query LIKE 'SELECT chunks.%FROM chunks%SKIP LOCKED' AS head,
             query LIKE 'UPDATE chunks SET state=%chunks.token + %' AS lease
      FROM pg_stat_statements) AS told
"""


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One sample."""

    at_s: float
    answered: int
    """Calls that the engines answered."""
    bound: float
    """Calls that the engines which were there could have answered."""
    completed: int
    """Lines, as the batches tell."""
    engines: int
    claims: float
    claims_ms: float
    """What claims took to find the heads of queues."""
    leases: float
    database_ms: float
    load: float
    disk_mb: float = 0.0
    """What the database and its log, and the bytes where they lie in a folder, take."""
    memory_mb: float = 0.0
    """Resident sets of the API processes and workers."""


def disk_mb(*folders: Path) -> float:
    """What the files of these folders take; they may come and go meanwhile."""
    total = 0
    for folder in folders:
        for where, _, names in os.walk(folder):
            for name in names:
                try:
                    total += os.lstat(os.path.join(where, name)).st_blocks * 512  # noqa: PTH118
                except OSError:
                    continue
    return total / 1e6


def answered(port: int) -> tuple[int, int]:
    """Calls that all engines answered, and how many were in flight at most at one."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/count", timeout=30) as reply:
        reported = json.loads(reply.read())
    return reported["answered"], reported["most_in_flight"]


def costs(server: PostgresServer, name: str) -> tuple[float, float, float, float]:
    """Reads of queues by claims and their milliseconds; chunks leased; milliseconds of all."""
    claims, claims_ms, leases, all_ms = server.sql(_COSTS, database=name).strip().split("|")
    return float(claims), float(claims_ms), float(leases), float(all_ms)


def load() -> float:
    """The load average of the last minute."""
    return os.getloadavg()[0]


def rates(samples: Sequence[Sample], span_s: float) -> list[tuple[float, dict[str, float]]]:
    """What held in each stretch of `span_s`: its middle, and values by name."""
    found: list[tuple[float, dict[str, float]]] = []
    first = samples[0]
    for last in samples[1:]:
        took_s = last.at_s - first.at_s
        if took_s < span_s:
            continue
        claims, leases = last.claims - first.claims, last.leases - first.leases
        values = {
            "rate": (last.answered - first.answered) / took_s,
            "bound": (last.bound - first.bound) / took_s,
            "engines": float(last.engines),
            "disk_mb": last.disk_mb,
            "memory_mb": last.memory_mb,
        }
        if claims:
            values["claim_ms"] = (last.claims_ms - first.claims_ms) / claims
        if leases:
            values["database_ms"] = (last.database_ms - first.database_ms) / leases
        found.append(((first.at_s + last.at_s) / 2, values))
        first = last
    return found
