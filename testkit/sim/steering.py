"""A submitter who steers: pauses and resumes a batch, changes it, retries what failed, deletes it.

Beside client.py, for scenarios with `steers`. What it asks may be answered late or not at all, as
any call; it asks again until the answer is clear. Checks at the end what a tree of retries
promises: joined results have each line once, and a success where any batch of the tree has one.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable
from datetime import timedelta
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
_DELETED: Final = 0.4
"""How often a batch is deleted once it was retried."""
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
        await self._change(batch_id)
        await asyncio.sleep(self._random.uniform(0.0, 8.0))
        after = await self._insist(lambda node: node.services.steering.resume(owner, batch_id))
        if not held.holds or after.holds:
            raise Violation(f"{batch_id}: holds {held.holds} in a pause, {after.holds} after it")

    async def _change(self, batch_id: str) -> None:
        """Changes priority, window and metadata, or some of them. The window only grows: so the
        batch may end as it might have before."""
        number, draw = str(self._intention.number), self._random
        metadata = {"intention": number, "change": str(draw.randrange(100))}
        change = ChangeBatch(
            priority=draw.choice([None, 0, 5, 9]),
            completion_window=draw.choice([None, "48h", "72h"]),
            metadata=draw.choice([None, metadata]),
        )
        seen: Batch = await self._insist(
            lambda node: node.services.steering.change(_PROJECT, batch_id, change)
        )
        if change.metadata is not None and seen.metadata != metadata:
            raise Violation(f"{batch_id}: changed to {metadata}, and answered {seen.metadata}")
        if change.priority is not None and seen.priority != change.priority:
            raise Violation(f"{batch_id}: changed to {change.priority}, answered {seen.priority}")
        if seen.expires_at != seen.created_at + timedelta(seconds=seen.completion_window_s):
            raise Violation(f"{batch_id}: {seen.completion_window_s} s ends at {seen.expires_at}")

    async def to_the_end(self, batch_id: str) -> None:
        """Retries the batch until each line has succeeded, or often enough; then reads it all."""
        try:
            last = batch_id
            for _ in range(_RETRIES_MAX):
                earlier, last = last, await self._retry(last)
                await asyncio.gather(self.along(last), self._follow(last))
                if self._random.random() < _DELETED:
                    await self._delete(earlier)
        except LowtideError as error:
            if error.code not in _OVER:
                raise
        tree = await self._tree(last)
        for each in tree[1:]:  # an answer may have been lost, and its retry gone unseen
            if each.id not in self._intention.deleted:
                await self._follow(each.id)
        tree = await self._tree(last)
        self._intention.retries = list(tree[1:])
        if tree[0].status != "failed" and not self._intention.deleted:
            is_planned = any(each.counts.total for each in tree)
            await self._read_joined(batch_id, self._intention.prompts if is_planned else ())

    async def _tree(self, batch_id: str) -> list[Batch]:
        found = await self._insist(lambda node: node.services.retries.tree(_PROJECT, batch_id))
        return list(found)

    async def _delete(self, batch_id: str) -> None:
        """Deletes a batch that has ended, once all it had to tell is known."""
        batch = await self._follow(batch_id)
        lines = await self._output_of(batch)
        if lines is None:
            return  # a clock that is ahead let it go before
        self._intention.deleted[batch_id] = lines
        try:
            await self._insist(lambda node: node.services.steering.delete(_PROJECT, batch_id))
        except LowtideError as error:  # an earlier try did it, unheard
            if error.code != "batch_not_found":
                raise

        async def is_there(node: Node) -> bool:
            try:
                await node.services.batches.get(_PROJECT, batch_id)
            except LowtideError as error:
                return error.code != "batch_not_found"
            return True

        if await self._insist(is_there):
            raise Violation(f"{batch_id} was deleted, and is there")

    async def _output_of(self, batch: Batch) -> list[bytes] | None:
        """The lines of its output; None where they are gone."""
        file_id = batch.output_file_id
        if file_id is None:
            return []

        async def read(node: Node) -> bytes:
            file = await node.services.files.get(_PROJECT, file_id)
            content = await node.services.results.open(_PROJECT, file, 0)
            return b"".join([block async for block in content.body])

        try:
            found: bytes = await self._insist(read)
        except LowtideError:
            return None
        return found.splitlines(keepends=True)

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
