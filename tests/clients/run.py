"""Run real clients, older and newer than those in `make test`, against one real server.

    python tests/clients/run.py [NAME ...]

Makes an environment for each (see environments.py), starts `lowtide serve` with an echo engine
behind it, runs each client's scripts, and prints a table and a closing line. Exit code 1 if a check
failed.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from environments import EnvironmentFailedError, NoRegistryError, environment

from clients import CLIENTS, OURS, SCRIPTS, Client
from testkit.live_server import live_server

MODELS = ["deepseek-ai/DeepSeek-V3", "gpt-4o-mini"]
BUILDERS = 2
PASSED, FAILED = "ok: ", "FAILED: "


@dataclass
class Report:
    """What came of one client."""

    client: Client
    passed: int = 0
    failed: int = 0
    seconds: float = 0.0
    skipped: str = ""
    outputs: list[str] = field(default_factory=list)


def client_environment(client: Client, address: str, folder: Path) -> dict[str, str]:
    """What a script sees: where the server is, no telemetry, no way out of this machine."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "COLUMNS": "200",
        "NO_COLOR": "1",
        "LOWTIDE_ADDRESS": address,
        "TOGETHER_API_KEY": "key",
        "TOGETHER_BASE_URL": address + client.together_base,
        "OPENAI_API_KEY": "key",
        "OPENAI_BASE_URL": f"{address}/v1",
        "TOGETHER_TELEMETRY_DISABLED": "1",
        "TELEMETRY_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "CURATOR_DISABLE_RICH_DISPLAY": "1",
        "HF_HUB_OFFLINE": "1",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }


def run_script(client: Client, python: Path, script: str, address: str) -> tuple[bool, str]:
    """Whether it ended well, and all that it said."""
    with tempfile.TemporaryDirectory(prefix="client-") as name:
        folder = Path(name)
        try:
            done = subprocess.run(
                [python, "-W", "ignore", str(SCRIPTS / script)], cwd=folder, text=True,
                env=client_environment(client, address, folder), timeout=client.limit_s,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as late:
            said = late.output or ""  # bytes in spite of `text`, where it was cut off in mid-stream
            said = said.decode(errors="replace") if isinstance(said, bytes) else said
            return False, f"{said}\n{FAILED}not done after {client.limit_s:.0f} s"
    return done.returncode == 0, done.stdout


def run_client(client: Client, python: Path, address: str) -> Report:
    report = Report(client)
    started = time.monotonic()
    for script in client.scripts:
        well, said = run_script(client, python, script, address)
        report.passed += sum(line.startswith(PASSED) for line in said.splitlines())
        if not well:
            report.failed += 1
            report.outputs.append(f"--- {client.name}: {script}\n{said}")
    report.seconds = time.monotonic() - started
    return report


def prepare(client: Client) -> Path | Report:
    """The client's Python, or the report that there is none."""
    if not client.requires:
        return Path(sys.executable)
    try:
        return environment(client)
    except NoRegistryError:
        return Report(client, skipped="no package registry could be reached")
    except (EnvironmentFailedError, subprocess.TimeoutExpired) as error:
        return Report(client, failed=1, outputs=[f"--- {client.name}: environment\n{error}"])


def run_all(clients: list[Client], prepared: list[Path | Report], address: str) -> list[Report]:
    reports = []
    for client, python in zip(clients, prepared, strict=True):
        report = python if isinstance(python, Report) else run_client(client, python, address)
        reports.append(report)
        print(row(report), flush=True)
    return reports


def row(report: Report) -> str:
    state = report.skipped or ("ok" if not report.failed else "FAILED")
    return f"{report.client.name:<22} {report.passed:>6} {report.seconds:>7.1f} s  {state}"


def main(names: list[str]) -> int:
    chosen = [c for c in (*CLIENTS, *OURS) if not names or c.name in names]
    if shutil.which("curl") is None:
        chosen = [client for client in chosen if client.name != "curl"]
    started = time.monotonic()
    with ThreadPoolExecutor(BUILDERS) as builders:
        prepared = list(builders.map(prepare, chosen))
    print(f"environments ready after {time.monotonic() - started:.1f} s\n")
    print(f"{'client':<22} {'checks':>6} {'time':>9}")
    with tempfile.TemporaryDirectory(prefix="lowtide-") as folder:
        with live_server(Path(folder), MODELS) as server:
            reports = run_all(chosen, prepared, server.address)
        log = server.log.read_text()
    for report in reports:
        print(*report.outputs, sep="\n", end="")
    failed = sum(report.failed for report in reports)
    if failed:
        print(f"--- server\n{log[-4000:]}")
    skipped = sum(bool(report.skipped) for report in reports)
    passed = sum(report.passed for report in reports)
    print(f"\n{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
