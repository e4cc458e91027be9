"""The part of the API of Kubernetes that a watcher of EndpointSlices meets: list, watch, bookmarks,
versions that are forgotten, tokens, streams that break.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from testkit.small_http_server import Answer, PlayedCall


class KubernetesApi:
    """The handler of a server. What is put is told to all watches at once."""

    def __init__(self, namespace: str = "default", token: str = "t1") -> None:
        self.path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
        self.token: str | None = token
        self.is_broken = False
        self.lists = 0
        self.watches: list[str] = []
        """The version from which each watch was asked for."""
        self.oldest = 0
        """Versions before this one are forgotten."""
        self._version = 10
        self._slices: dict[str, dict[str, Any]] = {}
        self._history: list[tuple[int, bytes]] = []
        self._open: set[asyncio.Queue[bytes | None]] = set()
        self._watched = asyncio.Event()

    def __call__(self, call: PlayedCall) -> Answer:
        if self.is_broken:
            return 500, b"no etcd"
        if self.token is not None and call.headers.get("authorization") != f"bearer {self.token}":
            return 401, b'{"kind": "Status", "message": "Unauthorized"}'
        if call.path != self.path:
            return 404, b'{"kind": "Status", "message": "not found"}'
        if call.query.get("watch") == "true":
            return self._watch(call.query["resourceVersion"])
        self.lists += 1
        wanted = call.query["labelSelector"].partition("=")[2]
        items = [each for each in self._slices.values() if each["service"] == wanted]
        return 200, json.dumps(
            {"metadata": {"resourceVersion": str(self._version)}, "items": items}
        ).encode()

    async def saw_watches(self, count: int) -> None:
        """Waits until so many watches were asked for."""
        while len(self.watches) < count:
            self._watched.clear()
            await self._watched.wait()

    def put(
        self,
        name: str,
        endpoints: list[dict[str, Any]] | None,
        *,
        service: str = "vllm",
        kind: str = "IPv4",
        ports: list[dict[str, Any]] | None = None,
    ) -> None:
        """Makes this the slice of that name."""
        self._version += 1
        event = "MODIFIED" if name in self._slices else "ADDED"
        self._slices[name] = {
            "service": service,
            "metadata": {"name": name, "resourceVersion": str(self._version)},
            "addressType": kind,
            "endpoints": endpoints,
            "ports": [{"name": "http", "port": 8000}] if ports is None else ports,
        }
        self._tell(event, self._slices[name])

    def remove(self, name: str) -> None:
        self._version += 1
        gone = self._slices.pop(name)
        self._tell("DELETED", gone)

    def bookmark(self) -> None:
        """Tells all watches how far they are."""
        self._version += 1
        self._tell("BOOKMARK", {"metadata": {"resourceVersion": str(self._version)}})

    def tell(self, event: bytes) -> None:
        """Sends one line to all watches."""
        for queue in self._open:
            queue.put_nowait(event)

    def end_watches(self) -> None:
        for queue in self._open:
            queue.put_nowait(None)

    def forget(self) -> None:
        """Forgets all versions before the present one, and ends the watches."""
        self.oldest = self._version + 1
        self._version += 1
        self.end_watches()

    def _tell(self, kind: str, change: dict[str, Any]) -> None:
        line = json.dumps({"type": kind, "object": change}).encode() + b"\n"
        self._history.append((self._version, line))
        self.tell(line)

    def _watch(self, version: str) -> Answer:
        self.watches.append(version)
        self._watched.set()
        if int(version) < self.oldest:
            return 410, b'{"kind": "Status", "code": 410, "message": "too old"}'
        return 200, self._stream(int(version))

    async def _stream(self, version: int) -> AsyncIterator[bytes]:
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        for at, line in self._history:
            if at > version:
                queue.put_nowait(line)
        self._open.add(queue)
        try:
            while (change := await queue.get()) is not None:
                yield change
        finally:
            self._open.discard(queue)


def pod(
    name: str, address: str, *, ready: bool | None = True, terminating: bool = False
) -> dict[str, Any]:
    """An endpoint of a slice."""
    return {
        "addresses": [address],
        "conditions": {"ready": ready, "serving": ready, "terminating": terminating},
        "targetRef": {"kind": "Pod", "name": name},
    }
