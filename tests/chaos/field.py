"""Engines as they are in the field, as real processes: what is wrong with them, until it is mended.

Each scenario plants one condition at one engine or at both while batches run, and mends it after
some seconds; some give the batches lines that fail wherever they go, or that take long. The name of
each engine has two addresses of which the first is dead: it refuses, and in one scenario it is
silent while the engines are started again. Afterwards no good line may have ended as an error, and
no line but those may have (verdict.py).
"""

import asyncio
import json
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from client import Job, Watch, WrongAnswer
from engine import FAILS, LONG
from faults import Fault
from installations import DEAD_ADDRESS, Env, condition_of
from rounds import HEARD_S, Plague, restart

GOING_S: Final = 30.0
SERIAL_S: Final = 0.2
"""What a serial engine takes for one answer: some seven times as long as the others."""
DEAD: Final = "dead-address"
_JSON: Final = "application/json"
_PAGE: Final = "<html><head><title>%s</title></head><body>nginx</body></html>"


@dataclass(frozen=True, slots=True)
class Condition:
    """`answer` is what an engine says to everything; None: nothing is wrong but the lines."""

    answer: Mapping[str, Any] | None
    marks: Mapping[str, float] = field(default_factory=dict)


def _says(status: int, body: str, kind: str = _JSON) -> Condition:
    return Condition({"status": status, "body": body, "type": kind}, {FAILS: 0.01})


SCENARIOS: Final[Mapping[str, Condition]] = {
    "key-refused": _says(401, '{"error":{"message":"Incorrect API key provided"}}'),
    "model-unknown": _says(404, '{"object":"error","message":"The model `m` does not exist."}'),
    "path-unknown": _says(404, '{"detail":"Not Found"}'),
    "quota-spent": _says(429, '{"error":{"message":"no","code":"insufficient_quota"}}'),
    "web-page": _says(200, _PAGE % "Sign in", "text/html"),
    "gateway-502": _says(502, _PAGE % "502 Bad Gateway", "text/html"),
    "gateway-504": _says(504, _PAGE % "504 Gateway Time-out", "text/html"),
    "error-in-200": _says(200, '{"error":{"message":"CUDA error: out of memory"}}'),
    "lines-that-fail": Condition(None, {FAILS: 0.02}),
    "balancer": Condition({"cut_after_s": 6.0}, {LONG: 0.01}),
    "serial-queue": Condition({"serial_s": SERIAL_S, "busy": "wait"}),
    "serial-refusal": Condition({"serial_s": SERIAL_S, "busy": "refuse"}),
    DEAD: Condition(None),
}


def plague_of(name: str) -> Plague:
    """The scenario `name`."""
    if name == DEAD:
        return _dead_address
    condition = SCENARIOS[name]

    async def plague(
        env: Env, jobs: Sequence[Job], watch: Watch, random: Random, faults: list[Fault]
    ) -> None:
        if not await watch.until(lambda: any(job.settled > 20 for job in jobs), GOING_S):
            raise WrongAnswer("nothing has settled")
        engines = [child.name for child in env.of_role("engine")]
        ailing = random.sample(engines, random.randint(1, len(engines)))
        if name == "balancer":
            ailing = ailing[:1]  # or nobody could answer the long ones
        rests_s = random.uniform(2.0, 6.0)
        if condition.answer is None:
            return
        at = time.monotonic()
        for engine in ailing:
            condition_of(env.folder, engine).write_text(json.dumps(condition.answer))
        try:
            await asyncio.sleep(rests_s)
        finally:
            for engine in ailing:
                condition_of(env.folder, engine).unlink()
        mended_at = time.monotonic()
        until = mended_at + HEARD_S
        faults.append(Fault(name, "+".join(ailing), at, "dispatch", mended_at, mended_at, until))

    return plague


async def _dead_address(
    env: Env, jobs: Sequence[Job], watch: Watch, random: Random, faults: list[Fault]
) -> None:
    """While the first address of every engine swallows what is sent to it, one engine after the
    other is killed and started again: each connection has to be opened anew, past that address.
    """
    if not await watch.until(lambda: any(job.settled > 20 for job in jobs), GOING_S):
        raise WrongAnswer("nothing has settled")
    with ExitStack() as stack:
        for port in env.engine_ports.values():
            stack.enter_context(silent(DEAD_ADDRESS, port))
        engines = env.of_role("engine")
        for engine in random.sample(engines, len(engines)):
            faults.append(await restart(engine, "engine", "dispatch", random.random() * 0.3))
            await asyncio.sleep(random.uniform(1.0, 2.0))


@contextmanager
def silent(host: str, port: int) -> Iterator[None]:
    """Whoever connects there hears nothing: its queue is full, and the system drops what comes."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind((host, port))
        listening.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex((host, port))
        asker = stack.enter_context(socket.socket())
        asker.settimeout(0.2)
        with suppress(TimeoutError):
            asker.connect((host, port))
            raise RuntimeError(f"{host} answers although its queue is full")
        yield
