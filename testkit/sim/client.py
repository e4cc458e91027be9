"""A submitter and its batches: upload, create, repeat, watch, read along, cancel, delete.

It lives outside of all processes and is never at fault: what it gets no answer to, it asks again as
an SDK would. What it saw and what it asked for is what `final_check.py` holds the result files
against.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime
from itertools import chain, repeat
from random import Random
from typing import Any, Final, Protocol, TypeVar

import msgspec

from lowtide import limits
from lowtide.core.batches.batch import TERMINAL, Batch, Status, error_file_id, output_file_id
from lowtide.core.errors import LowtideError
from lowtide.ports.blobs import BlobError
from lowtide.ports.store import StoreError
from lowtide.service.batches.new_batch import NewBatch
from lowtide.service.idempotency.idempotency import request_key
from testkit.sim.fault_kinds import FaultKind
from testkit.sim.invariants import Violation
from testkit.sim.node import Node, Unreachable, uploader
from testkit.sim.receivers import OWN_URL
from testkit.sim.scenario import Scenario
from testkit.sim.trace import Trace

T = TypeVar("T")

_PROJECT: Final = "proj_default"
_ERRORS = (Unreachable, StoreError, BlobError)
_POLL_S: Final = 4.0
STANDSTILL_S: Final = 40.0
"""Virtual seconds in which no request of a batch moved, after which its object gives a reason."""


class Intention(msgspec.Struct, kw_only=True):
    """One batch as its submitter means it, and what became of it."""

    number: int
    content: bytes
    prompts: dict[str, str]
    """custom_id -> prompt, in the order of the file."""
    models: dict[str, str]
    valid: bool
    dialect: str
    window: str
    priority: int
    begins_s: float
    cancels_after_s: float | None
    deletes_input: bool
    repeats: bool
    reads: bool
    webhook: bool = False
    """Whether it names an address of its own for the event of its end."""
    key: str | None = None
    """The idempotency key that its creates are sent with."""
    batch: Batch | None = None
    asked_to_cancel: bool = False
    read: dict[str, list[bytes]] = {}
    """Lines by file id, in the order in which they came."""
    offsets: dict[str, int] = {}
    complete: set[str] = set()
    retries: list[Batch] = []
    deleted: dict[str, list[bytes]] = {}
    """The output that batches had which were deleted since."""
    joined: set[str] | None = None
    """The custom ids with success in the joined results; None: they were not read."""


def draw_intention(scenario: Scenario, number: int, random: Random) -> Intention:
    """What batch `number` of a world asks for."""
    prompts: dict[str, str] = {}
    models: dict[str, str] = {}
    escaped: list[bool] = []
    strange = Random(f"lines {scenario.seed} {number}")
    for line in range(1, random.randint(1, scenario.lines_max) + 1):
        custom_id = f"r-{line}"
        poison = " poison" if random.random() < scenario.poison else ""
        marks = poison + scenario.field.marks(strange)
        prompts[custom_id] = f"b{number}-{line}{marks} " + "ü" * random.randrange(8)
        models[custom_id] = f"m{random.randrange(scenario.models)}"
        escaped.append(random.random() < 0.5)
    lines = write_lines(prompts, models, escaped)
    valid = random.random() > 0.1
    if not valid:
        lines.insert(random.randrange(len(lines) + 1), '{"custom_id": "bad"')
    return Intention(
        number=number,
        content="\n".join(lines).encode() + random.choice([b"", b"\n"]),
        prompts=prompts,
        models=models,
        valid=valid,
        dialect=random.choice(["openai", "together"]),
        window=random.choice(["24h", "24h", "24h", "1m"]),
        priority=random.choice([0, 0, 5]),
        begins_s=random.uniform(0.0, scenario.chaos_s / 4),
        cancels_after_s=random.uniform(0.0, 10.0) if random.random() < 0.2 else None,
        deletes_input=random.random() < 0.2,
        repeats=random.random() < 0.3,
        reads=random.random() < 0.6,
        webhook=strange.random() < 0.3,
        key=f"key-{number}" if strange.random() < 0.5 else None,
    )


def write_lines(
    prompts: Mapping[str, str], models: Mapping[str, str], escaped: Iterable[bool] = ()
) -> list[str]:
    """The lines of the file. `escaped`: of each, whether it is ASCII; all are by default."""
    lines: list[str] = []
    for (custom_id, prompt), ascii_only in zip(
        prompts.items(), chain(escaped, repeat(True)), strict=False
    ):
        body = {"model": models[custom_id], "messages": [{"role": "user", "content": prompt}]}
        request = {
            "custom_id": custom_id,
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": body,
        }
        lines.append(json.dumps(request, ensure_ascii=ascii_only))
    return lines


Insist = Callable[[Callable[[Node], Awaitable[Any]]], Awaitable[Any]]
"""Asks until there is an answer. Raises what the product refuses with."""


class Steering(Protocol):
    """What a submitter does to a batch that exists (testkit/sim/steering.py)."""

    async def along(self, batch_id: str) -> None: ...

    async def to_the_end(self, batch_id: str) -> None: ...


class ApiClient(Protocol):
    """Where clients knock."""

    async def call(self, work: Callable[[Node], Awaitable[T]]) -> T: ...


class SimClient:
    """Carries one intention through to its end."""

    def __init__(
        self,
        intention: Intention,
        api: ApiClient,
        random: Random,
        trace: Trace,
        *,
        patience_s: float,
        is_over: Callable[[str], bool],
        stands_for_s: Callable[[str], float],
        steerer: Callable[[Insist], Steering] | None = None,
    ) -> None:
        """`patience_s` with one call, before it is made again. `is_over`: whether a batch has
        ended. `stands_for_s`: since a request of a batch moved.
        """
        self._stands_for_s = stands_for_s
        self._steerer = None if steerer is None else steerer(self._insist)
        self._status: Status | None = None
        self._status_since_s = 0.0
        self._is_over = is_over
        self._patience_s = patience_s
        self._wish = intention
        self._api = api
        self._random = random
        self._trace = trace

    async def run(self) -> None:
        """Returns when the batch has ended and all that was to be read is read."""
        intention = self._wish
        await asyncio.sleep(intention.begins_s)
        file = await self._insist(uploader(intention.content, self._random.randint(1, 4)))
        intention.batch = await self._create(file.id)
        self._trace.note(f"batch {intention.number} is {intention.batch.id}")
        if intention.repeats:
            await self._repeat(file.id)
        async with asyncio.TaskGroup() as group:
            if intention.deletes_input:
                group.create_task(self._delete(file.id))
            if intention.cancels_after_s is not None:
                group.create_task(self._cancel(intention.cancels_after_s))
            if self._steerer is not None:
                group.create_task(self._steerer.along(self._batch.id))
            group.create_task(self._follow())
        if self._steerer is not None:
            await self._steerer.to_the_end(self._batch.id)

    async def _insist(self, work: Callable[[Node], Awaitable[T]]) -> T:
        """Asks again until there is an answer."""
        while True:
            try:
                return await self._ask(work)
            except _ERRORS as error:
                self._trace.count(f"client met {type(error).__name__}")
            await asyncio.sleep(self._random.uniform(0.2, 2.0))

    async def _ask(self, work: Callable[[Node], Awaitable[T]]) -> T:
        """Once. Raises what `work` raises, and Unreachable."""
        try:
            async with asyncio.timeout(self._patience_s):
                return await self._api.call(work)
        except TimeoutError:
            self._trace.fault(FaultKind.CLIENT_GAVE_UP)
            raise Unreachable("no answer in time") from None

    async def _create(self, file_id: str, *, again: bool = False) -> Batch:
        intention, repeat = self._wish, again
        asked = NewBatch(
            input_file_id=file_id,
            endpoint="/v1/chat/completions",
            completion_window=intention.window,
            metadata={"intention": str(intention.number)},
            priority=intention.priority,
            webhook=OWN_URL if intention.webhook else None,
        )
        key = None
        if intention.key is not None:
            key = request_key("org_default", _PROJECT, intention.key, "batch", asked)

        async def create(node: Node) -> Batch:
            nonlocal repeat
            was_repeat, repeat = repeat, True
            created = await node.services.batches.create(
                _PROJECT, "sim", asked, repeat=was_repeat, key=key
            )
            await node.services.batches.mark_answered(created.batch.id)
            return created.batch

        return await self._insist(create)

    async def _repeat(self, file_id: str) -> None:
        """Create once more, as an SDK that got no answer. What was over by then was perhaps seen to
        its end, so that this may be another intention."""
        first = self._batch
        self._wish.batch = await self._create(file_id, again=True)
        may_differ = self._is_over(first.id) and self._wish.key is None
        if self._wish.batch.id != first.id and not may_differ:
            raise Violation(f"batch {self._wish.number} was created twice by a repetition")

    async def _delete(self, file_id: str) -> None:
        await asyncio.sleep(self._random.uniform(0.0, 10.0))
        try:
            await self._insist(lambda node: node.services.files.delete(_PROJECT, file_id))
        except LowtideError as error:  # an earlier try did it, unheard
            if error.code != "file_not_found":
                raise

    async def _cancel(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        batch_id = self._batch.id
        self._wish.asked_to_cancel = True
        try:
            await self._insist(lambda node: node.services.batches.cancel(_PROJECT, batch_id))
        except LowtideError as error:
            self._trace.note(f"cancel refused: {error}")

    async def _follow(self) -> None:
        batch_id = self._batch.id
        while True:
            seen = await self._insist(lambda node: self._fetch(node, batch_id))
            self._check_progress(self._batch, seen)
            self._wish.batch = seen
            if self._wish.reads and await self._read_along(seen) and seen.status in TERMINAL:
                return
            if not self._wish.reads and seen.status in TERMINAL:
                return
            await asyncio.sleep(_POLL_S * self._random.random())

    async def _fetch(self, node: Node, batch_id: str) -> Batch:
        """Looks at the batch as a person does who watches it: where nothing moves, there has to be
        a reason. A new state is a move as well: a last outcome may wait long for its commit, and
        has a reason for that.
        """
        seen = await node.services.batches.get(_PROJECT, batch_id)
        now_s = asyncio.get_running_loop().time()
        if seen.status != self._status:
            self._status, self._status_since_s = seen.status, now_s
        stood_s = min(self._stands_for_s(batch_id), now_s - self._status_since_s)
        if seen.status not in TERMINAL and stood_s >= STANDSTILL_S:
            (progress,) = await node.services.progress.of([seen])
            stands = self._stands_for_s(batch_id) >= stood_s
            if progress.reason is None and stands and not _is_misdated(seen, node.clock.now()):
                raise Violation(
                    f"{batch_id} is {seen.status}, {seen.counts}, has not moved for"
                    f" {stood_s:.0f} s, and nothing says why"
                )
            self._trace.count(f"reason: {progress.reason}")
        return seen

    @property
    def _batch(self) -> Batch:
        assert self._wish.batch is not None
        return self._wish.batch

    def _check_progress(self, before: Batch, now: Batch) -> None:
        old, new = before.counts, now.counts
        if new.completed < old.completed or new.failed < old.failed or new.total < old.total:
            raise Violation(f"a client saw counts fall: {old} -> {new}")
        if before.status in TERMINAL and now.status != before.status:
            raise Violation(f"a client saw {before.status} become {now.status}")

    async def _read_along(self, seen: Batch) -> bool:
        """Read on in both files; whether all there will ever be was read."""
        for file_id in (output_file_id(seen.id), error_file_id(seen.id)):
            if file_id not in self._wish.complete:
                await self._read_on(file_id)
        visible = {seen.output_file_id, seen.error_file_id} - {None}
        return visible <= self._wish.complete

    async def _read_on(self, file_id: str) -> None:
        intention = self._wish
        offset = intention.offsets.get(file_id, 0)

        async def read(node: Node) -> tuple[bytes, int, bool]:
            file = await node.services.files.get(_PROJECT, file_id)
            content = await node.services.results.open(_PROJECT, file, offset)
            body = b"".join([block async for block in content.body])
            if len(body) != content.bytes:
                raise Violation(f"{file_id}: {content.bytes} bytes announced, {len(body)} came")
            return body, content.last_line, content.incomplete

        try:
            body, last_line, incomplete = await self._ask(read)
        except _ERRORS:
            return  # from the same place next time
        except LowtideError as error:
            if error.code == "offset_expired":  # by a clock that is hours off: all over again
                intention.read[file_id], intention.offsets[file_id] = [], 0
            elif error.code != "file_not_found":
                raise
            return
        lines = body.splitlines(keepends=True)
        if offset + len(lines) != last_line:
            raise Violation(f"{file_id}: {len(lines)} lines behind {offset} end at {last_line}")
        intention.read.setdefault(file_id, []).extend(lines)
        intention.offsets[file_id] = last_line
        if not incomplete:
            intention.complete.add(file_id)


def _is_misdated(standing: Batch, now: datetime) -> bool:
    """Whether an instant of a batch that stands seems so recent that none can have
    been written then.

    A process whose clock was ahead dated it, and when the others' clocks get there, the batch seems
    to have moved just now: for that while no process that trusts its row can see that it stands.
    """
    dates = (
        standing.created_at,
        standing.in_progress_at,
        standing.first_settled_at,
        standing.last_settled_at,
        standing.finalizing_at,
        standing.cancelling_at,
    )
    ages_s = [(now - date).total_seconds() for date in dates if date is not None]
    return any(-limits.CLOCKS_AGREE_S <= age_s < limits.BATCH_STILL_S for age_s in ages_s)


def fields_of(line: bytes) -> dict[str, Any]:
    """An output line as an object."""
    fields: dict[str, Any] = json.loads(line)
    return fields
