"""What the tests of the dispatch core build on: leases, lines and ready-made outcomes."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from lowtide.core.batches.chunk import NOTHING_DONE, ChunkKey, ChunkLease
from lowtide.core.dispatch.dispatch import Dispatch
from lowtide.core.dispatch.replica import Replica
from lowtide.core.dispatch.request import ChunkRun, Request
from lowtide.core.faults.outcome import Failed, Interrupted, Outcome, Rejected, Succeeded, Throttled
from lowtide.core.usage import NO_USAGE

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
OK = Succeeded(200, b"{}", NO_USAGE)
REFUSED = Rejected("request_rejected", "no", 400)
BUSY = Throttled("no room")
SERVER_ERROR = Failed("server_error", "it answered 500", 500)
DIED = Failed("cut", "the connection ended")
FORBIDDEN = Failed("forbidden", "not you", 403)
UNREACHED = Interrupted("connection refused")


def lease(
    batch: str = "b",
    seq: int = 0,
    *,
    model: str = "m",
    token: int = 1,
    owner: str = "o",
    weight: float = 1.0,
) -> ChunkLease:
    return ChunkLease(
        key=ChunkKey(batch, seq),
        token=token,
        expires_at=NOON,
        project_id="p",
        organization_id=owner,
        weight=weight,
        dialect="openai",
        endpoint="/v1/chat/completions",
        model=model,
        first=0,
        count=128,
        done=NOTHING_DONE,
        plan_key="plans/b",
        input_key="inputs/b",
        deadline_at=NOON,
    )


def add(core: Dispatch, count: int, batch: str = "b", seq: int = 0, **rest: Any) -> ChunkRun:
    """A chunk of that many requests; line `n` holds the bytes `line n`."""
    lines = [(n, n + 1, b"line %d" % (n + 1)) for n in range(count)]
    return core.add(lease(batch, seq, **rest), lines)


def replica(url: str = "http://a", *, window: int = 4, models: Iterable[str] = ("m",)) -> Replica:
    return Replica(url, frozenset(models), window)


def take_all(core: Dispatch, from_replica: Replica, now_s: float = 0.0) -> list[Request]:
    taken = []
    while (request := core.take(from_replica, now_s)) is not None:
        taken.append(request)
    return taken


def try_all(
    core: Dispatch, at: Replica, now_s: float = 0.0, outcome: Outcome = OK
) -> list[tuple[str, str]]:
    """Send every trial that is due, and let that come of it; the scopes that were tried."""
    tried = []
    while (scope := core.trial(at, now_s)) is not None:
        tried.append((scope.model, scope.endpoint))
        core.trial_ended(at, scope, outcome, now_s)
    return tried
