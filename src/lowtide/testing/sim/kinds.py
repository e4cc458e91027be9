"""The kinds of faults that a world may meet, by the words of the run's summary.

Each is counted where it happens, not where it is planned (`Trace.fault`), and a test asks that each
does happen within the seeds of the test command: a fault that never fires proves nothing.
"""

from enum import StrEnum


class Fault(StrEnum):
    """What befell a world."""

    KILLED = "process killed from outside"
    KILLED_BETWEEN_STEPS = "process killed at any await"
    KILLED_AT_STATEMENT = "process killed at a statement"
    KILLED_AT_COMMIT = "process killed before a commit"
    KILLED_BEHIND_COMMIT = "process killed behind a commit"
    KILLED_AT_BLOB = "process killed at the object store"
    TERMINATED = "process told to end"
    PAUSED = "process stopped, and continued"
    PAUSED_BEFORE_COMMIT = "process stopped between segment and commit"
    LEASE_LOST = "results committed behind the end of a lease"
    OWNER_CHANGED = "replica gone over to another worker"
    OWNER_OUTLIVED = "replica taken from a worker that sleeps past its lease"
    CLOCK_JUMPED = "clock off by up to a minute"
    CLOCK_LEAPT = "clock off by longer than orphans are kept"
    REPLY_LOST = "reply to a client lost"
    REPLY_LATE = "reply to a client late"
    CLIENT_GAVE_UP = "client asked again while the first call went on"
    DATABASE_AWAY = "database away"
    DATABASE_SLOW = "database slow by seconds"
    DATABASE_FULL = "database's disk full"
    STATEMENT_FAILED = "statement failed"
    COMMIT_FAILED = "commit failed"
    COMMIT_UNHEARD = "commit done, answer lost"
    BEAT_DOUBLED = "beat committed twice"
    BEAT_REPEATED_LATE = "old beat committed again"
    BLOBS_AWAY = "object store away"
    BLOBS_FULL = "object store's disk full"
    BLOB_REFUSED = "object store refused a call"
    BLOB_UNHEARD = "object store's answer lost"
    ENGINE_DIED = "engine died"
    ENGINE_CRASHED = "engine killed by a request"
    ENGINE_UNREACHABLE = "engine not reached"
    ENGINE_BROKE_OFF = "engine's connection broken in a call"
    ENGINE_FULL = "engine throttled"
    ENGINE_FAILED = "engine answered 5xx"
    ENGINE_REFUSED = "engine answered 400"
    ENGINE_RUBBISH = "engine sent rubbish"
    ENGINE_HALF_REPLY = "engine sent half a reply"
    ENGINE_OVERSIZE = "engine sent too much"
    ENGINE_HUNG = "engine never answered"
