"""The places that the contract of `ports.sources` is held against, each with its adapter.

Another adapter joins by one more entry in `PLACES`: a context that opens a place of the tests' own
and the source that looks at it.
"""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

import dns.rcode

from lowtide.core.replicas.found_engines import FoundEngine
from lowtide.engines.sources.dns_records import DnsRecords
from lowtide.engines.sources.endpoints_file import EndpointsFile
from lowtide.engines.sources.json_http import JsonApi
from lowtide.engines.sources.kubernetes import ServiceEndpoints
from lowtide.engines.sources.ray_serve import RayServe
from lowtide.ports.sources import EngineSource
from testkit.kubernetes_api import KubernetesApi, pod
from testkit.name_server import NameServer, name_server
from testkit.small_http_server import small_http_server


class Entry(NamedTuple):
    """An engine as the place has it."""

    name: str
    host: str
    port: int = 8000


class Place(Protocol):
    """A place, and the adapter that looks at it."""

    source: EngineSource
    has_names: bool
    """Whether an engine there has a name beside its address."""

    async def put(self, entries: Sequence[Entry]) -> None:
        """Makes these the engines that the place tells."""
        ...

    def engine(self, entry: Entry) -> tuple[str, str, int]:
        """What the source is to tell of it: name, address with path, and port."""
        ...

    async def break_down(self) -> None:
        """Lets the place answer nothing that makes sense."""
        ...


Open = Callable[[Path], AbstractAsyncContextManager[Place]]


class FilePlace:
    """A file, replaced by atomic rename."""

    has_names = True

    def __init__(self, path: Path) -> None:
        self._path = path
        self.source: EngineSource = EndpointsFile(path)

    async def put(self, entries: Sequence[Entry]) -> None:
        lines = [
            f'  - {{name: {each.name}, address: "{each.host}", port: "{each.port}"}}\n'
            for each in entries
        ]
        self._write("endpoints:\n" + "".join(lines) if lines else "endpoints: []\n")

    def engine(self, entry: Entry) -> tuple[str, str, int]:
        return entry

    async def break_down(self) -> None:
        self._write("endpoints: half of a wo")

    def _write(self, text: str) -> None:
        beside = self._path.with_suffix(".new")
        beside.write_text(text)
        beside.rename(self._path)


@asynccontextmanager
async def file_place(folder: Path) -> AsyncIterator[Place]:
    yield FilePlace(folder / "endpoints.yaml")


class DnsPlace:
    """A zone of addresses (`a`) or SRV records: an engine is known by its host and port."""

    has_names = False

    def __init__(self, server: NameServer, name: str, port: int | None) -> None:
        self._server = server
        self._name = f"{name}."
        self._is_srv = port is None
        self.source: EngineSource = DnsRecords(name, port or 0, f"127.0.0.1:{server.port}")

    async def put(self, entries: Sequence[Entry]) -> None:
        self._server.rcode = dns.rcode.NOERROR
        texts = [f"0 0 {each.port} {each.host}." for each in entries]
        if not self._is_srv:
            texts = [each.host for each in entries]
        kind = "SRV" if self._is_srv else "A"
        self._server.records = {(self._name, kind): texts}

    def engine(self, entry: Entry) -> tuple[str, str, int]:
        port = entry.port if self._is_srv else 8000
        return f"{entry.host}:{port}", entry.host, port

    async def break_down(self) -> None:
        self._server.records = {}  # the name is gone


@asynccontextmanager
async def dns_addresses(_: Path) -> AsyncIterator[Place]:
    async with name_server() as server:
        yield DnsPlace(server, "vllm.test", 8000)


@asynccontextmanager
async def dns_services(_: Path) -> AsyncIterator[Place]:
    async with name_server() as server:
        yield DnsPlace(server, "_http._tcp.vllm.test", None)


class KubernetesPlace:
    """A Service with two slices."""

    has_names = True

    def __init__(self, api: KubernetesApi, url: str, token: Path) -> None:
        self._api = api
        token.write_text("t1")
        self.source: EngineSource = ServiceEndpoints(
            JsonApi(url, token_file=token), "default", "vllm"
        )

    async def put(self, entries: Sequence[Entry]) -> None:
        self._api.is_broken = False
        for number in range(2):  # all of one port are in one slice here
            pods = [pod(each.name, each.host) for each in entries[number::2]]
            self._api.put(f"vllm-{number}", pods)

    def engine(self, entry: Entry) -> tuple[str, str, int]:
        return f"default/{entry.name}", entry.host, 8000

    async def break_down(self) -> None:
        self._api.is_broken = True
        self._api.end_watches()


@asynccontextmanager
async def kubernetes(folder: Path) -> AsyncIterator[Place]:
    api = KubernetesApi()
    async with small_http_server(api) as url:
        yield KubernetesPlace(api, url, folder / "token")


class RayPlace:
    """A dashboard: applications of one proxy, each with a path of its own."""

    has_names = True

    def __init__(self) -> None:
        self.answer: tuple[int, bytes] = (200, b"{}")
        self.source: EngineSource = RayServe(JsonApi(""), "")

    async def put(self, entries: Sequence[Entry]) -> None:
        reported = {
            each.name: {"status": "RUNNING", "route_prefix": f"/{each.host}/{each.port}"}
            for each in entries
        }
        options = {"host": "0.0.0.0", "port": 8000}
        self.answer = 200, json.dumps({"applications": reported, "http_options": options}).encode()

    def engine(self, entry: Entry) -> tuple[str, str, int]:
        return entry.name, f"head/{entry.host}/{entry.port}", 8000

    async def break_down(self) -> None:
        self.answer = 200, b"<html>starting</html>"


@asynccontextmanager
async def ray(_: Path) -> AsyncIterator[Place]:
    place = RayPlace()
    async with small_http_server(lambda _: place.answer) as url:
        place.source = RayServe(JsonApi(url), "head")
        yield place


PLACES: dict[str, Open] = {
    "file": file_place,
    "dns addresses": dns_addresses,
    "dns services": dns_services,
    "kubernetes": kubernetes,
    "ray": ray,
}


def shown(engines: Sequence[FoundEngine]) -> list[tuple[str, str, int]]:
    """Name, address with its path, and port of each."""
    return sorted((each.name, each.host + each.path, each.port) for each in engines)
