"""Engines from a file in the format of llm-d's `endpoints.yaml`, YAML or JSON.

    endpoints:
      - name: vllm-0
        address: 10.0.0.7
        port: "8000"
        labels: {model: Qwen3-32B}

A Slurm job, a Ray script or an operator writes it, best as another file that is then renamed. The
file is looked at twice a second, and read when it has changed and was the same at two readings, for
half of a list may be a list, too. Invariant: a file that is missing or wrong in one entry is a
SourceError, so that a mistake takes no engine away.
"""

import asyncio
from pathlib import Path
from typing import Any, Final

import yaml

from lowtide import limits
from lowtide.core.replicas.found_engines import FoundEngine, is_host, is_replica_name
from lowtide.ports.sources import Listing, SourceError

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Makes plain values alone. The one in C takes a hundredth of the time, in which others wait."""

_Stamp = tuple[int, int, int]
"""Inode, time of change and size: tells apart the states of a file, a replaced one too."""


class EndpointsFile:
    """Adapter of `ports.sources.EngineSource`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: tuple[_Stamp, tuple[FoundEngine, ...]] | None = None
        self._seen: _Stamp | None = None
        self._reading: asyncio.Task[tuple[FoundEngine, ...]] | None = None

    async def read(self) -> Listing:
        """See `ports.sources.EngineSource`."""
        # A network file system may hang: then one thread waits for it, and no second one.
        if self._reading is None:
            self._reading = asyncio.create_task(asyncio.to_thread(self._engines))
            self._reading.add_done_callback(_note)
        done, _ = await asyncio.wait({self._reading}, timeout=limits.SOURCE_READ_S)
        if not done:
            raise SourceError(f"{self._path}: cannot be read within {limits.SOURCE_READ_S:.0f} s")
        reading, self._reading = self._reading, None
        return Listing(reading.result(), limits.SOURCE_POLL_S)

    async def aclose(self) -> None:
        """Nothing is open."""

    def _engines(self) -> tuple[FoundEngine, ...]:
        try:
            status = self._path.stat()
            stamp = status.st_ino, status.st_mtime_ns, status.st_size
            is_settled = self._seen in (None, stamp)
            self._seen = stamp
            if self._read is not None and (self._read[0] == stamp or not is_settled):
                return self._read[1]
            if status.st_size > limits.SOURCE_BYTES_MAX:
                raise SourceError(
                    f"{self._path}: has {status.st_size:,} bytes: too many for a list"
                )
            data = self._path.read_bytes()
        except OSError as error:
            raise SourceError(f"{self._path}: cannot be read: {error.strerror}") from None
        try:
            engines = engines_of(data)
        except ValueError as error:
            raise SourceError(f"{self._path}: {error}") from None
        self._read = stamp, engines
        return engines


def _note(reading: asyncio.Task[tuple[FoundEngine, ...]]) -> None:
    """Takes note of an error that no reading waits for any more."""
    if not reading.cancelled():
        reading.exception()


def engines_of(data: bytes) -> tuple[FoundEngine, ...]:
    """The engines of a file's content. Raises ValueError, which names the entry, from 1."""
    try:
        content: Any = yaml.load(data, _LOADER)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise ValueError(f"is no YAML: {' '.join(str(error).split())}") from None
    entries = content.get("endpoints") if isinstance(content, dict) else content
    if not isinstance(entries, list):
        raise ValueError("has no list `endpoints`; for no engine at all write `endpoints: []`")
    if len(entries) > limits.SOURCE_ENGINES_MAX:
        raise ValueError(
            f"has {len(entries):,} endpoints; {limits.SOURCE_ENGINES_MAX:,} are the most"
        )
    engines = tuple(_engine(entry, place) for place, entry in enumerate(entries, 1))
    names = [engine.name for engine in engines]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"two endpoints have the name {twice}")
    return engines


def _engine(entry: Any, place: int) -> FoundEngine:
    if not isinstance(entry, dict):
        raise ValueError(f"endpoint {place} is not a table of name, address and port")
    name, host, port = (str(entry.get(key, "")) for key in ("name", "address", "port"))
    if not is_replica_name(name):
        raise ValueError(f"endpoint {place} needs a name, without spaces")
    if not is_host(host):
        raise ValueError(f"endpoint {name} needs an address: an IP address or the name of a host")
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"endpoint {name} needs a port from 1 to 65535")
    labels = entry.get("labels") or {}
    model = labels.get("model") if isinstance(labels, dict) else None
    return FoundEngine(name, host, int(port), (str(model),) if model else ())
