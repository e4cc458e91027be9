"""One look-up at a time for each key, however many callers need its result at one instant.

Called where an answer is remembered for seconds: when it expires, hundreds of calls may come before
the next one is there, and each would ask the database.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

Found = TypeVar("Found")


class SingleFlight(Generic[Found]):
    """`get` joins the look-up that is under way for its key, or begins one."""

    def __init__(self) -> None:
        self._under_way: dict[str, asyncio.Task[Found]] = {}

    async def get(self, key: str, look_up: Callable[[], Coroutine[Any, Any, Found]]) -> Found:
        """Raises what the look-up raises. A caller that is cancelled leaves it to the others."""
        task = self._under_way.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(look_up())
            self._under_way[key] = task
            task.add_done_callback(lambda done: self._ended(key, done))
        return await asyncio.shield(task)

    def forget(self, key: str | None = None) -> None:
        """Has later callers look up afresh; None: for every key."""
        if key is None:
            self._under_way.clear()
        else:
            self._under_way.pop(key, None)

    def _ended(self, key: str, task: asyncio.Task[Found]) -> None:
        if self._under_way.get(key) is task:
            del self._under_way[key]
        if not task.cancelled():
            task.exception()  # seen, although all callers may have gone
