"""A submitter who steers: pauses and resumes a batch, changes it, and retries what failed.

Beside client.py, for scenarios with `steers`. What it asks may be answered late or not at all, as
any call; it asks again until the answer is clear. Checks at the end what a tree of retries
promises: joined results have each line once, and a success where any batch of the tree has one.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable
from random import Random
from typing import Any, Final

from lowtide.core.batches.batch import TERMINAL, Batch
from lowtide.core.errors import LowtideError
from lowtide.service.batches.retries import RetryBatch
from lowtide.service.batches.steering import ChangeBatch, PauseBatch
from testkit.sim.client import Insist, Intention, fields_of
from testkit.sim.invariants import Violation
from testkit.sim.node import Node

_PROJECT: Final = "proj_default"
_RETRIES_MAX: Final = 3
_POLL_S: Final = 2.0
_OVER: Final = frozenset({"batch_ended", "batch_failed", "nothing_to_retry", "input_gone"})
"""Refusals after which nothing is left to steer."""


class Steerer:
    """Steers the batch of one intention."""

    def __init__(self, intention: Intention, insist: Insist, random: Random) -> None:
        self._intention = intention
        self._insist = insist
        self._random = random

    async def along(self, batch_id: str) -> None:
        """Pauses, resumes and changes the batch while it may run."""
        try:
            for _ in range(self._random.randint(0, 3)):
                await asyncio.sleep(self._random.uniform(0.0, 6.0))
                await self._hold(batch_id)
        except LowtideError as error:
            if error.code not in _OVER:
                raise

    async def _hold(self, batch_id: str) -> None:
        how = PauseBatch(in_flight=self._random.choice(["finish", "abort"]))
        owner = self._random.choice([_PROJECT, None])
        held = await self._insist(lambda node: node.services.steering.pause(owner, batch_id, how))
        change = ChangeBatch(priority=self._random.choice([0, 5, 9]))
        await self._insist(lambda node: node.services.steering.change(_PROJECT, batch_id, change))
        await asyncio.sleep(self._random.uniform(0.0, 8.0))
        after = await self._insist(lambda node: node.services.steering.resume(owner, batch_id))
        if not held.holds or after.holds:
            raise Violation(f"{batch_id}: holds {held.holds} in a pause, {after.holds} after it")

    async def to_the_end(self, batch_id: str) -> None:
        """Retries the batch until each line has succeeded, or often enough; then reads it all."""
        try:
            for _ in range(_RETRIES_MAX):
                retry_id = await self._retry(batch_id)
                await asyncio.gather(self.along(retry_id), self._follow(retry_id))
        except LowtideError as error:
            if error.code not in _OVER:
                raise
        root, *retries = await self._insist(
            lambda node: node.services.retries.tree(_PROJECT, batch_id)
        )
        for each in retries:  # an answer may have been lost, and its retry gone unseen
            await self._follow(each.id)
        tree = await self._insist(lambda node: node.services.retries.tree(_PROJECT, batch_id))
        self._intention.retries = list(tree[1:])
        if root.status != "failed":
            is_planned = any(each.counts.total for each in tree)
            await self._read_joined(batch_id, self._intention.prompts if is_planned else ())

    async def _retry(self, batch_id: str) -> str:
        asked = RetryBatch(only=self._random.choice(["failed", *["all_unsuccessful"] * 3]))
        try:
            made: Batch = await self._insist(
                lambda node: node.services.retries.retry(_PROJECT, "sim", batch_id, asked)
            )
        except LowtideError as error:
            if error.code != "retry_unfinished":
                raise
            return error.message.split("'")[1]  # an earlier try made it, unheard
        return made.id

    async def _follow(self, batch_id: str) -> Batch:
        while True:
            seen: Batch = await self._insist(
                lambda node: node.services.batches.get(_PROJECT, batch_id)
            )
            if seen.status in TERMINAL:
                return seen
            await asyncio.sleep(_POLL_S)

    async def _read_joined(self, batch_id: str, prompts: Iterable[str]) -> None:
        async def read(node: Node) -> bytes:
            found = await node.services.joined.open(_PROJECT, batch_id, with_retries=True)
            return b"".join([block async for block in found.body])

        lines = [fields_of(line) for line in (await self._insist(read)).splitlines()]
        ids = [line["custom_id"] for line in lines]
        if ids != list(prompts):
            twice = [each for each, count in Counter(ids).items() if count > 1]
            raise Violation(f"{batch_id}: joined results have {len(ids)} lines, twice {twice}")
        self._intention.joined = {line["custom_id"] for line in lines if _is_success(line)}


def _is_success(line: dict[str, Any]) -> bool:
    response = line.get("response")
    return line.get("error") is None and response is not None and response["status_code"] == 200
