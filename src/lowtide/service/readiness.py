"""Whether this process should be sent requests: its database and object store answer, the database
takes writes, and it was not told to stop.

`GET /ready` asks; load balancers and Kubernetes do so every few seconds, and anyone may. So one
reading of the storage serves every caller within `limits.READY_FRESH_S`, and what is told names no
address; the log says the reason once, and later that the storage is back. Engines do not count: a
batch waits for those without any harm.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from lowtide import limits
from lowtide.core.accounts.tenancy import DEFAULT_PROJECT
from lowtide.core.errors import LowtideError
from lowtide.ports.blobs import BlobError, BlobNotFound, Blobs
from lowtide.ports.clock import Clock
from lowtide.ports.files import FileStore
from lowtide.ports.store import StoreError, StoreReadOnly

log = structlog.get_logger(__name__)

_NOWHERE: Final = "probe/ready"
"""A key and an id that nothing has: to answer that they are unknown, the storage
has to be there.
"""


class Readiness:
    """One instance per process."""

    def __init__(
        self,
        files: FileStore,
        check_writable: Callable[[], Awaitable[None]],
        blobs: Blobs,
        clock: Clock,
    ) -> None:
        """`check_writable`: the store's, see its port."""
        self._files = files
        self._check_writable = check_writable
        self._blobs = blobs
        self._clock = clock
        self._turn = asyncio.Lock()
        self._checked_at_s: float | None = None
        self._missing: dict[str, str] = {}
        self._is_draining = False

    def begin_drain(self) -> None:
        """Makes the process not ready from now on."""
        self._is_draining = True

    @property
    def is_draining(self) -> bool:
        """Whether the process was asked to stop."""
        return self._is_draining

    async def check(self) -> None:
        """Raises LowtideError `server_stopping` or `storage_unavailable`, which says what is."""
        if self._is_draining:
            raise LowtideError("server_stopping", "This server is stopping; ask another one.")
        async with self._turn:
            if self._is_stale():
                await self._check_storage()
                self._checked_at_s = self._clock.monotonic()
        if self._missing:
            raise LowtideError("storage_unavailable", " ".join(self._missing.values()))

    def _is_stale(self) -> bool:
        at = self._checked_at_s
        return at is None or self._clock.monotonic() - at >= limits.READY_FRESH_S

    async def _check_storage(self) -> None:
        answers = await asyncio.gather(
            _missing("database", self._ask_database()),
            _missing("object store", self._blobs.size(_NOWHERE)),
        )
        missing = {name: error for name, error in answers if error is not None}
        for name in sorted(missing.keys() - self._missing.keys()):
            log.warning("storage.missing", what=name, reason=missing[name][1])
        for name in sorted(self._missing.keys() - missing.keys()):
            log.info("storage.back", what=name)
        self._missing = {name: words for name, (words, _) in missing.items()}

    async def _ask_database(self) -> None:
        await self._files.get(DEFAULT_PROJECT, _NOWHERE)
        await self._check_writable()


async def _missing(name: str, answer: Awaitable[object]) -> tuple[str, tuple[str, str] | None]:
    """The name; with a sentence for all and the reason for the log, if no good answer came within
    `limits.READY_CHECK_S`."""
    try:
        async with asyncio.timeout(limits.READY_CHECK_S):
            await answer
    except BlobNotFound:
        return name, None
    except StoreReadOnly as error:
        return name, (f"The {name} takes no writes.", str(error))
    except (StoreError, BlobError, TimeoutError) as error:
        return name, (f"No answer from the {name}.", str(error) or type(error).__name__)
    return name, None
