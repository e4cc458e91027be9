"""Keeps a benchmark of several parts within a time that was promised.

Called by `bench.step_bound_vllm`. A part that no longer fits is left out and named, and one that
takes longer than is left ends, so that the tables of the others are printed in time.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

Found = TypeVar("Found")


class TimeLimit:
    """From its making on. `left_out`: the parts that were not done, each with why."""

    def __init__(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds
        self.left_out: list[str] = []

    async def run(
        self, name: str, takes_s: float, part: Callable[[], Awaitable[Found]]
    ) -> Found | None:
        """What the part returns; None where it was left out. `takes_s`: what is expected."""
        left_s = self._until - time.monotonic()
        if takes_s > left_s:
            self._leave_out(f"{name}: it takes {takes_s:.0f} s, and {max(0, left_s):.0f} are left")
            return None
        print(f"{name}, {takes_s:.0f} s", file=sys.stderr, flush=True)
        try:
            async with asyncio.timeout(left_s):
                return await part()
        except TimeoutError:
            self._leave_out(f"{name}: it did not end in time")
            return None

    def _leave_out(self, why: str) -> None:
        self.left_out.append(why)
        print(f"left out: {why}", file=sys.stderr, flush=True)
