"""Feeding a stored file to a validator: the reading half of "from file to plan".

The validate loop, dry runs and repairs call this with a validator of `core.validation.planner`.
Forecasts feed the beginning of one. Invariant: nothing keeps the event loop longer than
`LINES_AT_ONCE` lines take, however short they are; large lines are judged beside it, in turns by
organization.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

from lowtide import limits
from lowtide.core.batches.plan import Plan
from lowtide.core.validation.validator import ValidationFailure, Validator
from lowtide.ports.blobs import Blobs
from lowtide.service.off_loop import off_loop

GoesOn = Callable[[], Awaitable[bool]]


async def _always() -> bool:
    await asyncio.sleep(0)  # others are served between two blocks
    return True


async def plan_file(
    validator: Validator, blobs: Blobs, key: str, owner: str, goes_on: GoesOn = _always
) -> Plan | ValidationFailure | None:
    """The file's plan, or what is wrong with it; None once `goes_on`, asked after each block, says
    no. `owner` is the organization whose file it is. Raises BlobNotFound.
    """
    size = 0
    async for block in blobs.stream(key):
        size += len(block)
        await feed(validator, block, owner)
        if not await goes_on():
            return None
        if validator.is_decided:
            break
    # The end orders all lines: 0.3 s of a million.
    return await off_loop(owner, size, validator.finish)


async def feed(validator: Validator, block: bytes, owner: str) -> None:
    """Judges the block, as far as that may still change anything; others are served between its
    pieces."""
    for number, piece in enumerate(_pieces(block)):
        if number:
            await asyncio.sleep(0)
            if validator.is_decided:
                return
        await off_loop(owner, validator.line_bytes + len(piece), validator.feed, piece)


def _pieces(block: bytes) -> Iterator[bytes]:
    """The block, cut where it has more lines than are judged at once: each costs something, even
    if there is nothing in it."""
    if block.count(b"\n") <= limits.LINES_AT_ONCE:
        yield block
        return
    middle = len(block) // 2
    yield from _pieces(block[:middle])
    yield from _pieces(block[middle:])
