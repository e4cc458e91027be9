"""The places that the contract of `ports.sources` is held against, each with its adapter.

Another adapter joins by one more entry in `PLACES`: a context that opens a place of the tests' own
and the source that looks at it.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from lowtide.core.replicas.found_engines import FoundEngine
from lowtide.engines.sources.endpoints_file import EndpointsFile
from lowtide.ports.sources import EngineSource


class Entry(NamedTuple):
    """An engine as the place has it."""

    name: str
    host: str
    port: int = 8000


class Place(Protocol):
    """A place, and the adapter that looks at it."""

    source: EngineSource

    async def put(self, entries: Sequence[Entry]) -> None:
        """Makes these the engines that the place tells."""
        ...

    async def break_down(self) -> None:
        """Lets the place answer nothing that makes sense."""
        ...


Open = Callable[[Path], AbstractAsyncContextManager[Place]]


class FilePlace:
    """A file, replaced by atomic rename."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.source: EngineSource = EndpointsFile(path)

    async def put(self, entries: Sequence[Entry]) -> None:
        lines = [
            f'  - {{name: {each.name}, address: "{each.host}", port: "{each.port}"}}\n'
            for each in entries
        ]
        self._write("endpoints:\n" + "".join(lines) if lines else "endpoints: []\n")

    async def break_down(self) -> None:
        self._write("endpoints: half of a wo")

    def _write(self, text: str) -> None:
        beside = self._path.with_suffix(".new")
        beside.write_text(text)
        beside.rename(self._path)


@asynccontextmanager
async def file_place(folder: Path) -> AsyncIterator[Place]:
    yield FilePlace(folder / "endpoints.yaml")


PLACES: dict[str, Open] = {"file": file_place}


def shown(engines: Sequence[FoundEngine]) -> list[tuple[str, str, int]]:
    return sorted((each.name, each.host, each.port) for each in engines)
