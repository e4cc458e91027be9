"""`[[source]]`: a place where engines are found, and what its settings must be."""

from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import ClassVar, Final, Literal

from lowtide import limits
from lowtide.config.engine_settings import EngineSettings
from lowtide.config.kinds import API_KEYS, KeysByKind, Where, address_problems, name_problems
from lowtide.config.problems import Problem, unless
from lowtide.config.replicas import ReplicaSettings
from lowtide.core.replicas.found_engines import FoundEngine, server_of
from lowtide.core.replicas.served_models import ALL

SourceKind = Literal["file", "dns", "kubernetes", "ray"]

_KEYS: Final = KeysByKind(
    needed={
        "file": ("path",),
        "dns": ("name",),
        "kubernetes": ("namespace", "service"),
        "ray": ("dashboard",),
    },
    own={
        "file": frozenset({"path"}),
        "dns": frozenset({"name", "port", "nameserver"}),
        "kubernetes": API_KEYS | {"namespace", "service", "port", "address", "api_url"},
        "ray": API_KEYS | {"dashboard", "application", "port"},
    },
)


class SourceSettings(EngineSettings, frozen=True, kw_only=True):
    """A place where engines are found. Every key of `[[replica]]` but url and name may stand here,
    too, and then holds for each engine that is found.
    """

    SECRET_KEYS: ClassVar[frozenset[str]] = EngineSettings.SECRET_KEYS

    kind: SourceKind
    scheme: Literal["http", "https"] = "http"
    base_path: str = "/v1"
    path: Path | None = None
    name: str | None = None
    """A name of DNS; one that begins with "_" is asked for SRV records."""
    nameserver: str | None = None
    """None: those of this machine."""
    namespace: str | None = None
    service: str | None = None
    port: int | str | None = None
    """The port of the engines; a name of a port for Kubernetes."""
    address: Literal["pod", "service"] = "pod"
    """Whether Kubernetes' pods are called, or the Service as one engine."""
    api_url: str | None = None
    """The API server of Kubernetes; None: as a pod reaches it."""
    dashboard: str | None = None
    """Address of Ray's dashboard."""
    application: str | None = None
    """One of Ray Serve; None: all that run."""
    token_file: Path | None = None
    """Goes with each call to the API of Kubernetes or Ray; read anew for each."""
    api_ca_file: Path | None = None

    @property
    def label(self) -> str:
        """What logs, metrics and pages call it."""
        port = "" if self.port is None else f":{self.port}"
        place = {
            "file": f"{self.path}",
            "dns": f"{self.name}{port}",
            "kubernetes": f"{self.namespace}/{self.service}{port}",
            "ray": f"{self.dashboard}{f' {self.application}' if self.application else ''}",
        }
        return f"{self.kind} {place[self.kind]}"

    @property
    def place(self) -> tuple[object, ...]:
        """Equal where two settings lead to the same place, whatever its engines are given."""
        return tuple(getattr(self, key) for key in ("kind", *sorted(_KEYS.own[self.kind])))

    def replica_for(self, engine: FoundEngine) -> ReplicaSettings:
        """The replica that stands for an engine of this source.

        Models: those of the settings, else what the source says and whatever the engine lists.
        """
        host = f"[{engine.host}]" if ":" in engine.host else engine.host
        base_path = self.base_path.strip("/")
        template = {key: getattr(self, key) for key in EngineSettings.__struct_fields__}
        if not (self.models or self.names):
            template["models"] = tuple(dict.fromkeys((*engine.models, ALL)))
        url = f"{self.scheme}://{host}:{engine.port}{engine.path.rstrip('/')}/{base_path}"
        return ReplicaSettings(url=url.rstrip("/"), name=engine.name, **template)

    def problems_at(self, place: int) -> Iterator[Problem]:
        """What makes no sense in it, as the entry number `place`, from 0."""
        where = ("source", place)
        yield from _KEYS.problems(self.kind, self, SourceSettings(kind=self.kind), where)
        yield from self._place_problems(where)
        if self.ca_file is not None and self.scheme == "http":
            words = 'with scheme = "http" there is no certificate to check: use "https"'
            yield Problem((*where, "ca_file"), words)
        yield from unless(all(self.models), (*where, "models"), "ids of models, or left out")
        yield from self.engine_problems(where)

    def _place_problems(self, where: Where) -> Iterator[Problem]:
        is_srv = self.kind == "dns" and (self.name or "").startswith("_")
        if self.kind == "dns" and self.name:
            yield from unless(
                is_srv == (self.port is None),
                (*where, "port"),
                "left out: SRV records have it"
                if is_srv
                else "given: addresses have none; only a name that begins with _ has SRV records",
            )
        is_number = isinstance(self.port, int) and 0 < self.port < 65536
        is_name = isinstance(self.port, str) and self.kind == "kubernetes" and bool(self.port)
        yield from unless(
            self.port is None or is_number or is_name,
            (*where, "port"),
            "from 1 to 65535, or for Kubernetes the name of a port",
        )
        yield from address_problems(self, where)
        yield from name_problems(self, where, ("namespace", "service"))
        yield from unless(
            self.nameserver is None or _is_server(self.nameserver),
            (*where, "nameserver"),
            "an IP address, with or without a port, as 10.0.0.53:53",
        )


def _is_server(nameserver: str) -> bool:
    try:
        address, port = server_of(nameserver)
        ip_address(address)
    except ValueError:
        return False
    return 0 < port < 65536


def problems_of_sources(sources: tuple[SourceSettings, ...]) -> Iterator[Problem]:
    """What is wrong with the list as a whole."""
    labels = [source.label for source in sources]
    for place, label in enumerate(labels):
        if label in labels[:place]:
            words = f"{label!r} is that of number {labels.index(label) + 1}: list it once"
            yield Problem(("source", place), words)
    if len(sources) > limits.SOURCES_MAX:
        yield Problem(("source",), f"may have {limits.SOURCES_MAX} entries at most")
