"""Work for a client, as long as it is connected: what the live API and held calls share."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from starlette.types import Receive


async def run_until_disconnect(receive: Receive, run: Callable[[], Awaitable[None]]) -> None:
    """Runs the work until it is over, or until its client has gone or stalled."""
    with suppress(TimeoutError):
        async with asyncio.timeout(None) as presence:
            leaving = asyncio.create_task(_watch(receive, presence))
            try:
                await run()
            finally:
                leaving.cancel()


async def _watch(receive: Receive, presence: asyncio.Timeout) -> None:
    """End the work when the client goes. After the body no other message comes."""
    while (await receive())["type"] != "http.disconnect":
        pass
    presence.reschedule(0.0)
