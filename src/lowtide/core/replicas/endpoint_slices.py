"""Makes engines of the EndpointSlices of Kubernetes: which pods of a Service take calls, and where.

Pure; engines/sources/kubernetes.py keeps the slices up to date. A Service may have several slices,
and a pod may be in two of them while it moves from one to the other. Invariants: each pod counts
once, as the slice says that changed last; a pod that ends, or is not ready, is no engine.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from lowtide.core.replicas.found_engines import FoundEngine, is_host

_FAMILIES: Final = ("IPv4", "IPv6", "FQDN")
"""The first family that has slices counts, where a Service has two: else a pod would change its
address whenever the slice of the other family changes."""


class Conditions(msgspec.Struct, frozen=True):
    """The state of an endpoint (discovery.k8s.io/v1): `ready` null counts as ready."""

    ready: bool | None = None
    terminating: bool | None = None


class Target(msgspec.Struct, frozen=True):
    """The pod behind an endpoint."""

    name: str = ""


class Endpoint(msgspec.Struct, frozen=True, rename="camel"):
    """One endpoint. Its addresses are alike; the first counts."""

    addresses: tuple[str, ...] = ()
    conditions: Conditions | None = None
    target_ref: Target | None = None

    @property
    def is_usable(self) -> bool:
        """Whether it may be sent calls."""
        stated = self.conditions or Conditions()
        return stated.ready is not False and not stated.terminating


class SlicePort(msgspec.Struct, frozen=True):
    """A port of all endpoints of a slice."""

    name: str | None = None
    port: int | None = None


class Metadata(msgspec.Struct, frozen=True, rename="camel"):
    """What tells slices and their states apart."""

    name: str = ""
    resource_version: str = ""


class EndpointSlice(msgspec.Struct, frozen=True, rename="camel"):
    """One slice, with the fields that count here."""

    metadata: Metadata = Metadata()
    address_type: str = "IPv4"
    endpoints: tuple[Endpoint, ...] | None = None
    ports: tuple[SlicePort, ...] | None = None


def port_of(slices: Iterable[EndpointSlice], wanted: int | str | None) -> int | None:
    """The port of the engines: the number `wanted`, the port of that name, or the only one there
    is; None while no slice has a port. Raises ValueError, which says what there is.
    """
    if isinstance(wanted, int):
        return wanted
    ports = {
        port.name or "": port.port for each in slices for port in each.ports or () if port.port
    }
    if not ports:
        return None
    if wanted is None and len(ports) == 1:
        return next(iter(ports.values()))
    if wanted in ports:
        return ports[str(wanted)]
    shown = ", ".join(f"{name or '(unnamed)'} ({port})" for name, port in sorted(ports.items()))
    if wanted is None:
        raise ValueError(f"has the ports {shown}: say which one with port")
    raise ValueError(f"has no port {wanted}; there are: {shown}")


def engines_of_slices(
    slices: Sequence[EndpointSlice], namespace: str, port: int
) -> tuple[FoundEngine, ...]:
    """The engines of all slices of a Service; a later slice of the sequence has changed later."""
    kinds = {each.address_type for each in slices if each.endpoints}
    family = next((kind for kind in _FAMILIES if kind in kinds), None)
    latest: dict[str, Endpoint] = {}
    for each in slices:
        if each.address_type == family:
            latest |= {_name(endpoint): endpoint for endpoint in each.endpoints or ()}
    return tuple(
        FoundEngine(f"{namespace}/{name}", endpoint.addresses[0], port)
        for name, endpoint in sorted(latest.items())
        if endpoint.is_usable and endpoint.addresses and is_host(endpoint.addresses[0])
    )


def in_order(slices: Mapping[str, EndpointSlice]) -> list[EndpointSlice]:
    """The slices of a list by their versions. A version has no meaning but to be compared, and
    sorts as a number in every server there is.
    """
    return sorted(slices.values(), key=lambda each: (_version(each), each.metadata.name))


def _version(each: EndpointSlice) -> int:
    version = each.metadata.resource_version
    return int(version) if version.isdecimal() else 0


def _name(endpoint: Endpoint) -> str:
    if endpoint.target_ref is not None and endpoint.target_ref.name:
        return endpoint.target_ref.name
    return endpoint.addresses[0] if endpoint.addresses else ""
