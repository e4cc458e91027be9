"""From EndpointSlices to engines: which pods count, at which address and port."""

from typing import Any

import msgspec
import pytest

from lowtide.core.replicas.endpoint_slices import (
    EndpointSlice,
    engines_of_slices,
    in_order,
    port_of,
)
from testkit.kubernetes_api import pod


def one(
    *endpoints: dict[str, Any], kind: str = "IPv4", version: str = "1", name: str = "s"
) -> EndpointSlice:
    return msgspec.convert(
        {
            "metadata": {"name": name, "resourceVersion": version, "uid": "u"},
            "addressType": kind,
            "endpoints": list(endpoints) or None,
            "ports": [{"name": "http", "port": 8000, "protocol": "TCP"}],
        },
        EndpointSlice,
    )


def addresses(*slices: EndpointSlice) -> dict[str, str]:
    return {each.name: each.host for each in engines_of_slices(slices, "ns", 8000)}


def test_ready_pods_are_engines_and_null_counts_as_ready() -> None:
    reported = one(
        pod("a", "10.0.0.1"),
        pod("b", "10.0.0.2", ready=None),
        pod("c", "10.0.0.3", ready=False),
        pod("d", "10.0.0.4", terminating=True),
        {"addresses": ["10.0.0.5"]},
        {"addresses": ["10.0.0.6"], "conditions": {}, "targetRef": None},
    )
    assert addresses(reported) == {
        "ns/a": "10.0.0.1",
        "ns/b": "10.0.0.2",
        "ns/10.0.0.5": "10.0.0.5",
        "ns/10.0.0.6": "10.0.0.6",
    }


def test_slices_without_endpoints_are_no_engine() -> None:
    assert addresses(one()) == {}


def test_a_pod_in_two_slices_is_one_engine_as_the_later_one_says() -> None:
    old, new = one(pod("a", "10.0.0.1")), one(pod("a", "10.0.0.9"))
    assert addresses(old, new) == {"ns/a": "10.0.0.9"}
    assert addresses(one(pod("a", "10.0.0.1")), one(pod("a", "10.0.0.1", ready=False))) == {}


def test_of_two_families_one_counts_whichever_changed_last() -> None:
    four, six = one(pod("a", "10.0.0.1")), one(pod("a", "fd00::1"), kind="IPv6")
    assert addresses(four, six) == addresses(six, four) == {"ns/a": "10.0.0.1"}
    assert addresses(one(), six) == {"ns/a": "fd00::1"}


def test_versions_order_a_list_as_numbers() -> None:
    slices = {name: one(name=name, version=name) for name in ("9", "10", "2")}
    assert [each.metadata.name for each in in_order(slices)] == ["2", "9", "10"]


def ports(*named: tuple[str | None, int]) -> list[EndpointSlice]:
    reported = [{"name": name, "port": port} for name, port in named]
    return [msgspec.convert({"ports": reported or None}, EndpointSlice)]


def test_the_port_is_the_one_that_is_wanted_or_the_only_one() -> None:
    assert port_of(ports(("http", 8000)), None) == 8000
    assert port_of(ports((None, 8000)), None) == 8000
    assert port_of(ports(("http", 8000), ("metrics", 9)), "http") == 8000
    assert port_of(ports(("http", 8000)), 1234) == 1234
    assert port_of(ports(), None) is None


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (None, r"has the ports http \(8000\), metrics \(9\): say which one with port"),
        ("grpc", r"has no port grpc; there are: http \(8000\), metrics \(9\)"),
    ],
)
def test_a_port_that_is_not_clear_is_told_with_those_there_are(
    wanted: str | None, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        port_of(ports(("http", 8000), ("metrics", 9)), wanted)
