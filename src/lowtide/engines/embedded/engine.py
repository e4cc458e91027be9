"""The embedded engine: llama.cpp in a supervised child process, a replica like any other over HTTP.

`wiring` starts one for `--model`; nothing else knows that the replica at its URL is embedded. A
child process, because a native crash must cost one engine and not the server. Invariants: the URL
that `start` returned stays valid for the engine's whole life, across restarts of the child; and no
child outlives this process (see child.py).

What it serves: chat completions, completions, responses, `/health`, `/slots`, `/metrics`;
embeddings too, beside the others, where the model was made for them or `embeddings=True` asks for
it. It is not on by default because llama.cpp then computes an output for every token of a prompt,
which a large vocabulary makes slow. Without it, `/v1/embeddings` answers 501 and says so. The
`model` that a request names is not looked at: any text will do. Closing a connection frees its
slot, but llama.cpp looks for closed ones only after a second without any result: on a busy engine
an aborted call may run to its end.
"""

import asyncio
import os
import socket
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lowtide import limits
from lowtide.engines.embedded import child as child
from lowtide.engines.embedded.bounded_log import BoundedLog
from lowtide.engines.embedded.gguf_header import GgufError, read_header
from lowtide.engines.embedded.process import ChildExit, ChildSpec, run_child

_HOST: Final = "127.0.0.1"


class EngineStartError(Exception):
    """The engine cannot serve. `code` is stable, `message` is for people, `log_path` has the rest.

    Codes: model_not_found, model_not_gguf, model_refused, port_taken, engine_crashed,
    engine_start_timeout.
    """

    def __init__(self, code: str, message: str, log_path: Path) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.log_path = log_path


@dataclass(frozen=True, slots=True)
class Restart:
    """Start the child again after `delay_s`; `failures` ends in a row so far."""

    delay_s: float
    failures: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The engine never served and will not."""

    code: str
    reason: str


def after_exit(end: ChildExit, failures: int, *, has_served: bool) -> Restart | GiveUp:
    """Decides what follows when a child has ended that was not asked to.

    An engine that has served is restarted for ever, at a falling rate: its model is known to be
    good. One that never served gives up at once when llama.cpp refused the model, and after some
    crashes otherwise, so that `start` can say why.
    """
    if end.served_s is not None and end.served_s >= limits.EMBEDDED_STEADY_S:
        failures = 0
    failures += 1
    is_hopeless = end.code == child.MODEL_REFUSED or failures >= limits.EMBEDDED_START_ATTEMPTS
    if not has_served and is_hopeless:
        return GiveUp(end.code, end.reason)
    doublings = min(failures - 1, 16)  # keeps the power small; the bound is reached long before
    delay_s = limits.EMBEDDED_RESTART_BACKOFF_S * 2**doublings
    return Restart(min(delay_s, limits.EMBEDDED_RESTART_BACKOFF_S_MAX), failures)


def threads_for(model_bytes: int, cpu_count: int) -> int:
    """Decoding threads: one for a toy model, otherwise half the CPUs.

    Measured with the random model on two CPUs: 11,500 tokens a second with one thread, 12,900 with
    two for 50% more CPU time. A real model is bound by memory bandwidth: hyper-threads add
    nothing.
    """
    if model_bytes <= limits.EMBEDDED_ONE_THREAD_BYTES:
        return 1
    return max(1, cpu_count // 2)


class EmbeddedEngine:
    """One model served by one child process. `start` once, `aclose` once.

    `start` must run on a thread that lives as long as the engine: Linux ties the child to it.
    """

    def __init__(
        self,
        model_path: Path,
        *,
        model_id: str,
        log_path: Path,
        slots: int = limits.EMBEDDED_SLOTS,
        context: int | None = None,
        threads: int | None = None,
        embeddings: bool | None = None,
        api_key: str | None = None,
    ) -> None:
        """`api_key` is what callers need; None lets every program on this machine call the engine.
        `context` is tokens per slot, at most the model's own. None is a choice made here.

        `threads` None follows `threads_for`; `embeddings` None means: if the model is made for it.
        """
        self._model_path = model_path
        self._model_id = model_id
        self._log_path = log_path
        self._slots = slots
        self._context = context or limits.EMBEDDED_CONTEXT_TOKENS
        self._threads = threads
        self._embeddings = embeddings
        self._api_key = api_key
        self._ready = asyncio.Event()
        self._port = 0
        self._reserved: socket.socket | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._pid: int | None = None

    @property
    def url(self) -> str:
        """Base URL of the replica: from `start` on, the same for ever after."""
        return f"http://{_HOST}:{self._port}/v1"

    @property
    def pid(self) -> int | None:
        """Process id of the child that serves; None while none does."""
        return self._pid

    async def start(self) -> str:
        """Starts the child, waits until it serves, returns the base URL.

        Raises EngineStartError, and OSError when the log cannot be written; nothing runs on then.
        """
        spec = self._spec()
        log = BoundedLog(self._log_path)
        self._reserve_port()
        async with AsyncExitStack() as undo:
            undo.push_async_callback(self.aclose)
            self._supervisor = asyncio.create_task(self._supervise(spec, log), name="embedded")
            ready = asyncio.create_task(self._ready.wait())
            undo.callback(ready.cancel)
            await asyncio.wait((ready, self._supervisor), return_when=asyncio.FIRST_COMPLETED)
            if self._supervisor.done():
                await self._supervisor  # raises
            undo.pop_all()
        return self.url

    async def aclose(self) -> None:
        """Ends the child and waits until it has ended. Calls in flight break. Safe to call
        twice.
        """
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait((self._supervisor,))
        if self._reserved is not None:
            self._reserved.close()

    def _spec(self) -> ChildSpec:
        path = self._model_path
        try:
            header = read_header(path)
            model_bytes = path.stat().st_size
        except OSError as exc:
            raise self._error("model_not_found", f"cannot read {path}: {exc.strerror}") from exc
        except GgufError as exc:
            raise self._error("model_not_gguf", f"{path} is not a GGUF model: {exc}") from exc
        pooling = child.POOL_AS_TRAINED if header.pools else child.POOL_MEAN
        serves_embeddings = header.pools if self._embeddings is None else self._embeddings
        return ChildSpec(
            model_path=path,
            model_id=self._model_id,
            slots=self._slots,
            context=min(self._context, header.context_tokens),
            threads=self._threads or threads_for(model_bytes, os.cpu_count() or 1),
            pooling=pooling if serves_embeddings else None,
            api_key=self._api_key,
        )

    def _error(self, code: str, message: str) -> EngineStartError:
        return EngineStartError(code, message, self._log_path)

    def _reserve_port(self) -> None:
        """Chooses the port, and on Linux keeps it: bound here, never listening.

        SO_REUSEADDR shares it with the child, and no other program is given it meanwhile.
        Elsewhere two sockets cannot share an address like this; a port lost between two children
        shows as `port_taken`.
        """
        if self._reserved is not None:
            self._reserved.close()
        self._reserved = socket.socket()
        self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._reserved.bind((_HOST, 0))
        self._port = self._reserved.getsockname()[1]
        if sys.platform != "linux":
            self._reserved.close()

    async def _supervise(self, spec: ChildSpec, log: BoundedLog) -> None:
        """Keeps a child alive until cancelled. Raises EngineStartError when it gives up."""
        failures = 0
        has_served = False
        try:
            while True:
                end = await run_child(
                    spec.command(self._port), log, self._serving, spec.environment
                )
                self._not_serving()
                has_served = has_served or end.served_s is not None
                match after_exit(end, failures, has_served=has_served):
                    case GiveUp(code, reason):
                        text = f"no engine for {spec.model_path}: {reason} (log: {self._log_path})"
                        raise self._error(code, text)
                    case Restart(delay_s, failures):
                        if not has_served and end.code == child.PORT_TAKEN:
                            self._reserve_port()  # nobody knows the old one yet
                        await asyncio.sleep(delay_s)
        finally:
            self._not_serving()
            log.close()

    def _serving(self, pid: int) -> None:
        self._pid = pid
        self._ready.set()

    def _not_serving(self) -> None:
        self._pid = None
        self._ready.clear()
