"""Whether a scaler is to be asked for another number of replicas, and what is known of the scaler.

Pure; loops/replicas/scalers.py asks at each reading. How many replicas deadlines need is decided
before, in core/scheduling/wanted_replicas.py; here it is bounded and damped. Invariants: a number
that is not trusted lowers nothing, and raises only from zero to one, where one has to run to tell
how fast it is; nothing goes to zero while calls are in flight; after a change none is taken back
before as much time has passed as a start takes.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from lowtide import limits


class ScalerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a place says: `target`, the replicas that it was told to have, and `running`, those that
    there are. `error`: what happened to them since the last reading, told once; else empty.
    `hides` True: one engine address stands for all of them.
    """

    target: int
    running: int
    error: str = ""
    hides: bool = False


class ReplicaNeed(msgspec.Struct, frozen=True, kw_only=True):
    """The replicas that are wanted, and what that rests on. `replicas`: the number that is told,
    held for a while where it falls; `needed`: that of this moment, None: the same. `present`: those
    that answer as engines; `in_flight`: calls at their engines.
    `learns`: it is not trusted because a replica has to run first. `hold_s`: as long as a start
    takes, as far as that is known.
    """

    replicas: int
    needed: int | None = None
    present: int = 0
    in_flight: int = 0
    trusted: bool = True
    learns: bool = False
    hold_s: float
    reason: str = ""


class Bounds(msgspec.Struct, frozen=True):
    """The least and the most replicas that a scaler may be asked for."""

    replicas_min: int
    replicas_max: int


class ScalerAsk(msgspec.Struct, frozen=True):
    """A number that a scaler was asked for. `is_dry`: it would have been, and nothing was done."""

    replicas: int
    at: datetime
    reason: str
    is_dry: bool = False


class ScalerView(msgspec.Struct, frozen=True, kw_only=True):
    """What a process knows of a scaler. `since`: from when on it decides. `error` is empty while
    all is well; `failures`: in a row, the last at `failed_at`.
    """

    since: datetime
    status: ScalerStatus | None = None
    asked: ScalerAsk | None = None
    failures: int = 0
    failed_at: datetime | None = None
    error: str = ""
    error_since: datetime | None = None

    def with_status(self, status: ScalerStatus) -> "ScalerView":
        """The view after a reading that met no error. An earlier error stays until
        as many replicas run as were asked for.
        """
        asked = self.asked
        due = status.target if asked is None or asked.is_dry else asked.replicas
        if self.error and status.running < due:
            return msgspec.structs.replace(self, status=status)
        return msgspec.structs.replace(self, status=status, error="", error_since=None)

    def failed(self, words: str, now: datetime) -> "ScalerView":
        """The view after a failure; one long after the last is the first of a new row."""
        is_new = self.failed_at is None or now - self.failed_at > timedelta(
            seconds=2 * limits.SCALER_AGAIN_S_MAX
        )
        return msgspec.structs.replace(
            self,
            failures=1 if is_new else self.failures + 1,
            failed_at=now,
            error=words[: limits.SCALER_TEXT_CHARS_MAX],
            error_since=self.error_since or now,
        )

    @property
    def again_s(self) -> float:
        """Seconds from the last failure until the scaler is to be tried again."""
        doublings = min(max(0, self.failures - 1), limits.SCALER_DOUBLINGS_MAX)
        return min(limits.SCALER_AGAIN_S_MAX, limits.SCALER_AGAIN_S * 2.0**doublings)


def needed_of_all(needs: Sequence[ReplicaNeed]) -> ReplicaNeed | None:
    """What a scaler of several models has to have: each of its replicas serves them all, so the
    largest number counts. What is not known of one of them, is not known. None without any.
    """
    if not needs:
        return None
    most = max(needs, key=lambda need: need.replicas)
    return ReplicaNeed(
        replicas=most.replicas,
        needed=max(_needed(need) for need in needs),
        present=max(need.present for need in needs),
        in_flight=sum(need.in_flight for need in needs),
        trusted=all(need.trusted for need in needs),
        learns=most.learns,
        hold_s=max(need.hold_s for need in needs),
        reason=most.reason,
    )


def next_ask(
    need: ReplicaNeed, status: ScalerStatus, bounds: Bounds, changed_at: datetime, now: datetime
) -> int | None:
    """The number to ask for now, None for no change. `changed_at`: of the last change, or from when
    on this process decides. What is only held up starts nothing; what is needed now, does.
    """
    most = min(max(_needed(need), bounds.replicas_min), bounds.replicas_max)
    if not need.trusted:
        is_first = need.learns and most > 0 and status.target == 0
        return 1 if is_first else None
    if most > status.target:
        return most
    number = min(max(need.replicas, bounds.replicas_min), bounds.replicas_max)
    if number == 0 and need.in_flight > 0:
        number = 1
    is_held = now < changed_at + timedelta(seconds=need.hold_s)
    is_under_way = status.running < status.target and (
        now < changed_at + timedelta(seconds=2 * need.hold_s)
    )
    return number if number < status.target and not (is_held or is_under_way) else None


def _needed(need: ReplicaNeed) -> int:
    return need.replicas if need.needed is None else need.needed


def late(need: ReplicaNeed, status: ScalerStatus, changed_at: datetime, now: datetime) -> str:
    """What there is to say of replicas that should have come long ago; empty where none should."""
    if need.present or not status.target or now < changed_at + timedelta(seconds=2 * need.hold_s):
        return ""
    return (
        f"{status.target} asked for, {status.running} running there, and no engine answers:"
        " look at its log, and at the source that should find it"
    )
