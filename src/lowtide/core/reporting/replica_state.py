"""What holds batch calls back from one replica, as one value for all places that show it.

`state_of` is the one place that derives it from a `Replica`. The worker writes it into the
store with its heartbeat; the reason of a batch, `doctor`, metrics and logs read it.
Invariant: a `reason` may name addresses and is for operators alone; `public_reason` names
none and may be shown to tenants.
"""

from typing import Final, Literal

import msgspec

from lowtide import limits
from lowtide.core.dispatch.replica import Replica
from lowtide.core.faults.fault import FAULTS, FaultKind
from lowtide.core.faults.scope import Scope
from lowtide.core.reporting.progress import LIVE_LOAD

Condition = Literal[
    "ready", "misconfigured", "unreachable", "failing", "overloaded", "asleep", "live_first"
]
"""ready: takes batch calls. misconfigured: its set-up is at fault, an operator has to mend it.
unreachable: no connection comes about. failing: it breaks calls or answers 5xx. overloaded: it
refuses calls for want of room. asleep: the engine says so itself. live_first: live traffic has the
room at present.
"""


class ReplicaState(msgspec.Struct, frozen=True):
    """`since_s`: monotonic seconds at which the condition began, None while ready. `fault`: the
    row of core/faults/fault.py that it rests on, None where it rests on none."""

    condition: Condition = "ready"
    reason: str = ""
    public_reason: str = ""
    remedy: str = ""
    since_s: float | None = None
    fault: FaultKind | None = None


READY: Final = ReplicaState()
_NO_WAY: Final = frozenset({"unreachable", "tls"})
"""No connection comes about, which the first failure shows; a cut one may be a single call's."""


def state_of(
    replica: Replica, model: str | None = None, endpoint: str | None = None
) -> ReplicaState:
    """What holds batch calls back at this moment.

    Of the whole replica: the first thing that is wrong with it. For `model`, where one is named:
    what holds calls to each of its endpoints that was ever called, or to `endpoint`.
    """
    circuit = replica.circuit
    if circuit.state != "closed":
        # It opens at the fifth failure: it began to fail with the first.
        begun_s = (
            circuit.opened_at_s if replica.failing_since_s is None else replica.failing_since_s
        )
        return _state(replica, circuit.kind, circuit.because, begun_s)
    scope = _held(replica, model, endpoint)
    if scope is not None and scope.held is not None:
        what = f" ({scope.model}, {scope.endpoint})"
        return _state(replica, scope.held, scope.detail, scope.held_since_s, what)
    if replica.failing_since_s is not None and circuit.kind in _NO_WAY:
        return _state(replica, circuit.kind, circuit.because, replica.failing_since_s)
    if replica.pressure.refusals >= limits.OVERLOAD_THROTTLES:
        said = f"{replica.pressure.because}, {replica.pressure.refusals} times in a row"
        return _state(replica, "overload", said, replica.pressure.since_s)
    controller = replica.controller
    if controller is not None and controller.metrics.asleep:
        return ReplicaState("asleep", f"{replica.name}: the engine sleeps", "the engine sleeps")
    if controller is not None and controller.gives_way:
        why = f"{LIVE_LOAD} {100 * controller.live.load:.0f} %"
        return ReplicaState("live_first", why, why)
    return READY


def held_endpoints(replica: Replica, model: str) -> tuple[str, ...]:
    """Endpoints of that model that are held while others are not."""
    scopes = [scope for scope in replica.scopes.values() if scope.model == model]
    held = sorted(scope.endpoint for scope in scopes if scope.held is not None)
    return tuple(held) if len(held) < len(scopes) else ()


def _held(replica: Replica, model: str | None, endpoint: str | None) -> Scope | None:
    """The scope that has been held longest, of those that are asked for."""
    scopes = [
        scope
        for scope in replica.scopes.values()
        if model in (None, scope.model) and endpoint in (None, scope.endpoint)
    ]
    held = [scope for scope in scopes if scope.held is not None]
    if model is not None and len(held) < len(scopes):
        return None  # some calls for it pass
    return min(held, key=lambda scope: scope.held_since_s or 0.0, default=None)


def _state(
    replica: Replica, kind: FaultKind, said: str, since_s: float | None, what: str = ""
) -> ReplicaState:
    fault = FAULTS[kind]
    public_text = f"the engine {fault.public_text}"
    return ReplicaState(
        _condition(kind),
        f"{replica.name}: {public_text}{what}: {said}",
        public_text,
        fault.remedy,
        since_s,
        kind,
    )


def _condition(kind: FaultKind) -> Condition:
    match FAULTS[kind].blame:
        case "set-up":
            return "misconfigured"
        case "capacity":
            return "overloaded"
        case _:
            return "unreachable" if kind in ("unreachable", "gateway") else "failing"
