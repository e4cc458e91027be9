"""A Ray Serve deployment with one engine process in each replica.

Named as `import_path` in serve.yaml, which gives `engine` its arguments. A replica starts the
engine on a free port of its own machine, waits until it answers, and passes each call through.
Invariants: a replica whose engine has died is ill, so Ray replaces it; an engine never outlives its
replica.
"""

import ctypes
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import httpx
from fastapi import FastAPI, Request
from ray import serve
from starlette.responses import Response, StreamingResponse

LOOK_S: Final = 0.2
STOP_S: Final = 20.0
_OF_ONE_CONNECTION: Final = frozenset(
    {"connection", "content-length", "host", "keep-alive", "transfer-encoding", "upgrade"}
)
_PR_SET_PDEATHSIG: Final = 1

api = FastAPI()


# Ray pickles the class where it stands: what it uses stands before it.


async def _blocks(reply: httpx.Response) -> AsyncIterator[bytes]:
    """The answer; the call at the engine ends with its reader."""
    try:
        async for block in reply.aiter_raw():
            yield block
    finally:
        await reply.aclose()


def _passed_on(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name not in _OF_ONE_CONNECTION}


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _end_with_the_replica() -> None:
    """Runs in the new process: a replica that is killed cannot end its engine."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() == 1:  # it was killed before that
            os.kill(os.getpid(), signal.SIGTERM)


@serve.deployment(name="Engine")
@serve.ingress(api)
class Engine:
    """One replica: an engine process, and the way to it."""

    def __init__(self, command: str, start_s: float) -> None:
        """`command`: what starts the engine, with `{port}` where its port goes. `start_s`: until it
        has to answer. Raises RuntimeError where it does not.
        """
        port = _free_port()
        words = [word.format(port=port) for word in shlex.split(command)]
        self._process = subprocess.Popen(words, preexec_fn=_end_with_the_replica)
        self._url = f"http://127.0.0.1:{port}"
        # Ray bounds how many calls a replica has, and its caller how long it waits for an answer.
        self._client = httpx.AsyncClient(
            base_url=self._url,
            timeout=None,
            trust_env=False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=1000),
        )
        self._wait(start_s)

    def _wait(self, start_s: float) -> None:
        end_s = time.monotonic() + start_s
        with httpx.Client(base_url=self._url, trust_env=False) as client:
            while time.monotonic() < end_s:
                if self._process.poll() is not None:
                    raise RuntimeError(f"the engine ended with code {self._process.returncode}")
                try:
                    if client.get("/v1/models").status_code == 200:
                        return
                except httpx.TransportError:
                    pass  # it loads
                time.sleep(LOOK_S)
        self._end()
        raise RuntimeError(f"the engine did not answer within {start_s:g} s")

    def check_health(self) -> None:
        """Asked by Ray every `health_check_period_s`. Raises RuntimeError."""
        if self._process.poll() is not None:
            raise RuntimeError(f"the engine ended with code {self._process.returncode}")

    @api.api_route("/{path:path}", methods=["GET", "POST"])
    async def forward(self, path: str, request: Request) -> Response:
        """Passes a call to the engine, and its answer back as it comes."""
        sent = self._client.build_request(
            request.method,
            f"/{path}",
            params=request.query_params.multi_items(),
            headers=_passed_on(request.headers),
            content=await request.body(),
        )
        try:
            reply = await self._client.send(sent, stream=True)
        except httpx.TransportError as error:
            return Response(f"the engine of this replica is away: {error}", 502)
        return StreamingResponse(_blocks(reply), reply.status_code, _passed_on(reply.headers))

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def __del__(self) -> None:
        if hasattr(self, "_process"):
            self._end()


def engine(arguments: dict[str, Any]) -> serve.Application:
    """The application; `arguments` are `args` of serve.yaml."""
    command = arguments.get("command")
    if not isinstance(command, str) or "{port}" not in command:
        raise ValueError("args.command: what starts the engine, with {port} where its port goes")
    return Engine.bind(command, float(arguments.get("start_s", 1800)))
