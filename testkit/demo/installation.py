"""The settings of the demo's server, and how it is started: now, or on an earlier day."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from testkit.demo.processes import Processes
from testkit.demo.requests import LARGE, SMALL, UNSERVED
from testkit.demo.review_engine import MODEL

PORT: Final = 8700

_MODELS: Final = (
    (LARGE, 0.88, 0.88),
    (SMALL, 0.18, 0.18),
    (MODEL, 0.20, 0.20),
    (UNSERVED, 0.60, 1.70),
)


@dataclass(frozen=True, slots=True)
class DemoEngine:
    """A replica of the demo: its name, its address without /v1, its model."""

    name: str
    address: str
    model: str


def write_settings(folder: Path, engines: list[DemoEngine], *, mode: str, port: int) -> Path:
    """The file of settings, whose path is returned."""
    lines = [
        "[server]", f"port = {port}", f"data_dir = {json.dumps(str(folder / 'data'))}",
        "[auth]", f'mode = "{mode}"',
        "[dispatch]", "commit_interval_s = 0.5",
        "[webhooks]", 'allow_networks = ["127.0.0.0/8"]',
    ]  # fmt: skip
    for engine in engines:
        lines += [
            "[[replica]]", f'name = "{engine.name}"', f'url = "{engine.address}/v1"',
            f'models = ["{engine.model}"]', "window = 48",
        ]  # fmt: skip
    for model, read, written in _MODELS:
        lines += ["[[model]]", f'id = "{model}"', f"input_price = {read}",
                  f"output_price = {written}"]  # fmt: skip
    path = folder / f"{mode}.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def serve(
    processes: Processes, settings: Path, behind_s: float = 0.0
) -> tuple["subprocess.Popen[bytes]", str]:
    """A server, and its address; `behind_s`: by how many seconds its clock is late."""
    arguments = ("serve", "--config", str(settings), "--json")
    module = "testkit.demo.shifted_command" if behind_s else "lowtide"
    shifted = (str(behind_s), *arguments) if behind_s else arguments
    process, ready = processes.start("server", module, *shifted)
    return process, str(ready["address"])


def administrator(settings: Path) -> list[str]:
    """The command that makes the first key of the installation, and prints nothing else."""
    scopes = "read,submit,admin"
    return ["keys", "create", "operator", "--scopes", scopes, "--config", str(settings), "--quiet"]


def simulated(processes: Processes, name: str, model: str, *options: str) -> DemoEngine:
    """An engine that takes as long as a real one."""
    arguments = ("simulate-engine", "--json", "--model", model, *options)
    _, ready = processes.start(name, "lowtide", *arguments)
    return DemoEngine(name, _address(ready), model)


def _address(ready: dict[str, Any]) -> str:
    return str(ready.get("address") or ready["url"]).removesuffix("/v1")
