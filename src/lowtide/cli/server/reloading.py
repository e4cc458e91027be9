"""`lowtide serve` and `lowtide worker`: read the settings again and go on with them.

On SIGHUP (`lowtide reload` sends it) and when the settings file has changed. Invariant: settings
that cannot be used change nothing and end nothing; the log and the list of engines say what is
wrong with them, and the next change or SIGHUP tries again.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import structlog

from lowtide import limits
from lowtide.config import Settings
from lowtide.config.sources import ConfigError
from lowtide.core.accounts.money import PriceError
from lowtide.data_dir import mark_reloadable
from lowtide.wiring import Application

log = structlog.get_logger(__name__)

_Stamp = tuple[int, int, int]


class SettingsReader(NamedTuple):
    """How this process reads its settings again, and from which file; None: it has none."""

    read: Callable[[], Settings]
    """Raises ConfigError."""
    file: Callable[[], Path | None]
    """Raises ConfigError."""


class SettingsFileWatch:
    """Tells when the settings file has changed since it was read.

    A file counts once it was the same at two readings: half of a file may be valid, too, and would
    take replicas away. One that is missing counts as not changed, for the same reason.
    """

    def __init__(self, file: Callable[[], Path | None]) -> None:
        self._file = file
        self._read = self._seen = self._stamp()

    def has_changed(self) -> bool:
        """Looks at the file; call it again and again. Not for the event loop."""
        before, self._seen = self._seen, self._stamp()
        return self._seen is not None and self._seen == before != self._read

    def note_read(self) -> None:
        """Remembers the file as it is; called just before the file is read."""
        self._read = self._stamp()

    def _stamp(self) -> _Stamp | None:
        try:
            file = self._file()
            status = None if file is None else file.stat()
        except (ConfigError, OSError):
            return None
        return None if status is None else (status.st_ino, status.st_mtime_ns, status.st_size)


@asynccontextmanager
async def reloading(
    asked: asyncio.Event, reader: SettingsReader, application: Application
) -> AsyncIterator[None]:
    """Reloads whenever `asked` is set or the file has changed, while the context lasts; several at
    one time are one.
    """
    watch = SettingsFileWatch(reader.file)
    tasks = [
        asyncio.create_task(_reload_when(asked, watch, reader, application), name="reload"),
        asyncio.create_task(_ask_at_change(asked, watch), name="settings file"),
    ]
    mark_reloadable(application.settings.server.data_dir)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def _reload_when(
    asked: asyncio.Event,
    watch: SettingsFileWatch,
    reader: SettingsReader,
    application: Application,
) -> None:
    while True:
        await asked.wait()
        asked.clear()
        watch.note_read()
        try:
            application.reload(await asyncio.to_thread(reader.read))
        except (ConfigError, PriceError) as error:
            log.error("settings.not_reloaded", errors=str(error).splitlines())
            application.reload.refused(str(error))


async def _ask_at_change(asked: asyncio.Event, watch: SettingsFileWatch) -> None:
    while True:
        await asyncio.sleep(limits.SETTINGS_POLL_S)
        if await asyncio.to_thread(watch.has_changed):
            asked.set()
