"""What holds batch calls back from one replica, as a value for everybody who shows it.

`state_of` is the one place that reads it off a `Replica`. The worker writes it into the store with
its heartbeat; the reason of a batch, `doctor`, metrics and logs read it. Invariant: a `reason` may
name addresses and is for operators alone; `public_reason` names none and may be shown to tenants.
"""

from typing import Final, Literal

import msgspec

from lowtide.core.progress import LIVE_LOAD
from lowtide.core.replica import Replica

Condition = Literal[
    "ready", "misconfigured", "unreachable", "failing", "overloaded", "asleep", "live_first"
]
"""ready: takes batch calls. misconfigured: its set-up is at fault, an operator has to mend it.
unreachable: no connection comes about. failing: it breaks calls or answers 5xx. overloaded: it
refuses calls for want of room. asleep: the engine says so itself. live_first: live traffic has the
room at present.
"""


class ReplicaState(msgspec.Struct, frozen=True):
    """`since_s`: monotonic seconds at which the condition began, None while ready."""

    condition: Condition = "ready"
    reason: str = ""
    public_reason: str = ""
    remedy: str = ""
    since_s: float | None = None


READY: Final = ReplicaState()


def state_of(replica: Replica) -> ReplicaState:
    """What holds batch calls back at this moment."""
    if replica.circuit.state != "closed":
        why = replica.circuit.opened_because
        return ReplicaState("unreachable", f"{replica.url}: {why}", why)
    controller = replica.controller
    if controller is not None and controller.signals.asleep:
        return ReplicaState("asleep", f"{replica.url}: the engine sleeps", "the engine sleeps")
    if controller is not None and controller.gives_way:
        why = f"{LIVE_LOAD} {100 * controller.live.load:.0f} %"
        return ReplicaState("live_first", why, why)
    return READY
