"""vLLM as a server and as `run-batch`, and what a tree of processes holds in memory.

Used by __main__.py. Invariant: both are started with the same arguments, so that they have the same
cache, seats and threads; all that is started ends with its context.
"""

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx

from bench.vllm_race.work import MODEL

READY_S: Final = 240.0
WORK_S: Final = 300.0
POLL_S: Final = 0.1
BLOCK: Final = 128
CACHE_BLOCKS: Final = 128
"""16,384 tokens of cache, half of the documents: that of a large model holds a part of many."""
ARGUMENTS: Final = (
    "--served-model-name", MODEL, "--dtype", "bfloat16", "--max-model-len", "2048",
    "--max-num-seqs", "32", "--max-num-batched-tokens", "2048", "--block-size", str(BLOCK),
    "--num-gpu-blocks-override", str(CACHE_BLOCKS), "--enable-prompt-tokens-details",
    "--enforce-eager",  # compiling takes longer than the work
)  # fmt: skip
ENVIRON: Final = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "1",  # one core computes; the other is for everything else
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_SERVER_DEV_MODE": "1",  # POST /reset_prefix_cache; on 127.0.0.1 alone
    "HF_HUB_OFFLINE": "1",
}


class Vllm:
    """vLLM of another environment."""

    def __init__(self, python: Path, model: Path, folder: Path) -> None:
        self._python = python
        self._model = model
        self._folder = folder
        self._log = folder / "vllm.log"

    def _begin(self, module: str, *words: str) -> "subprocess.Popen[bytes]":
        command = [str(self._python), "-m", f"vllm.entrypoints.openai.{module}"]
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [*command, "--model", str(self._model), *words, *ARGUMENTS],
                stdout=log,
                stderr=log,
                env=os.environ | ENVIRON,
                start_new_session=True,
            )

    @contextmanager
    def serving(self, port: int) -> Iterator[tuple[str, int]]:
        """The server; its root URL, and its process."""
        process = self._begin("api_server", "--host", "127.0.0.1", "--port", str(port))
        try:
            root = f"http://127.0.0.1:{port}"
            _wait(lambda: _answers(f"{root}/health"), process, READY_S, self._log)
            yield root, process.pid
        finally:
            end(process)

    def run_batch(self, source: Path, output: Path) -> tuple[float, float, float]:
        """Seconds from its start to its reading of the file, those from there to the output, and
        the most memory in MB."""
        seen = self._log.stat().st_size if self._log.exists() else 0
        began_s = time.monotonic()
        process = self._begin("run_batch", "-i", str(source), "-o", str(output))
        try:
            with watched(process.pid) as memory:
                reads = b"Reading batch from"
                _wait(lambda: reads in self._log.read_bytes()[seen:], process, READY_S, self._log)
                ready_s = time.monotonic()
                _wait(lambda: _is_whole(output, source), process, WORK_S, self._log)
                done_s = time.monotonic()
            return ready_s - began_s, done_s - ready_s, memory.peak_mb
        finally:
            end(process)


def _is_whole(output: Path, source: Path) -> bool:
    """Whether it has a line for each line; it is written at once, in the end."""
    if not output.exists() or not output.stat().st_size:
        return False
    return output.read_bytes().count(b"\n") >= source.read_bytes().count(b"\n")


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def _wait(
    fact: Callable[[], bool], process: "subprocess.Popen[bytes]", within_s: float, log: Path
) -> None:
    """Raises RuntimeError, with the end of the log."""
    until_s = time.monotonic() + within_s
    while not fact():
        if process.poll() not in (None, 0) or time.monotonic() > until_s:
            raise RuntimeError(log.read_text(errors="replace")[-3000:])
        time.sleep(POLL_S / 2)


def end(process: "subprocess.Popen[Any]") -> None:
    """Ends a process that leads a session of its own, and what it started."""
    try:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)
    except ProcessLookupError:
        pass
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class Memory:
    """The most that a tree of processes held, in MB: the sum of their resident sets."""

    peak_mb = 0.0


@contextmanager
def watched(*roots: int) -> Iterator[Memory]:
    """Looks while the context lasts."""
    memory, is_over = Memory(), threading.Event()

    def poll() -> None:
        while not is_over.wait(POLL_S):
            memory.peak_mb = max(memory.peak_mb, _resident_mb(roots))

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        yield memory
    finally:
        is_over.set()
        thread.join()


def _resident_mb(roots: Sequence[int]) -> float:
    children, resident = _processes()
    tree = list(roots)
    for pid in tree:  # grows while it is walked
        tree += children.get(pid, [])
    return sum(resident.get(pid, 0) for pid in tree) / 1000


def _processes() -> tuple[Mapping[int, list[int]], Mapping[int, int]]:
    """Children by process, and the resident set of each in kB."""
    children: dict[int, list[int]] = {}
    resident: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/status"):
        try:
            text = path.read_text()
        except OSError:
            continue  # it has ended
        pid = int(path.parent.name)
        parent = re.search(r"PPid:\s+(\d+)", text)
        size = re.search(r"VmRSS:\s+(\d+) kB", text)
        if parent is not None:
            children.setdefault(int(parent[1]), []).append(pid)
        resident[pid] = int(size[1]) if size is not None else 0
    return children, resident
