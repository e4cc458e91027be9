"""The tasks that fill places in windows, and what each is busy with.

The dispatcher starts them and is told when they end. Invariant: a task is listed once, under the
replica that it sends to, from its start until its callback has run.
"""

import asyncio
from collections.abc import Collection, Sequence

import msgspec

from lowtide.core.batches.chunk import ChunkKey
from lowtide.core.dispatch.request import Request


class WindowSlot(msgspec.Struct, eq=False):
    """What a task is busy with, and on which replica; `in_flight` from `take` until the outcome is
    settled. A `revoked` request goes back to its chunk."""

    request: Request
    replica_name: str
    in_flight: bool = True
    revoked: bool = False


class Slots:
    """The tasks of one worker, and the requests that they have in flight."""

    def __init__(self) -> None:
        self.tasks: dict[asyncio.Task[None], WindowSlot] = {}
        self._by_replica: dict[str, dict[asyncio.Task[None], WindowSlot]] = {}

    def add(self, task: asyncio.Task[None], slot: WindowSlot) -> None:
        self.tasks[task] = slot
        self._by_replica.setdefault(slot.replica_name, {})[task] = slot

    def pop(self, task: asyncio.Task[None]) -> WindowSlot:
        """Removes a task that has ended. Returns what it was busy with last."""
        slot = self.tasks.pop(task)
        del self._by_replica[slot.replica_name][task]
        return slot

    def calls_on(self, replica_name: str) -> list[Request]:
        """The requests in flight on that replica."""
        slots = self._by_replica.get(replica_name, {}).values()
        return [slot.request for slot in slots if slot.in_flight and not slot.revoked]

    def revoke(self, replica_name: str, requests: Sequence[Request]) -> None:
        """Aborts these calls; each request is to be the next of its chunk again."""
        wanted = {id(request) for request in requests}
        for task, slot in self._by_replica.get(replica_name, {}).items():
            if slot.in_flight and id(slot.request) in wanted and not task.done():
                slot.revoked = True
                task.cancel()

    def chunks(self, replica_names: Collection[str] | None = None) -> set[ChunkKey]:
        """The chunks of the requests in flight, on those replicas or on any."""
        return {
            slot.request.run.key
            for slot in self.tasks.values()
            if slot.in_flight and (replica_names is None or slot.replica_name in replica_names)
        }

    def cancel(self, key: ChunkKey) -> None:
        """Aborts what is in flight of the chunk."""
        for task, slot in self.tasks.items():
            if slot.request.run.key == key and not task.done():
                task.cancel()

    async def wait(self, within_s: float) -> None:
        """Waits so long for all of them to end."""
        if self.tasks:
            await asyncio.wait(list(self.tasks), timeout=within_s)

    async def cancel_all(self) -> None:
        pending = list(self.tasks)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
