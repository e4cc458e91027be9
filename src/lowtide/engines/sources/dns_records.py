"""Engines from DNS: the addresses of a name, or the hosts and ports of SRV records.

A name that begins with `_`, as `_http._tcp.vllm.default.svc.cluster.local`, is asked for SRV
records (RFC 2782), any other one for A and AAAA. Records are asked for again when their TTL is
over. Invariant: a name that is not there, and a server that fails, are a SourceError; a name that
is there without an address (a headless Service without ready pods) is a list without engines.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import dns.asyncresolver
import dns.exception
import dns.resolver

from lowtide import limits
from lowtide.core.replicas.found_engines import FoundEngine, is_host, server_of
from lowtide.ports.sources import Listing, SourceError

_Records = tuple[tuple[Any, ...], float]
"""The records of one answer, and for how many seconds they hold."""

_NONE: Final[_Records] = ((), limits.SOURCE_TTL_S_MIN)


class DnsRecords:
    """Adapter of `ports.sources.EngineSource`. An engine is known by its host and port."""

    def __init__(self, name: str, port: int, nameserver: str | None = None) -> None:
        """`port`: of engines that are found by address; `nameserver`: `address` or `address:port`,
        instead of those of this machine.
        """
        self._name = name
        self._port = port
        self._nameserver = nameserver
        self._resolver: dns.asyncresolver.Resolver | None = None

    async def read(self) -> Listing:
        """See `ports.sources.EngineSource`."""
        if self._name.startswith("_"):
            records, ttl_s = await self._ask("SRV")
            targets = [(str(each.target).rstrip("."), int(each.port)) for each in records]
        else:
            # Of each family by itself: a machine without IPv6 may be answered SERVFAIL for AAAA.
            asked = await asyncio.gather(self._ask("A"), self._ask("AAAA"), return_exceptions=True)
            records, ttl_s = _joined(asked)
            targets = [(str(each.address), self._port) for each in records]
        engines = {_name(host, port): (host, port) for host, port in sorted(targets)}
        engines_listed = [
            FoundEngine(name, host, port)
            for name, (host, port) in engines.items()
            if is_host(host) and port
        ]
        ttl_s = min(max(ttl_s, limits.SOURCE_TTL_S_MIN), limits.SOURCE_TTL_S_MAX)
        return Listing(tuple(engines_listed), ttl_s)

    async def aclose(self) -> None:
        """Nothing is open: each question has a socket of its own."""

    async def _ask(self, kind: str) -> _Records:
        try:
            answer = await self._open().resolve(
                self._name, kind, search=self._nameserver is None, lifetime=limits.SOURCE_READ_S
            )
        except dns.resolver.NoAnswer:
            return _NONE
        except dns.resolver.LifetimeTimeout:
            self._resolver = None  # this machine may have other name servers meanwhile
            words = f"no name server answers within {limits.SOURCE_READ_S:.0f} s"
            raise SourceError(f"{self._name}: {words}") from None
        except dns.resolver.NXDOMAIN:
            raise SourceError(f"{self._name}: there is no such name") from None
        except (dns.exception.DNSException, OSError) as error:
            self._resolver = None  # this machine may have other name servers meanwhile
            words = " ".join(str(error).split()) or type(error).__name__
            raise SourceError(f"{self._name}: {words}") from None
        return tuple(answer), float(answer.rrset.ttl) if answer.rrset is not None else 0.0

    def _open(self) -> dns.asyncresolver.Resolver:
        if self._resolver is None:
            resolver = dns.asyncresolver.Resolver(configure=self._nameserver is None)
            if self._nameserver is not None:
                address, port = server_of(self._nameserver)
                resolver.nameservers, resolver.port = [address], port
            self._resolver = resolver
        return self._resolver


def _joined(asked: Sequence[_Records | BaseException]) -> _Records:
    """The records of both families; one family that fails is passed over where the other has some.
    Raises SourceError.
    """
    records: list[Any] = []
    ttls: list[float] = []
    errors = [each for each in asked if isinstance(each, BaseException)]
    for each in asked:
        if not isinstance(each, BaseException):
            records += each[0]
            ttls += [each[1]] if each[0] else []
    foreign = [each for each in errors if not isinstance(each, SourceError)]
    if foreign or (errors and not records):
        raise (foreign or errors)[0]
    return tuple(records), min(ttls, default=_NONE[1])


def _name(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
