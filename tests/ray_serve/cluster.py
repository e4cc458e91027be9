"""A Ray cluster of one machine, on 127.0.0.1, with an application of Ray Serve.

Used by run.py. Invariant: whatever it started is gone when the context ends, also what Ray started.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx
import yaml

ROOT: Final = Path(__file__).parents[2]
DEPLOY: Final = ROOT / "deploy" / "ray"
BIN: Final = Path(sys.executable).parent
APPLICATION: Final = "llm"
DEPLOYMENT: Final = "Engine"
PATIENCE_S: Final = 240.0
POLL_S: Final = 0.05
T = TypeVar("T")


def until(fact: Callable[[], T | None], what: str) -> T:
    """Waits for another process. Raises TimeoutError."""
    end_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < end_s:
        found = fact()
        if found:
            return found
        time.sleep(POLL_S)
    raise TimeoutError(f"after {PATIENCE_S:g} s: {what}")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class Cluster:
    """One head, which may be killed and started again at the same ports."""

    def __init__(self, folder: Path, engine_command: str) -> None:
        self.folder = folder
        self.dashboard = f"http://127.0.0.1:{free_port()}"
        self._head_port, self._proxy_port = free_port(), free_port()
        self._head: subprocess.Popen[bytes] | None = None
        self._http = httpx.Client(base_url=self.dashboard, timeout=10, trust_env=False)
        self._config = folder / "serve.yaml"
        self._config.write_text(yaml.safe_dump(self._serve_config(engine_command)))
        self._environ = os.environ | {
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(DEPLOY),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "disabled",  # else a token that another Ray left here turns it on
        }

    def _serve_config(self, engine_command: str) -> Any:
        """The file of deploy/, with what this machine has."""
        config = yaml.safe_load((DEPLOY / "serve.yaml").read_text())
        config["http_options"] = {"host": "127.0.0.1", "port": self._proxy_port}
        (application,) = config["applications"]
        command = engine_command.replace("{folder}", str(self.folder))
        application["args"] = {"command": command, "start_s": PATIENCE_S}
        (deployment,) = application["deployments"]
        deployment |= {"num_replicas": 1, "ray_actor_options": {"num_cpus": 0}}
        deployment["graceful_shutdown_timeout_s"] = 5
        return config

    def start(self) -> None:
        """Starts the head, and deploys."""
        port = self.dashboard.rsplit(":", 1)[1]
        options = {
            "--node-ip-address": "127.0.0.1",
            "--port": str(self._head_port),
            "--dashboard-host": "127.0.0.1",
            "--dashboard-port": port,
            "--num-cpus": "2",
            "--temp-dir": str(self.folder / "ray"),
            "--object-store-memory": str(100 * 1024 * 1024),
        }
        words = [word for pair in options.items() for word in pair]
        with (self.folder / "head.log").open("ab") as log:
            self._head = subprocess.Popen(
                [BIN / "ray", "start", "--head", "--block", "--disable-usage-stats", *words],
                stdout=log,
                stderr=log,
                env=self._environ,
                start_new_session=True,
            )
        until(lambda: self.applications() is not None, "the dashboard answers")
        self._deploy()
        until(lambda: self.running(), "a replica runs")

    def _deploy(self) -> None:
        subprocess.run(
            [BIN / "serve", "deploy", self._config, "--address", self.dashboard],
            check=True,
            env=self._environ,
            timeout=PATIENCE_S,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def applications(self) -> Mapping[str, Any] | None:
        """What the dashboard tells; None while it is away."""
        try:
            answer = self._http.get("/api/serve/applications/")
            return answer.json()["applications"] if answer.status_code == 200 else None
        except (httpx.HTTPError, ValueError):
            return None

    def replicas(self) -> list[Mapping[str, Any]]:
        application = (self.applications() or {}).get(APPLICATION, {})
        part = application.get("deployments", {}).get(DEPLOYMENT, {})
        found: list[Mapping[str, Any]] = part.get("replicas", [])
        return found

    def running(self) -> list[int]:
        """The processes of the replicas that run."""
        return [each["pid"] for each in self.replicas() if each["state"] == "RUNNING"]

    def scale(self, replicas: int) -> None:
        """Tells Ray how many replicas there are to be."""
        path = f"/api/v1/applications/{APPLICATION}/deployments/{DEPLOYMENT}/scale"
        answer = self._http.post(path, json={"target_num_replicas": replicas})
        assert answer.status_code == 200, answer.text

    def kill_head(self) -> int:
        """Kills the head and all that it started; how many processes that were."""
        assert self._head is not None
        killed = 0
        for pid in descendants(self._head.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed += 1
        self._head.wait()
        self._head = None
        return killed

    def close(self) -> None:
        self._http.close()
        if self._head is not None:
            self.kill_head()


def descendants(pid: int) -> list[int]:
    """The process and those that it started, the youngest first."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            words = path.read_text().rsplit(")", 1)[1].split()
            children.setdefault(int(words[1]), []).append(int(path.parent.name))
    found, at = [pid], 0
    while at < len(found):
        found += children.get(found[at], [])
        at += 1
    return found[::-1]


@contextlib.contextmanager
def cluster(engine_command: str) -> Iterator[Cluster]:
    """A cluster that is started, in a folder of its own."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # paths of sockets must be short
    made = Cluster(folder, engine_command)
    try:
        made.start()
        yield made
    finally:
        made.close()
        shutil.rmtree(folder, ignore_errors=True)
