"""A batch of a million lines, from the command line to its checked output, and what it takes.

    make million-lines

Behind a target of its own because it takes minutes. Three processes over PostgreSQL and one folder
of blobs (API, worker, `lowtide run` as the submitter), then `lowtide serve`, all in one over
SQLite. Reported for each: the largest resident set of every process, and the seconds of each step
as the batch itself tells them. Each output is read line by line: every request once, in input
order. Ends with 1 when a process needed more than PEAK_MB_MAX.
"""

import argparse
import json
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import httpx

from bench.backend import MODEL
from bench.processes import STOP_TIMEOUT_S, Server, backend, first_line
from testkit.postgres import running_postgres

PEAK_MB_MAX: Final = 300.0
LINES: Final = 1_000_000
CHAT: Final = "/v1/chat/completions"
WINDOW: Final = 64
SAMPLE_EVERY_S: Final = 0.5
RUN_TIMEOUT_S: Final = 1_500.0
PROGRESS_EVERY_S: Final = 20.0
STEPS: Final = ("checked and uploaded", "validated", "processed", "assembled", "downloaded")


def write_input(path: Path, lines: int) -> None:
    """Small chat requests, about 240 bytes each, written as they are made."""
    with path.open("w") as stream:
        for number in range(lines):
            text = f"Write line {number} about the sea at night, in one short sentence."
            body = {"model": MODEL, "messages": [{"role": "user", "content": text}]}
            line = {"custom_id": _custom_id(number), "method": "POST", "url": CHAT}
            stream.write(json.dumps(line | {"body": body | {"max_tokens": 64}}) + "\n")


def check_output(path: Path, lines: int) -> None:
    """Each request once, in input order, answered; with one line in memory at a time."""
    number = -1
    with path.open("rb") as stream:
        for number, raw in enumerate(stream):
            line = json.loads(raw)
            found = line["custom_id"], line["response"]["status_code"], line["error"]
            if found != (_custom_id(number), 200, None):
                raise RuntimeError(f"line {number + 1} of the output is of {found}")
    if number + 1 != lines:
        raise RuntimeError(f"the output has {number + 1:,} lines, not {lines:,}")


def _custom_id(number: int) -> str:
    return f"request-{number:07d}"


@contextmanager
def in_one(folder: Path, engine: str) -> Iterator[dict[str, Server]]:
    config = _config(folder, "all", engine, "")
    with _started(folder, "all", "serve", "--config", config) as server:
        yield {"all in one": server}


@contextmanager
def apart(folder: Path, engine: str) -> Iterator[dict[str, Server]]:
    with ExitStack() as stack:
        postgres = stack.enter_context(running_postgres())
        name = stack.enter_context(postgres.database())
        shared = (
            f"database_url = {json.dumps(postgres.url(name))}\n"
            f"blob_url = {json.dumps((folder / 'blobs').as_uri())}\n"
            f'upload_secret = "{secrets.token_hex(32)}"\n'
        )
        config = _config(folder, "api", engine, shared)
        api = stack.enter_context(
            _started(folder, "api", "serve", "--role", "api", "--config", config)
        )
        config = _config(folder, "worker", engine, shared)
        worker = stack.enter_context(_started(folder, "worker", "worker", "--config", config))
        yield {"api": api, "worker": worker}


VARIANTS: Final = {"postgres": apart, "sqlite": in_one}


def _config(folder: Path, name: str, engine: str, shared: str) -> str:
    """Where the settings of this process are; those of a service, with its limits raised."""
    path = folder / f"{name}.toml"
    path.write_text(
        f"[server]\nport = 0\ndata_dir = {json.dumps(str(folder / name))}\n{shared}"
        "[limits]\nrequests_per_batch = 10000000\nfile_bytes = 4000000000\n"
        "enqueued_tokens_per_model = 10000000000\n"
        f'[[replica]]\nurl = "{engine}"\nmodels = ["{MODEL}"]\nwindow = {WINDOW}\n'
    )
    return str(path)


@contextmanager
def _started(folder: Path, name: str, *words: str) -> Iterator[Server]:
    command = [sys.executable, "-m", "lowtide", *words, "--json"]
    with (
        (folder / f"{name}.log").open("w") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log) as process,
    ):
        try:
            yield Server(first_line(process).get("address", ""), process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_TIMEOUT_S)
            finally:
                process.kill()


class Watch:
    """Looks at the submitter and at its batch while both last; ends the submitter in the end."""

    def __init__(self, process: "subprocess.Popen[bytes]", address: str) -> None:
        self.peak_mb = 0.0
        self._process = process
        self._server = Server("", process.pid)
        self._address = address
        self._reported_at = time.monotonic()

    def until_the_end(self, timeout_s: float) -> None:
        until = time.monotonic() + timeout_s
        try:
            while self._process.poll() is None:
                if time.monotonic() > until:
                    raise RuntimeError(f"the batch did not end within {timeout_s:.0f} s")
                self._sample()
                time.sleep(SAMPLE_EVERY_S)
        finally:
            self._process.kill()

    def _sample(self) -> None:
        try:
            self.peak_mb = max(self.peak_mb, self._server.peak_memory_mb())
        except (OSError, AssertionError):
            return  # it has ended since
        if time.monotonic() - self._reported_at > PROGRESS_EVERY_S:
            self._reported_at = time.monotonic()
            tell(f"{_state_of(self._address)}; the command line at {self.peak_mb:.0f} MB")


def _state_of(address: str) -> str:
    batches = httpx.get(f"{address}/openai/v1/batches", timeout=60).json()["data"]
    if not batches:
        return "uploading"
    return f"{batches[0]['status']} {batches[0]['request_counts']['completed']:,}"


def submit(address: str, source: Path, output: Path) -> tuple[dict[str, Any], float, list[float]]:
    """`lowtide run`; its batch, its largest resident set, and when it began and ended."""
    words = ["run", str(source), "-o", str(output), "--server", address, "--json"]
    began = time.time()
    with (
        output.with_suffix(".said").open("w+b") as said,
        subprocess.Popen([sys.executable, "-m", "lowtide", *words], stdout=said) as process,
    ):
        watch = Watch(process, address)
        watch.until_the_end(RUN_TIMEOUT_S)
        said.seek(0)
        answer = json.loads(said.read())
    if process.returncode != 0:
        raise RuntimeError(f"lowtide run ended with {process.returncode}: {answer}")
    return answer["batch"], watch.peak_mb, [began, time.time()]


def seconds_of(batch: dict[str, Any], times: Sequence[float]) -> dict[str, float]:
    """What each step took; the batch tells whole seconds."""
    began, ended = times
    reported = (
        batch[f"{name}_at"] for name in ("created", "in_progress", "finalizing", "completed")
    )
    marks = (began, *reported, ended)
    return {step: max(0.0, b - a) for step, (a, b) in zip(STEPS, pairwise(marks), strict=True)}


def run(variant: str, source: Path, lines: int) -> bool:
    """One variant with processes of its own; whether each stayed within the bound."""
    with (
        tempfile.TemporaryDirectory(dir=source.parent) as named,
        backend() as engine,
        VARIANTS[variant](Path(named), engine) as servers,
    ):
        output = Path(named) / "output.jsonl"
        (first, *_) = servers.values()
        tell(f"{variant}: submitting {lines:,} lines")
        batch, cli_mb, times = submit(first.address, source, output)
        peaks = {name: server.peak_memory_mb() for name, server in servers.items()}
        peaks["cli"] = cli_mb
        check_output(output, lines)
    steps = seconds_of(batch, times)
    took = ", ".join(f"{step} in {seconds:.0f} s" for step, seconds in steps.items())
    used = ", ".join(f"{name} {peak:.0f} MB" for name, peak in peaks.items())
    print(f"{variant}: {lines:,} lines, {took}; at most {used}", flush=True)
    return max(peaks.values()) < PEAK_MB_MAX


def tell(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--lines", type=int, default=LINES)
    parser.add_argument("--variant", choices=(*VARIANTS, "both"), default="both")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lowtide-million-", dir=arguments.folder) as folder:
        source = Path(folder) / "input.jsonl"
        write_input(source, arguments.lines)
        tell(f"{arguments.lines:,} lines, {source.stat().st_size / 1e6:.0f} MB")
        within = [
            run(variant, source, arguments.lines)
            for variant in VARIANTS
            if arguments.variant in (variant, "both")
        ]
    return 0 if all(within) else 1


if __name__ == "__main__":
    sys.exit(main())
