"""A vLLM server as a child process, for the benchmark and the trials of the scheduler class.

Every server is on 127.0.0.1 with a free port, in a process group of its own, and ends with its
context. `check_wheel` guards that what is measured is this tree's class.
"""

import argparse
import asyncio
import os
import re
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx

from bench.live_traffic.real_traffic import Target
from bench.random_llama import random_llama
from bench.turns import group_cpu_s

STOCK: Final = "vLLM's scheduler"
CLASS: Final = "scheduler class"
CLASS_ON: Final = {
    "cpu": "lowtide_vllm.scheduler.StepBoundSyncScheduler",
    "gpu": "lowtide_vllm.scheduler.StepBoundScheduler",
}
NAME: Final = "bench"
BATCH_PRIORITY: Final = 100
START_S: Final = 240.0
STOP_S: Final = 20
TOKENS: Final = ("vllm:prompt_tokens_total", "vllm:generation_tokens_total")
IN_FLIGHT: Final = ("vllm:num_requests_running", "vllm:num_requests_waiting")
PACKAGE: Final = Path(__file__).parents[2] / "integrations" / "vllm" / "src" / "lowtide_vllm"
_WHERE: Final = (
    "import importlib.util as i; s = i.find_spec('lowtide_vllm'); print(s and s.origin or '')"
)
Found = TypeVar("Found")
CPU_ENV: Final = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "1"}
"""A gibibyte for each server, whose arithmetic is on core 1 alone: clients have the others."""


def check_wheel(python: str) -> None:
    """Ends the program unless the environment has the class just as it is in this tree."""
    said = subprocess.run([python, "-c", _WHERE], capture_output=True, text=True, check=True)
    installed = Path(said.stdout.strip()).parent
    for source in PACKAGE.glob("*.py"):
        other = installed / source.name
        if not said.stdout.strip() or not other.exists() or other.read_text() != source.read_text():
            raise SystemExit(
                "The wheel there is not of this tree. `make vllm-wheel`, then: "
                f"{python} -m pip install --no-deps --force-reinstall dist/lowtide_vllm-*.whl"
            )


def run_to_end(work: Coroutine[Any, Any, Found]) -> Found:
    """What it returns. SIGTERM cancels it, so that no server is left behind, with status 1."""

    async def cancellable() -> Found:
        task = asyncio.ensure_future(work)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await task

    try:
        return asyncio.run(cancellable())
    except asyncio.CancelledError:
        raise SystemExit(1) from None


class Engine:
    """One vLLM server, which can be killed and started again.

    `asked` has `vllm`, the environment's Python, `device`, and `flags`; `scheduler` is the path of
    its class, where that is not the one of `name`.
    """

    def __init__(
        self,
        name: str,
        asked: argparse.Namespace,
        model: str,
        folder: Path,
        *,
        scheduler: str | None = None,
    ) -> None:
        self.name = name
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}"
        self.target = Target(f"{self.address}/v1", NAME)
        flags = shlex.split(asked.flags)
        if name == CLASS:
            flags += ["--scheduler-cls", scheduler or CLASS_ON[asked.device]]
        self._command = [
            asked.vllm, "-m", "vllm.entrypoints.openai.api_server", "--model", model,
            "--host", "127.0.0.1", "--port", str(port), "--served-model-name", NAME,
            "--scheduling-policy", "priority", *flags,
        ]  # fmt: skip
        self.env = os.environ | {"VLLM_NO_USAGE_STATS": "1"}
        if Path(model).is_dir():
            self.env["HF_HUB_OFFLINE"] = "1"
        self.env |= CPU_ENV if asked.device == "cpu" else {}
        self._log = folder / f"{'class' if name == CLASS else 'stock'}-{port}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self.env, stdout=log, stderr=log, start_new_session=True
            )

    async def is_up(self) -> None:
        """Returns once it answers. Raises RuntimeError when it ended, or takes too long."""
        give_up_at = time.monotonic() + START_S
        async with httpx.AsyncClient(base_url=self.address, timeout=5.0) as http:
            while time.monotonic() < give_up_at and self.is_running:
                try:
                    if (await http.get("/health")).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.5)
        raise RuntimeError(f"{self.name} did not start:\n{self.log()[-3000:]}")

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    async def ended(self, within_s: float) -> int:
        """Its exit status once it ended by itself. Raises TimeoutError."""
        assert self._process is not None, "it was started"
        async with asyncio.timeout(within_s):
            while (status := self._process.poll()) is None:  # noqa: ASYNC110
                await asyncio.sleep(0.2)
        return status

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    async def counted(self, *names: str) -> float:
        """The sum of those metrics over all their labels, from its page."""
        page = await self._metrics()
        found = (re.findall(rf"^{name}(?:{{.*}})? (\S+)$", page, re.MULTILINE) for name in names)
        return sum(float(value) for values in found for value in values)

    async def counted_by(self, name: str, label: str) -> dict[str, float]:
        """One metric, for each value of a label."""
        line = rf'^{name}{{.*?{label}="([^"]*)".*}} (\S+)$'
        found = re.findall(line, await self._metrics(), re.MULTILINE)
        return {value: float(count) for value, count in found}

    async def _metrics(self) -> str:
        async with httpx.AsyncClient(base_url=self.address, timeout=10.0) as http:
            return (await http.get("/metrics")).raise_for_status().text

    async def tokens(self) -> int:
        """Of prompts and answers, so far."""
        return int(await self.counted(*TOKENS))

    def cpu_s(self) -> float:
        """Seconds of processor time of all its processes, so far."""
        assert self._process is not None, "it was started"
        return group_cpu_s(self._process.pid)

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Ends the server and the processes that it started."""
        if self._process is None or self._process.poll() is not None:
            return
        os.killpg(self._process.pid, how)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


async def until_idle(engine: Engine) -> None:
    """Returns once nothing runs or waits there. Raises TimeoutError after STOP_S."""
    async with asyncio.timeout(STOP_S):
        while await engine.counted(*IN_FLIGHT):  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.1)


@asynccontextmanager
async def engines(asked: argparse.Namespace, folder: Path) -> AsyncIterator[dict[str, Engine]]:
    """Both servers, up. On a GPU the second starts once the first is up: each looks at what memory
    is free, and would count what the other one takes meanwhile.
    """
    model = asked.model or str(random_llama(folder / "model", layers=asked.layers))
    both = {name: Engine(name, asked, model, folder) for name in (STOCK, CLASS)}
    try:
        for engine in both.values():
            engine.start()
            if asked.device == "gpu":
                await engine.is_up()
        for engine in both.values():
            await engine.is_up()
        yield both
    finally:
        for engine in both.values():
            engine.end()
