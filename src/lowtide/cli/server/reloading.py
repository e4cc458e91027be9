"""SIGHUP in `lowtide serve` and `lowtide worker`: read the settings again and go on with them.

Invariant: settings that cannot be used change nothing and end nothing; the log says what is wrong
with them, and the next SIGHUP tries again.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import structlog

from lowtide.config import Settings
from lowtide.config.sources import ConfigError
from lowtide.core.accounts.money import PriceError
from lowtide.wiring import Application

log = structlog.get_logger(__name__)


@asynccontextmanager
async def reloading(
    asked: asyncio.Event, read_settings: Callable[[], Settings], application: Application
) -> AsyncIterator[None]:
    """Reload whenever `asked` is set, while the context lasts; several at one time are one."""
    task = asyncio.create_task(_reload_when(asked, read_settings, application), name="reload")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _reload_when(
    asked: asyncio.Event, read_settings: Callable[[], Settings], application: Application
) -> None:
    while True:
        await asked.wait()
        asked.clear()
        try:
            application.reload(await asyncio.to_thread(read_settings))
        except (ConfigError, PriceError) as error:
            log.error("settings.not_reloaded", errors=str(error).splitlines())
