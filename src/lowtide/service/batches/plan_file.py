"""Feeding a stored file to a validator: the reading half of "from file to plan".

The validate loop, dry runs and repairs call this with a validator of `core.validation.planner`.
Invariant: no block keeps the event loop longer than a small one takes; large ones are judged beside
it, in turns by organization.
"""

import asyncio
from collections.abc import Awaitable, Callable

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
    async for block in blobs.stream(key):
        await off_loop(owner, validator.line_bytes + len(block), validator.feed, block)
        if not await goes_on():
            return None
        if validator.is_decided:
            break
    return await off_loop(owner, validator.line_bytes, validator.finish)
