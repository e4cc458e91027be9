"""Addresses and SRV records: their time to live, and what a name that is not there means."""

from collections.abc import AsyncIterator

import dns.rcode
import pytest

from lowtide import limits
from lowtide.engines.sources.dns_records import DnsRecords
from lowtide.ports.sources import SourceError
from testkit.name_server import NameServer, name_server


@pytest.fixture
async def server() -> AsyncIterator[NameServer]:
    async with name_server() as one:
        one.records = {("vllm.test.", "A"): ["10.0.0.2", "10.0.0.1"]}
        yield one


def source(server: NameServer, name: str = "vllm.test", port: int = 8000) -> DnsRecords:
    return DnsRecords(name, port, f"127.0.0.1:{server.port}")


async def test_addresses_of_both_families_are_engines(server: NameServer) -> None:
    server.records["vllm.test.", "AAAA"] = ["fd00::1"]
    engines = (await source(server).read()).engines
    assert [each.name for each in engines] == ["10.0.0.1:8000", "10.0.0.2:8000", "[fd00::1]:8000"]


async def test_srv_records_say_host_and_port(server: NameServer) -> None:
    name = "_http._tcp.vllm.test"
    server.records[f"{name}.", "SRV"] = ["0 0 8001 pod-1.vllm.test.", "0 0 8000 pod-0.vllm.test."]
    engines = (await source(server, name).read()).engines
    assert [(each.host, each.port) for each in engines] == [
        ("pod-0.vllm.test", 8000),
        ("pod-1.vllm.test", 8001),
    ]
    assert server.asked == [(f"{name}.", "SRV")]


@pytest.mark.parametrize(
    ("ttl_s", "again_s"),
    [(0, limits.SOURCE_TTL_S_MIN), (5, 5.0), (86_400, limits.SOURCE_TTL_S_MAX)],
)
async def test_records_are_asked_for_again_when_their_time_is_over(
    server: NameServer, ttl_s: int, again_s: float
) -> None:
    server.ttl_s = ttl_s
    assert (await source(server).read()).again_s == again_s


async def test_a_name_that_vanished_is_an_error_and_one_without_addresses_is_not(
    server: NameServer,
) -> None:
    server.records = {("vllm.test.", "A"): []}
    listing = await source(server).read()
    assert (listing.engines, listing.again_s) == ((), limits.SOURCE_TTL_S_MIN)
    server.records = {}
    with pytest.raises(SourceError, match=r"vllm\.test: there is no such name"):
        await source(server).read()


async def test_a_server_that_fails_is_an_error(server: NameServer) -> None:
    server.rcode = dns.rcode.SERVFAIL
    with pytest.raises(SourceError, match="SERVFAIL"):
        await source(server).read()


async def test_a_server_that_does_not_answer_is_an_error(
    server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SOURCE_READ_S", 0.05)
    monkeypatch.setattr(server, "datagram_received", lambda *_: None)
    with pytest.raises(SourceError, match=r"vllm\.test: no name server answers within 0 s"):
        await source(server).read()


async def test_a_service_that_says_it_is_not_available_is_no_engine(server: NameServer) -> None:
    name = "_http._tcp.vllm.test"
    server.records[f"{name}.", "SRV"] = ["0 0 0 ."]  # RFC 2782: decidedly not available
    assert (await source(server, name).read()).engines == ()
