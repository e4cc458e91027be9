"""Idempotency keys of uploads: whose turn it is, and what an earlier upload with a key made.

Used by the services and routes of files. Invariant: of uploads with one key in this process one is
under way at a time; between processes the store decides, in the transaction that adds the file.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from lowtide import limits
from lowtide.core.errors import LowtideError
from lowtide.core.idempotency.request_key import KeyTaken, RequestKey
from lowtide.ports.clock import Clock
from lowtide.ports.idempotency import IdempotencyStore
from lowtide.service.idempotency.idempotency import reused


class UploadKeys:
    """The keys of uploads under way, and those that made something."""

    def __init__(self, store: IdempotencyStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._under_way: dict[tuple[str, str], tuple[asyncio.Lock, int]] = {}

    async def made_by(self, key: RequestKey | None) -> str | None:
        """The id of what the key made; None without one. Raises LowtideError
        `idempotency_key_reused`.
        """
        if key is None:
            return None
        with refused_keys(key):
            return await self._store.made_by(key, self._clock.now())

    @asynccontextmanager
    async def turn(self, organization_id: str, key: str | None) -> AsyncIterator[bool]:
        """Waits until no other upload with that key is under way; whether one made a file that is
        there still, so that no more than the digest of this one is needed.

        Raises LowtideError `upload_busy` after UPLOAD_TURN_S.
        """
        if key is None:
            yield False
            return
        with self._lock_of((organization_id, key)) as lock:
            try:
                async with asyncio.timeout(limits.UPLOAD_TURN_S):
                    await lock.acquire()
            except TimeoutError:
                raise _busy() from None
            try:
                yield await self._store.has_made(organization_id, key, self._clock.now())
            finally:
                lock.release()

    @contextmanager
    def _lock_of(self, named: tuple[str, str]) -> Iterator[asyncio.Lock]:
        """The lock of a key, which is forgotten when no upload uses it any more."""
        lock, users = self._under_way.get(named, (asyncio.Lock(), 0))
        self._under_way[named] = (lock, users + 1)
        try:
            yield lock
        finally:
            _, users = self._under_way.pop(named)
            if users > 1:
                self._under_way[named] = (lock, users - 1)


@contextmanager
def refused_keys(key: RequestKey | None) -> Iterator[None]:
    """Turns KeyTaken into a LowtideError that names the key."""
    try:
        yield
    except KeyTaken:
        assert key is not None
        raise reused(key) from None


def _busy() -> LowtideError:
    return LowtideError(
        "upload_busy",
        "An upload with the same idempotency key is under way. Send this one again when that has"
        " ended: the answer will be the same file.",
        retry_after_s=limits.UPLOAD_BUSY_RETRY_AFTER_S,
    )
