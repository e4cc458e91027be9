"""The consistency check: finds drift between rows and blobs. What is done about each is repair.py.

Called by `lowtide doctor`, beside running servers or without them. Rows are read page by page and
their blobs looked at one by one, then blobs page by page and their rows looked up: memory does not
grow with their number. Invariant: nothing is changed, and nothing is reported that a row did not
still need after its blob was found wanting.
"""

import asyncio
import hashlib
import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

from lowtide import limits
from lowtide.core.integrity.consistency import BlobRole, Inconsistency, Reference, compare
from lowtide.ports.blobs import FOLDERS, BlobInfo, BlobNotFound, Blobs
from lowtide.ports.store import Store

NEEDS: Final[tuple[BlobRole, ...]] = ("input", "upload", "plan", "segment", "plan", "result")
"""The roles in the order of repair. Plans twice: results that are taken back may leave a stopped
batch with requests that never ran, and those need a plan to be listed by.
"""

OnProgress = Callable[[int], None]


class ConsistencyChecker:
    """One pass that compares database rows with blobs. `checked`: blobs looked up;
    `missing`: not found.
    """

    def __init__(self, store: Store, blobs: Blobs, *, on_progress: OnProgress = lambda _: None):
        """`on_progress` is called with the number of rows and blobs looked at so far."""
        self._store = store
        self._blobs = blobs
        self._on_progress = on_progress
        self._walked = 0
        self._turns = asyncio.Semaphore(limits.INTEGRITY_CHECKS_MAX)
        self.checked = 0
        self.missing = 0

    async def check_all(self, *, deep: bool = False) -> AsyncGenerator[Inconsistency]:
        """All drift, one after another. `deep` also reads every file, for digest and lines.

        Raises StoreError, BlobError.
        """
        for need in dict.fromkeys(NEEDS):
            async for inconsistency in self.check_role(need, deep=deep):
                yield inconsistency
        async for inconsistency in self.orphans():
            yield inconsistency

    async def check_role(
        self, need: BlobRole, *, deep: bool = False
    ) -> AsyncGenerator[Inconsistency]:
        """Yields the drift of the blobs that rows need for that role."""
        after = ""
        while page := await self._store.care.references(
            need, after=after, limit=limits.INTEGRITY_PAGE
        ):
            sizes = await self._sizes([reference.key for reference in page])
            wanting = list(compare(page, sizes))
            if deep:
                wanting += await self._unlike(page, frozenset(each.key for each in wanting))
            for inconsistency in wanting:
                assert inconsistency.reference is not None
                if await self._store.care.is_needed(inconsistency.reference):
                    self.missing += inconsistency.problem == "missing"
                    yield inconsistency
            after = page[-1].key
            self._advance(len(page))
            self.checked += len(page)

    async def orphans(self) -> AsyncGenerator[Inconsistency]:
        """Blobs that no row knows and that are older than a crash's leftovers may be.

        Their age is told by the object store's own clock, which stamped them.
        """
        before: datetime | None = None
        for folder in FOLDERS:
            old: list[BlobInfo] = []
            async for info in self._blobs.list(folder):
                if before is None:  # asked only where there is anything: asking writes
                    before = await self._now_of_blobs() - timedelta(seconds=limits.ORPHAN_AGE_S)
                if info.modified_at < before:
                    old.append(info)
                if len(old) >= limits.INTEGRITY_PAGE:
                    for inconsistency in await self._unknown(old):
                        yield inconsistency
                    old = []
            for inconsistency in await self._unknown(old):
                yield inconsistency

    async def _unknown(self, old: Sequence[BlobInfo]) -> list[Inconsistency]:
        if not old:
            return []
        known = await self._store.results.known([info.key for info in old])
        self._advance(len(old))
        unknown = [info for info in old if info.key not in known]
        return [Inconsistency(problem="orphan", key=info.key, bytes=info.bytes) for info in unknown]

    async def _now_of_blobs(self) -> datetime:
        key = f"probe/{secrets.token_hex(8)}"
        await self._blobs.put(key, b"now")
        try:
            probes = [info async for info in self._blobs.list("probe/") if info.key == key]
        finally:
            await self._blobs.delete(key)
        return probes[0].modified_at

    async def _sizes(self, keys: Sequence[str]) -> dict[str, int]:
        sizes = await asyncio.gather(*map(self._size, keys))
        return {key: size for key, size in zip(keys, sizes, strict=True) if size is not None}

    async def _size(self, key: str) -> int | None:
        async with self._turns:
            return await size_or_none(self._blobs, key)

    async def _unlike(
        self, page: Sequence[Reference], passed: frozenset[str]
    ) -> list[Inconsistency]:
        """Files of the right size whose content is not what was stored."""
        files = [each for each in page if each.sha256 and each.key not in passed]
        return [
            Inconsistency(problem="content", key=each.key, bytes=each.bytes, reference=each)
            for each in files
            if not await self._is_whole(each)
        ]

    async def _is_whole(self, file: Reference) -> bool:
        digest, newlines, last = hashlib.sha256(), 0, b"\n"
        try:
            async for block in self._blobs.stream(file.key):
                digest.update(block)
                newlines += block.count(b"\n")
                last = block[-1:] or last
        except BlobNotFound:
            return True  # gone meanwhile: the row has let go of it, or the next check tells
        lines = newlines + (last != b"\n")
        return (digest.hexdigest(), lines) == (file.sha256, file.lines)

    def _advance(self, count: int) -> None:
        self._walked += count
        self._on_progress(self._walked)


async def size_or_none(blobs: Blobs, key: str) -> int | None:
    """Bytes of the blob; None when it is not there."""
    try:
        return await blobs.size(key)
    except BlobNotFound:
        return None
