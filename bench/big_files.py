"""Five gigabytes through both vendors' clients, in parts, and validated as a batch's input.

    make big-files

Behind a target of its own because it takes minutes and some 20 GB of disk, all of which it removes.
Reported for each client: the rate of the whole upload, the seconds that putting the parts together
took, the largest resident set of the server's process until the file was there, and the slowest
answer of `/health` meanwhile, which shows whether anything held up the event loop.
"""

import argparse
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from openai import OpenAI
from together import Together

GIB: Final = 1024**3
LINE_BYTES: Final = 20_000
CHAT: Final = "/v1/chat/completions"
PEAK_MB_MAX: Final = 300.0
HEALTH_EVERY_S: Final = 0.05
VALIDATION_S_MAX: Final = 900.0


@dataclass
class Server:
    """A running `lowtide serve`, and where its log is."""

    address: str
    pid: int
    log: Path

    def begin(self) -> None:
        """Let the peak of memory count from now."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def peak_mb(self) -> float:
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found is not None, "the kernel reports VmHWM"
        return int(found[1]) * 1024 / 1e6

    def completion_s(self) -> float:
        """What the last completion took, by the server's own log."""
        said = [json.loads(line) for line in self.log.read_text().splitlines()]
        return float([each["seconds"] for each in said if each["event"] == "upload.completed"][-1])


PULSE: Final = """
import sys, threading, time, urllib.request
over = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
worst = 0.0
while not over.wait(float(sys.argv[2])):
    began = time.perf_counter()
    urllib.request.urlopen(sys.argv[1] + "/health", timeout=60).read()
    worst = max(worst, time.perf_counter() - began)
print(worst)
"""
"""Asks all the time, in a process of its own: a client that moves gigabytes is no fair witness."""


@dataclass
class Pulse:
    """What asking `/health` all the time came to: the slowest answer."""

    worst_s: float = 0.0


@contextmanager
def beating(address: str) -> Iterator[Pulse]:
    pulse = Pulse()
    command = [sys.executable, "-c", PULSE, address, str(HEALTH_EVERY_S)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as asking:
        try:
            yield pulse
        finally:
            said, _ = asking.communicate()
            pulse.worst_s = float(said or 60)


@contextmanager
def serving(folder: Path, file_bytes: int) -> Iterator[Server]:
    """A server with the limits raised; its model waits for an engine that never comes."""
    config, log = folder / "lowtide.toml", folder / "server.log"
    config.write_text(
        f"[server]\nport = 0\ndata_dir = {json.dumps(str(folder / 'data'))}\n"
        f"[limits]\nfile_bytes = {file_bytes}\nrequests_per_batch = 1000000\n"
        "enqueued_tokens_per_model = 100000000000\n"
        '[[replica]]\nurl = "http://127.0.0.1:9/v1"\nmodels = ["m"]\nwindow = 4\n'
    )
    command = [sys.executable, "-m", "lowtide", "serve", "--config", str(config), "--json"]
    with (
        log.open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            assert said, log.read_text()
            yield Server(json.loads(said)["address"], process.pid, log)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def write_input(path: Path, size: int) -> int:
    """Lines of about LINE_BYTES until there are `size` bytes; how many."""
    text = "All work and no play makes a long prompt. " * (LINE_BYTES // 42)
    number = written = 0
    with path.open("wb") as stream:
        while written < size:
            number += 1
            body = {"model": "m", "messages": [{"role": "user", "content": f"{number}: {text}"}]}
            line = {"custom_id": f"r-{number}", "method": "POST", "url": CHAT, "body": body}
            written += stream.write(json.dumps(line).encode() + b"\n")
    return number


def by_openai(server: Server, path: Path) -> str:
    client = OpenAI(base_url=f"{server.address}/v1", api_key="k")
    upload = client.uploads.upload_file_chunked(
        file=path, mime_type="application/jsonl", purpose="batch"
    )
    assert upload.file is not None
    return upload.file.id


def by_together(server: Server, path: Path) -> str:
    client = Together(base_url=server.address, api_key="k")
    file = client.files.upload(file=path, purpose="batch-api", check=False)
    return file.id


def validated(server: Server, file_id: str, lines: int) -> float:
    """Seconds from creating a batch to the end of its validation."""
    client = OpenAI(base_url=f"{server.address}/openai/v1", api_key="k")
    began = time.perf_counter()
    batch = client.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window="24h")
    while batch.status == "validating":
        assert time.perf_counter() - began < VALIDATION_S_MAX, "validation takes too long"
        time.sleep(0.5)
        batch = client.batches.retrieve(batch.id)
    took = time.perf_counter() - began
    assert batch.status == "in_progress", batch.errors
    assert batch.request_counts is not None
    assert batch.request_counts.total == lines
    client.batches.cancel(batch.id)
    client.files.delete(file_id)
    return took


def run(name: str, upload: Callable[[Server, Path], str], path: Path, lines: int) -> bool:
    """One client against a server of its own; whether its memory stayed within the bound."""
    size = path.stat().st_size
    with (
        tempfile.TemporaryDirectory(dir=path.parent) as folder,
        serving(Path(folder), size) as server,
    ):
        server.begin()
        began = time.perf_counter()
        with beating(server.address) as pulse:
            file_id = upload(server, path)
        took = time.perf_counter() - began
        peak = server.peak_mb()
        print(
            f"{name}: {size / 1e9:.2f} GB in {took:.0f} s ({size / 1e6 / took:.0f} MB/s), put"
            f" together in {server.completion_s():.0f} s, server at most {peak:.0f} MB, slowest"
            f" /health {pulse.worst_s * 1000:.0f} ms",
            flush=True,
        )
        server.begin()
        seconds = validated(server, file_id, lines)
        print(
            f"{name}: {lines:,} lines validated in {seconds:.0f} s, server at most"
            f" {server.peak_mb():.0f} MB",
            flush=True,
        )
    return peak < PEAK_MB_MAX


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--gib", type=float, default=5.05, help="Together's client takes parts above 5"
    )
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--client", choices=("openai", "together", "both"), default="both")
    arguments = parser.parse_args()
    clients = {"openai": by_openai, "together": by_together}
    with tempfile.TemporaryDirectory(prefix="lowtide-big-", dir=arguments.folder) as folder:
        path = Path(folder) / "big.jsonl"
        lines = write_input(path, int(arguments.gib * GIB))
        fits = [
            run(name, upload, path, lines)
            for name, upload in clients.items()
            if arguments.client in (name, "both")
        ]
    return 0 if all(fits) else 1


if __name__ == "__main__":
    sys.exit(main())
