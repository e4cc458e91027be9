"""Live calls beside batches: each is answered, and soon, whatever the lines of a batch do.

`simulation.py` plays a caller where the scenario has one (duel.py): nothing befalls its engines
there, so that a refusal or a wait can only come from what Lowtide made of a batch's lines.
"""

import asyncio
from collections.abc import Callable
from itertools import count
from typing import Final

import msgspec

from lowtide.core.errors import LowtideError
from lowtide.core.live.live import LiveAnswer
from testkit.sim.client import ApiClient
from testkit.sim.field import LIVE
from testkit.sim.invariants import Violation
from testkit.sim.node import Node, Unreachable
from testkit.sim.trace import Trace

ANSWERED_S: Final = 2.0
"""Virtual seconds a live call may take: many times the mean of the slowest engine of a duel."""


class LiveCaller:
    """One user who calls again and again."""

    def __init__(
        self, api: ApiClient, gap_s: float, trace: Trace, fail: Callable[[Violation], None]
    ) -> None:
        """`gap_s` lies between an answer and the next call. `fail` is told of a broken promise."""
        self._api = api
        self._gap_s = gap_s
        self._trace = trace
        self._fail = fail

    async def run(self) -> None:
        """Calls for ever; cancel it when no more is needed."""
        for number in count(1):
            await asyncio.sleep(self._gap_s)
            try:
                await self._call(number)
            except Unreachable:  # not up yet, or no more
                self._trace.count("live calls before the API is up")

    async def _call(self, number: int) -> None:
        body = msgspec.json.encode(
            {"model": "m0", "messages": [{"role": "user", "content": f"{LIVE}-{number}"}]}
        )

        async def answer(node: Node) -> LiveAnswer:
            return await node.answer_live(body)

        begun_s = asyncio.get_running_loop().time()
        try:
            status = (await self._api.call(answer)).status
        except LowtideError as error:
            self._fail(Violation(f"live call {number} failed: {error.code}: {error}"))
            return
        took_s = asyncio.get_running_loop().time() - begun_s
        if status != 200 or took_s > ANSWERED_S:
            self._fail(Violation(f"live call {number} got {status} after {took_s:.2f} s"))
        self._trace.count("live calls answered")
