"""What sources of engines have told, and which engines may have work because of it.

Pure; loops/replicas/sources.py feeds it what each source tells and applies `usable`. A source tells
its whole list each time. Invariants: an engine that is no longer listed is not usable from then on;
a source that cannot be asked keeps its last list, and `stale_since` says how old that is; an engine
that keeps coming and going is usable only after it has stayed for a while.
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final

import msgspec

from lowtide import limits

_NAME: Final = re.compile(rf"[!-~]{{1,{limits.REPLICA_NAME_CHARS_MAX}}}")


_HOST: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")


def is_host(host: str) -> bool:
    """Whether this is an IP address or can be the name of a host."""
    if ":" not in host:
        return len(host) <= 253 and _HOST.fullmatch(host) is not None
    try:
        return ipaddress.IPv6Address(host).scope_id is None
    except ValueError:
        return False


def server_of(nameserver: str) -> tuple[str, int]:
    """Address and port of `address`, `address:port` or `[address]:port`. Raises ValueError."""
    if nameserver.startswith("["):
        address, _, port = nameserver[1:].partition("]")
        port = port.removeprefix(":")
    elif nameserver.count(":") == 1:
        address, _, port = nameserver.partition(":")
    else:
        address, port = nameserver, ""
    return address, int(port or 53)


def is_replica_name(name: str) -> bool:
    """Whether logs and metrics can name a replica so."""
    return _NAME.fullmatch(name) is not None


class FoundEngine(msgspec.Struct, frozen=True):
    """An engine as its source tells of it. `name` is the same for as long as it is the same engine;
    `host` a name or an address, `path` what stands before /v1, `models` what its source says that
    it serves.
    """

    name: str
    host: str
    port: int
    models: tuple[str, ...] = ()
    path: str = ""


class Presence(msgspec.Struct, frozen=True):
    """When an engine was there: since when it is listed (monotonic seconds; None: it is not), and
    when it has left lately.
    """

    since_s: float | None
    departures: tuple[float, ...] = ()

    @property
    def usable_from_s(self) -> float:
        """Monotonic seconds; an engine that has left often has to stay first."""
        assert self.since_s is not None, "asked of listed engines alone"
        too_many = len(self.departures) - limits.SOURCE_DEPARTURES_FREE
        if too_many <= 0:
            return self.since_s
        hold_s = limits.SOURCE_HOLD_S * 2.0 ** min(too_many - 1, 10)
        return self.since_s + min(limits.SOURCE_HOLD_S_MAX, hold_s)


class SourceView(msgspec.Struct, frozen=True):
    """What is known of one source. `has_answered`: it has answered at least once. `stale_since`:
    its list is of before this instant, for the reason in `error`; None while it answers.
    """

    engines: tuple[FoundEngine, ...] = ()
    presences: Mapping[str, Presence] = {}
    has_answered: bool = False
    stale_since: datetime | None = None
    error: str = ""

    def with_engines(self, engines: Iterable[FoundEngine], now_s: float) -> "SourceView":
        """The view after the source has told its whole list at `now_s`.

        Of two engines with one name the first counts; names that no log line could have and those
        above `limits.SOURCE_ENGINES_MAX` are left out.
        """
        listed: dict[str, FoundEngine] = {}
        for engine in engines:
            if is_replica_name(engine.name) and len(listed) < limits.SOURCE_ENGINES_MAX:
                listed.setdefault(engine.name, engine)
        return SourceView(
            engines=tuple(listed.values()),
            presences=dict(_presences(self.presences, listed, now_s)),
            has_answered=True,
        )

    def failed(self, error: str, now: datetime) -> "SourceView":
        """The view after the source could not be asked."""
        return msgspec.structs.replace(
            self,
            stale_since=self.stale_since or now,
            error=error[: limits.REPORT_TEXT_CHARS_MAX],
        )

    def usable(self, now_s: float) -> tuple[FoundEngine, ...]:
        """The engines that may have work at `now_s`, in the order of the list."""
        return tuple(e for e in self.engines if self.presences[e.name].usable_from_s <= now_s)

    def next_usable_s(self, now_s: float) -> float | None:
        """When the next engine becomes usable, if it stays; None: all are."""
        due = (self.presences[engine.name].usable_from_s for engine in self.engines)
        return min((at_s for at_s in due if at_s > now_s), default=None)


def _presences(
    before: Mapping[str, Presence], listed: Mapping[str, FoundEngine], now_s: float
) -> Iterable[tuple[str, Presence]]:
    for name in before.keys() | listed.keys():
        known = before.get(name, Presence(None))
        lately = tuple(
            at_s for at_s in known.departures if now_s - at_s < limits.SOURCE_DEPARTURES_KEEP_S
        )
        since_s = known.since_s
        if name in listed:
            since_s = now_s if since_s is None else since_s
        elif since_s is not None:
            since_s, lately = None, (*lately, now_s)
        if since_s is not None or lately:
            yield name, Presence(since_s, lately[-limits.SOURCE_DEPARTURES_KEPT :])
