"""Engines as they are in the field, as real processes: what is wrong with them, until it is mended.

Each scenario plants one condition at one engine or at both while batches run, and mends it after
some seconds; some give the batches lines that fail wherever they go, or that take long. Afterwards
no good line may have ended as an error, and no line but those may have (verdict.py).
"""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from client import Job, Watch, WrongAnswer
from engine import FAILS, LONG
from faults import Fault
from houses import House, condition_of
from rounds import HEARD_S, Plague

GOING_S: Final = 30.0
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
}


def plague_of(name: str) -> Plague:
    """The scenario `name`."""
    condition = SCENARIOS[name]

    async def plague(
        house: House, jobs: Sequence[Job], watch: Watch, random: Random, faults: list[Fault]
    ) -> None:
        if not await watch.until(lambda: any(job.settled > 20 for job in jobs), GOING_S):
            raise WrongAnswer("nothing has settled")
        engines = [child.name for child in house.of_role("engine")]
        ailing = random.sample(engines, random.randint(1, len(engines)))
        if name == "balancer":
            ailing = ailing[:1]  # or nobody could answer the long ones
        rests_s = random.uniform(2.0, 6.0)
        if condition.answer is None:
            return
        at = time.monotonic()
        for engine in ailing:
            condition_of(house.folder, engine).write_text(json.dumps(condition.answer))
        try:
            await asyncio.sleep(rests_s)
        finally:
            for engine in ailing:
                condition_of(house.folder, engine).unlink()
        mended_at = time.monotonic()
        until = mended_at + HEARD_S
        faults.append(Fault(name, "+".join(ailing), at, "dispatch", mended_at, mended_at, until))

    return plague
