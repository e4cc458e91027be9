"""Single calls at the price of a batch, their callers waiting: gather, queue, hold, answer.

Called by the live API for `service_tier: "flex"`. Calls of one key and endpoint that come within
`FLEX_GATHER_S` become one batch (a call group), which is planned, run, settled and charged like any
other; `deliver_results`, ticked by loops/live/flex_results.py, gives each result to its caller as
soon as a commit has made it durable. Invariants: a caller gets an answer only after it is charged,
exactly once; a group whose callers have all left is cancelled; nothing is held beyond
`FLEX_HOLD_S`.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from lowtide import limits
from lowtide.core.batches.batch import Batch, Status
from lowtide.core.errors import LowtideError
from lowtide.core.live.flex import FlexCall, answer_to, read_result
from lowtide.core.live.live import LiveAnswer
from lowtide.core.scheduling.byte_budget import ByteBudget
from lowtide.ports.blobs import BlobError, Blobs
from lowtide.ports.flex import FlexStatus
from lowtide.ports.store import Store, StoreError
from lowtide.service.live.flex_queue import FlexQueue, FlexSubmission, unavailable
from lowtide.service.off_loop import off_loop

Key = tuple[str, str, str]
"""Project, user and endpoint: what the calls of one group have in common."""


class _WaitingCall:
    """A call and its caller."""

    def __init__(self, call: FlexCall, organization_id: str) -> None:
        self.call = call
        self.organization_id = organization_id
        self.answer: asyncio.Future[LiveAnswer] = asyncio.get_running_loop().create_future()
        self.answer.add_done_callback(_seen)

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)

    def end(self, outcome: LiveAnswer | LowtideError) -> None:
        if isinstance(outcome, LowtideError):
            self.fail(outcome)
        elif not self.answer.done():
            self.answer.set_result(outcome)


class _CallGroup:
    """Calls that became, or will become, one batch. Line numbers count its calls from 1."""

    def __init__(self, key: Key) -> None:
        self.key = key
        self.calls: list[_WaitingCall] = []
        self.present: set[_WaitingCall] = set()
        self.bytes = 0
        self.batch: Batch | None = None
        self.slices_read = 0

    @property
    def waits(self) -> bool:
        return any(not held.answer.done() for held in self.calls)

    def fail(self, error: Exception) -> None:
        for held in self.calls:
            held.fail(error)


class FlexService:
    """Collects flex calls into batches and holds them until their results are there. One per
    process with an HTTP API; its callers' groups are its own. `wake` asks for that soon.
    """

    def __init__(
        self,
        queue: FlexQueue,
        store: Store,
        blobs: Blobs,
        wake: Callable[[], None] = lambda: None,
        *,
        hold_s: float = limits.FLEX_HOLD_S,
        gather_s: float = limits.FLEX_GATHER_S,
    ) -> None:
        self._queue = queue
        self._store = store
        self._blobs = blobs
        self._hold_s = hold_s
        self._gather_s = gather_s
        self._gathering: dict[Key, _CallGroup] = {}
        self._groups: dict[str, _CallGroup] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._places = ByteBudget(limits.FLEX_HELD_MAX)
        self._draining = False
        self._wake = wake

    async def forget_lost(self) -> None:
        """Cancels what callers of an earlier process waited for: they have gone with it. Call it
        only where no other process runs, whose callers may be waiting.
        """
        for batch in await self._store.flex.awaited():
            await self._queue.cancel(batch)

    def begin_drain(self) -> None:
        """Stops holding calls: those that wait get an error, and their batches are cancelled."""
        self._draining = True
        for group in [*self._gathering.values(), *self._groups.values()]:
            group.fail(_stopping())

    async def aclose(self) -> None:
        """Waits for a bounded time until what callers left behind is cancelled."""
        self.begin_drain()
        with suppress(TimeoutError):
            async with asyncio.timeout(limits.DRAIN_S):
                while self._tasks:  # whoever makes a batch for nobody goes on to cancel it
                    await asyncio.wait(self._tasks)

    async def hold(
        self, project_id: str, user_id: str, call: FlexCall, *, organization_id: str
    ) -> LiveAnswer:
        """The answer to a call, however long it takes up to `hold_s`. Cancel it when
        the caller leaves.

        Raises LowtideError, StoreError, BlobError.
        """
        if self._draining:
            raise _stopping()
        if not self._places.take(organization_id, 1):
            raise self._no_place(organization_id)
        try:
            plan = await self._queue.check(project_id, call)
            await self._queue.check_within(call, plan, self._hold_s)
            held = _WaitingCall(call, organization_id)
            return await self._wait((project_id, user_id, call.endpoint), held)
        finally:
            self._places.give_back(organization_id, 1)

    async def deliver_results(self) -> bool:
        """Delivers the results that are there. Returns whether calls still wait. Raises
        StoreError, BlobError.
        """
        for batch_id, group in list(self._groups.items()):
            if not group.waits:
                del self._groups[batch_id]
        if not self._groups:
            return False
        standing = await self._store.flex.standing(list(self._groups))
        for batch_id, group in list(self._groups.items()):
            if batch_id in standing:  # one may have come meanwhile
                await self._serve(group, batch_id, standing[batch_id])
        return True

    async def _wait(self, key: Key, held: _WaitingCall) -> LiveAnswer:
        group = self._add(key, held)
        try:
            async with asyncio.timeout(self._hold_s):
                return await held.answer
        except TimeoutError:
            raise unavailable(f"its turn did not come within {self._hold_s / 60:g} min") from None
        finally:
            self._remove(group, held)

    def _no_place(self, organization_id: str) -> LowtideError:
        if self._places.is_full:
            return unavailable("too many calls wait already")
        return LowtideError(
            "rate_limit_exceeded",
            f"Too many flex calls of organization {organization_id} wait already: it may have as"
            " many as are left free for others. Wait for answers before sending more, or send a"
            " batch.",
            retry_after_s=limits.FLEX_RETRY_AFTER_S,
        )

    # -- a party's life ----------------------------------------------------------------------------

    def _add(self, key: Key, held: _WaitingCall) -> _CallGroup:
        group = self._gathering.get(key)
        if group is None:
            group = self._gathering[key] = _CallGroup(key)
            loop = asyncio.get_running_loop()
            loop.call_later(self._gather_s, self._submit_group, group)
        group.calls.append(held)
        group.present.add(held)
        group.bytes += held.call.size
        if len(group.calls) == limits.FLEX_LINES_MAX or group.bytes >= limits.FLEX_GATHER_BYTES_MAX:
            self._submit_group(group)
        return group

    def _remove(self, group: _CallGroup, held: _WaitingCall) -> None:
        group.present.discard(held)
        held.answer.cancel()
        if not group.present and group.batch is not None:
            self._end(group)

    def _end(self, group: _CallGroup) -> None:
        """Ends a group that no caller waits for any more, and cancels what was not answered."""
        assert group.batch is not None
        self._groups.pop(group.batch.id, None)
        if any(held.answer.cancelled() or held.answer.exception() for held in group.calls):
            self._start(self._queue.cancel(group.batch))

    def _submit_group(self, group: _CallGroup) -> None:
        """Closes the group to new calls and submits it as one batch."""
        if self._gathering.get(group.key) is not group:
            return  # it was full before its time was over
        del self._gathering[group.key]
        group.calls = [held for held in group.calls if held in group.present]
        if group.calls:
            self._start(self._submit(group))

    async def _submit(self, group: _CallGroup) -> None:
        project_id, user_id, endpoint = group.key
        order = FlexSubmission(
            project_id=project_id,
            user_id=user_id,
            endpoint=endpoint,
            flex="awaited",
            calls=[held.call for held in group.calls],
            window_s=int(limits.FLEX_HOLD_S),
            keep_s=limits.FLEX_KEEP_S,
        )
        try:
            group.batch = await self._queue.submit(order)
        except (LowtideError, StoreError, BlobError) as error:
            group.fail(error)
            return
        if not group.present:
            self._end(group)
            return
        if self._draining:
            group.fail(_stopping())
        self._groups[group.batch.id] = group
        self._wake()

    async def _serve(self, group: _CallGroup, batch_id: str, standing: FlexStatus) -> None:
        if standing.slices > group.slices_read:
            await self._read(group, batch_id)
        if standing.holds:
            group.fail(
                LowtideError("resource_unavailable", "The organization's spend cap is reached.")
            )
        elif (why := _ended(standing.status)) is not None:
            group.fail(why)

    async def _read(self, group: _CallGroup, batch_id: str) -> None:
        """Delivers the results of all slices that are new."""
        rows = await self._store.results.slices(batch_id, after_seq=group.slices_read - 1)
        calls = [held.call for held in group.calls]
        for row in rows:
            size = row.ok_bytes + row.failed_bytes
            data = await self._blobs.read(row.segment_key, row.offset, size)
            for line in data.splitlines():
                owner = group.calls[0].organization_id
                number, outcome = await off_loop(owner, len(line), _read_line, calls, line)
                group.calls[number - 1].end(outcome)
            group.slices_read = row.seq + 1

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _read_line(calls: Sequence[FlexCall], line: bytes) -> tuple[int, LiveAnswer | LowtideError]:
    """The number of the call that a result line is for, and the answer or error for its caller."""
    result = read_result(line)
    try:
        return result.number, answer_to(calls[result.number - 1], result)
    except LowtideError as error:
        return result.number, error


def _seen(answer: "asyncio.Future[LiveAnswer]") -> None:
    """Marks an exception as retrieved: a caller that has left does not ask for it, and
    asyncio would log it.
    """
    if not answer.cancelled():
        answer.exception()


def _stopping() -> LowtideError:
    return LowtideError(
        "server_stopping",
        "The server is being stopped. The call was not run and costs nothing: send it again.",
        retry_after_s=limits.UNAVAILABLE_RETRY_AFTER_S,
    )


def _ended(status: Status) -> LowtideError | None:
    """Why a call that has no result will get none; None while it may."""
    match status:
        case "validating" | "in_progress":
            return None
        case "expiring" | "expired":
            return unavailable("its turn did not come in time")
        case "cancelling" | "cancelled":
            return unavailable("its batch was cancelled")
        case _:
            return LowtideError("engine_error", "The call was lost in the queue. Send it again.")
