"""What organizations may store: checked before a body is read, reserved while it
comes, and enforced.

Used by the services of files and uploads. The store's transactions keep the quota, whatever runs
at the same time (core/files/storage_quota.py); what stands here spares a client an upload that
would be refused at its end, and bounds the bytes of bodies that are under way in this process,
which no row counts yet.
"""

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from lowtide.core.errors import LowtideError
from lowtide.core.files.storage_quota import QuotaReached, StorageQuota, StorageUse, lacks
from lowtide.ports.blobs import Blobs
from lowtide.service.accounts.quotas import Quotas


class Reservation:
    """Bytes of one body that are counted as stored while it comes. Made by `Storage.reserved`."""

    def __init__(self, quota: StorageQuota, use: StorageUse, under_way: Counter[str], key: str):
        self._quota = quota
        self._use = use
        self._under_way = under_way
        self._key = key
        self._held = 0
        self._arrived = 0

    def hold(self, bytes: int) -> None:
        """Reserves room for `bytes` in all. Raises QuotaReached."""
        more = bytes - self._held
        if more <= 0:
            return
        lack = lacks(self._use, self._quota, self._under_way[self._key] + more)
        if lack is not None:
            raise QuotaReached(lack, self._use)
        self._under_way[self._key] += more
        self._held = bytes

    def arrived(self, bytes: int) -> None:
        """Counts bytes that arrived, whatever was declared. Raises QuotaReached."""
        self._arrived += bytes
        self.hold(self._arrived)

    def end(self) -> None:
        self._under_way[self._key] -= self._held
        if not self._under_way[self._key]:
            del self._under_way[self._key]


class Storage:
    """Quotas of all organizations, as far as this process sees them."""

    def __init__(self, allowance: Quotas, blobs: Blobs) -> None:
        self._allowance = allowance
        self._blobs = blobs
        self._under_way: Counter[str] = Counter()

    async def check(self, project_id: str, bytes: int) -> None:
        """Checks that so many more bytes would fit now. Raises LowtideError
        `storage_limit_exceeded`.
        """
        async with self.reserved(project_id, bytes):
            pass

    @asynccontextmanager
    async def reserved(self, project_id: str, bytes: int) -> AsyncIterator[Reservation]:
        """Counts a body as stored while it comes; `bytes` as declared, 0 when it was not.

        Raises LowtideError `storage_limit_exceeded`, for what happens inside as well.
        """
        organization_id, quota = await self._quota(project_id)
        use = StorageUse()
        if quota.bytes is not None:
            use = await self._allowance.storage_use(organization_id)
        reservation = Reservation(quota, use, self._under_way, organization_id)
        with _refusals(organization_id, quota):
            try:
                reservation.hold(bytes)
                yield reservation
            finally:
                reservation.end()

    @asynccontextmanager
    async def adding(self, project_id: str, blob_key: str = "") -> AsyncIterator[StorageQuota]:
        """The quota to hand to the store. Raises LowtideError `storage_limit_exceeded` when the
        store finds it reached; then the bytes under `blob_key`, if any, are not kept.
        """
        organization_id, quota = await self._quota(project_id)
        try:
            with _refusals(organization_id, quota):
                yield quota
        except LowtideError:
            if blob_key:
                await self._blobs.delete(blob_key)
            raise

    async def _quota(self, project_id: str) -> tuple[str, StorageQuota]:
        """The project's organization, and what it may store."""
        bounds = await self._allowance.of(project_id)
        return bounds.organization_id, StorageQuota(bytes=bounds.stored_bytes)


@contextmanager
def _refusals(organization_id: str, quota: StorageQuota) -> Iterator[None]:
    """Turns QuotaReached into a LowtideError that says what to do."""
    try:
        yield
    except QuotaReached as reached:
        if reached.lack == "unfinished":
            message = (
                f"Organization {organization_id} has {reached.use.unfinished} uploads that are"
                f" announced or under way and not complete; {quota.unfinished} is the most. Send"
                " their bytes, cancel or delete them, then begin the next."
            )
        else:
            message = (
                f"Organization {organization_id} may store {quota.bytes} bytes, of which"
                f" {reached.use.bytes} are in use; this file does not fit. Nothing was kept. Delete"
                " files that are no longer needed, then upload again. A deleted file counts until"
                " the batches that read it have ended."
            )
        raise LowtideError("storage_limit_exceeded", message, "file") from None
