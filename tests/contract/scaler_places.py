"""The places that the contract of `ports.scalers` is held against, each with its adapter.

Another adapter joins by one more entry in `PLACES`: a context that opens a place of the tests' own
and gives scalers of it. Whatever is started there is gone when the context is left.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from lowtide.engines.scalers.command import Commands, CommandScaler
from lowtide.engines.scalers.kubernetes_scale import DeploymentScale
from lowtide.engines.scalers.ray_scale import RayScale
from lowtide.engines.sources.json_http import JsonApi
from lowtide.ports.scalers import Scaler
from testkit.patience import PATIENCE_S
from testkit.small_http_server import Answer, PlayedCall, small_http_server


class Place(Protocol):
    """A place that can be scaled."""

    def scaler(self) -> Scaler:
        """A new adapter of it, as another process would have one."""
        ...

    async def has(self, replicas: int) -> None:
        """Waits until so many run there."""
        ...

    async def break_down(self) -> None:
        """Lets the place refuse all that it is asked."""
        ...

    async def mend(self) -> None:
        """Lets it answer again."""
        ...


Open = Callable[[Path], AbstractAsyncContextManager[Place]]


class PlayedPlace:
    """What the API servers have in common: a number, which is there as soon as it was told."""

    def __init__(self, folder: Path) -> None:
        self.replicas = 0
        self.is_broken = False
        self.url = ""
        self.calls: list[PlayedCall] = []
        self.token = folder / "token"
        self.token.write_text("t1")

    def api(self) -> JsonApi:
        return JsonApi(self.url, token_file=self.token)

    def __call__(self, call: PlayedCall) -> Answer:
        self.calls.append(call)
        if self.is_broken:
            return 500, b"no etcd"
        if call.headers.get("authorization") != f"bearer {self.token.read_text()}":
            return 401, b'{"kind": "Status", "message": "Unauthorized"}'
        status, reported = self.answer(call)
        return status, json.dumps(reported).encode()

    def answer(self, call: PlayedCall) -> tuple[int, Any]:
        raise NotImplementedError

    async def has(self, replicas: int) -> None:
        assert self.replicas == replicas

    async def break_down(self) -> None:
        self.is_broken = True

    async def mend(self) -> None:
        self.is_broken = False


class Deployments(PlayedPlace):
    """The part of the API of Kubernetes that reads and patches the scale of a Deployment."""

    path = "/apis/apps/v1/namespaces/default/deployments/vllm/scale"

    def scaler(self) -> Scaler:
        return DeploymentScale(self.api(), "default", "vllm")

    def answer(self, call: PlayedCall) -> tuple[int, Any]:
        if call.path != self.path:
            return 404, {"kind": "Status", "message": f'"{call.path}" not found'}
        wanted = self.replicas
        if call.method == "PATCH":
            if call.headers["content-type"] != "application/merge-patch+json":
                return 415, {"kind": "Status", "message": "the body of the request"}
            body = json.loads(call.body)
            wanted = body["spec"]["replicas"]
            assert body == {"spec": {"replicas": wanted}}, "nothing else is touched"
            if call.query.get("dryRun") != "All":
                self.replicas = wanted
        reported = {} if not wanted else {"replicas": wanted}  # a zero is left out, as Go does it
        return 200, {"kind": "Scale", "spec": reported, "status": {"replicas": self.replicas}}


class RayHead(PlayedPlace):
    """The part of Ray's dashboard that lists applications and scales a deployment."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.is_external = True

    def scaler(self) -> Scaler:
        return RayScale(self.api(), "llm", "Engine")

    def answer(self, call: PlayedCall) -> tuple[int, Any]:
        if (call.method, call.path) == ("GET", "/api/serve/applications/"):
            replicas = [{"state": "RUNNING"}] * self.replicas + [{"state": "STOPPING"}]
            deployment = {"target_num_replicas": self.replicas, "replicas": replicas}
            application = {
                "status": "RUNNING",
                "external_scaler_enabled": self.is_external,
                "deployments": {"Engine": deployment},
            }
            return 200, {"applications": {"llm": application}}
        if (call.method, call.path) != (
            "POST", "/api/v1/applications/llm/deployments/Engine/scale",
        ):  # fmt: skip
            return 404, {"error": "not found"}
        if not self.is_external:
            return 412, {"error": "Current value: external_scaler_enabled=false."}
        self.replicas = json.loads(call.body)["target_num_replicas"]
        return 200, {"message": "Scaling request received."}


class Machine:
    """Engines of this machine: processes that wait, with a child each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "slots"
        self.folder = folder
        self.marks = folder / "marks"
        self.marks.mkdir()

    def commands(self) -> Commands:
        # A shell with a child of its own: what is stopped is both.
        script = f"echo up; sleep 600 & echo $$ $! >> {self.marks}/$LOWTIDE_REPLICA; wait"
        return Commands(start=("sh", "-c", script), model="m", stop_s=PATIENCE_S)

    def scaler(self) -> CommandScaler:
        return CommandScaler(
            self.commands(), self._folder, lambda replica: self.folder / f"{replica}.log"
        )

    async def has(self, replicas: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                if len(self.alive()) == 2 * replicas:
                    return
                await asyncio.sleep(0.01)

    def alive(self) -> list[int]:
        """The processes of all engines that were ever started, as far as they live."""
        return [pid for pid in self.started() if _lives(pid)]

    def started(self) -> list[int]:
        return [int(word) for path in self.marks.iterdir() for word in path.read_text().split()]

    async def break_down(self) -> None:
        if self._folder.exists():
            self._folder.rename(self._folder.with_name("aside"))
        self._folder.write_text("no folder")

    async def mend(self) -> None:
        self._folder.unlink()
        aside = self._folder.with_name("aside")
        if aside.exists():
            aside.rename(self._folder)

    def end(self) -> None:
        for pid in self.alive():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _lives(pid: int) -> bool:
    """Whether it runs, and is no zombie that waits for its parent to look."""
    try:
        if sys.platform == "linux":
            return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
        os.kill(pid, 0)
    except (FileNotFoundError, ProcessLookupError):
        return False
    return True


@asynccontextmanager
async def kubernetes(folder: Path) -> AsyncIterator[Place]:
    place = Deployments(folder)
    async with small_http_server(place) as place.url:
        yield place


@asynccontextmanager
async def ray(folder: Path) -> AsyncIterator[Place]:
    place = RayHead(folder)
    async with small_http_server(place) as place.url:
        yield place


@asynccontextmanager
async def command(folder: Path) -> AsyncIterator[Place]:
    place = Machine(folder)
    try:
        yield place
    finally:
        place.end()


PLACES: dict[str, Open] = {"kubernetes": kubernetes, "ray": ray, "command": command}
