"""What can go wrong with a simulated engine, and when: `KIND[@START][+DURATION][=VALUE]`.

    crash@30+5            at 30 s all connections break; for 5 s new ones do as well
    hang@10+20            steps stop for 20 s; requests wait
    slow@60+30=4          steps take four times as long
    429@5+2, 503@5+2      new requests are refused
    stale-metrics@10+30   /metrics repeats what it said before
    no-metrics@10+30      /metrics is not there
    truncate=0.02         this share of streams breaks off in the middle
    noise=0.03            steps vary by a lognormal factor with this sigma
    wake=2.5              seconds that /wake_up takes

Without a start a fault is there from the beginning, without a duration to the end. Times are
simulated seconds since the start.
"""

import math
import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

_SPEC: Final = re.compile(
    r"(?P<kind>[a-z0-9-]+)(@(?P<start>[\d.]+))?(\+(?P<for_s>[\d.]+))?(=(?P<value>[\d.]+))?"
)
_KINDS: Final = MappingProxyType(
    {
        "crash": 0.0,
        "hang": 0.0,
        "slow": 4.0,
        "429": 0.0,
        "503": 0.0,
        "stale-metrics": 0.0,
        "no-metrics": 0.0,
        "truncate": 0.05,
        "noise": 0.03,
        "wake": 2.5,
    }
)
"""The kinds of faults, with the value of one that is given without a value."""


@dataclass(frozen=True, slots=True)
class EngineFault:
    """One of the kinds above, from `start` to before `end`."""

    kind: str
    start: float
    end: float
    value: float

    def is_on(self, now: float) -> bool:
        return self.start <= now < self.end


class EngineFaults:
    """All that were asked for."""

    def __init__(self, specs: tuple[str, ...] = ()) -> None:
        """Raises ValueError for a fault that is none."""
        self._faults = [parse_fault(spec) for spec in specs]

    def value(self, kind: str, now: float) -> float | None:
        """The value of the fault that is on now; None when there is none."""
        return next((f.value for f in self._faults if f.kind == kind and f.is_on(now)), None)

    def is_on(self, kind: str, now: float) -> bool:
        return self.value(kind, now) is not None

    def of_kind(self, kind: str) -> list[EngineFault]:
        return [fault for fault in self._faults if fault.kind == kind]


def parse_fault(spec: str) -> EngineFault:
    """Raises ValueError for a fault that is none."""
    match = _SPEC.fullmatch(spec)
    if match is None or match["kind"] not in _KINDS:
        raise ValueError(f"{spec!r} is no fault; there are {', '.join(_KINDS)}")
    start = float(match["start"] or 0)
    end = start + float(match["for_s"]) if match["for_s"] else math.inf
    value = float(match["value"]) if match["value"] else _KINDS[match["kind"]]
    return EngineFault(match["kind"], start, end, value)
