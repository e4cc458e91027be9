"""Work on large bodies, beside the event loop: organizations in turns, one piece at a time.

Called wherever a body of megabytes is read, checked or written anew. Such work is a handful of
calls into C, each of which keeps the interpreter for less than 50 ms up to LIVE_BODY_BYTES_MAX; in
a thread of its own it lets the loop go on between them. Small bodies are not worth the way there.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

from lowtide import limits
from lowtide.service.fair_places import FairPlaces

Made = TypeVar("Made")

_thread: Final = ThreadPoolExecutor(1, "large-bodies")
_turns: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, FairPlaces]] = WeakKeyDictionary()


async def off_loop(owner: str, size: int, function: Callable[..., Made], *args: Any) -> Made:
    """What `function` makes of `args`, which have `size` bytes of `owner`. Raises what it raises.

    The function is pure: it may still run when its caller has gone.
    """
    if size <= limits.LARGE_BODY_BYTES:
        return function(*args)
    loop = asyncio.get_running_loop()
    turns = _turns.setdefault(loop, FairPlaces(1))
    async with turns.of(owner):
        return await loop.run_in_executor(_thread, partial(function, *args))
