"""What bodies under way may come to together, before any row counts them."""

from contextlib import AsyncExitStack

import pytest
from skipping_clock import SkippingClock

from lowtide.config import LimitSettings
from lowtide.core.accounts.tenancy import DEFAULT_PROJECT
from lowtide.core.errors import LowtideError
from lowtide.core.files.storage_quota import StorageQuota, StorageUse, lacks
from lowtide.ports.blobs import Blobs
from lowtide.ports.store import Store
from lowtide.service.accounts.quotas import Quotas
from lowtide.service.files.files import FileService
from lowtide.service.files.storage import Storage
from lowtide.service.files.upload_keys import UploadKeys


@pytest.fixture
def allowance(store: Store, clock: SkippingClock) -> Quotas:
    return Quotas(store.tenants, store.ledger, clock, LimitSettings(stored_bytes=1000))


def test_what_is_lacking_is_named() -> None:
    quota = StorageQuota(bytes=10, unfinished=1)
    assert lacks(StorageUse(bytes=4), quota, 6) is None
    assert lacks(StorageUse(bytes=4), quota, 7) == "bytes"
    assert lacks(StorageUse(bytes=4, unfinished=1), quota, 7, 1) == "unfinished"
    assert lacks(StorageUse(bytes=40), quota, 0, 1) is None, "it adds no bytes"


async def test_bodies_under_way_count_as_stored(allowance: Quotas, blobs: Blobs) -> None:
    storage = Storage(allowance, blobs)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(storage.reserved(DEFAULT_PROJECT, 600))
        with pytest.raises(LowtideError) as refused:
            await stack.enter_async_context(storage.reserved(DEFAULT_PROJECT, 500))
        assert refused.value.code == "storage_limit_exceeded"
        await storage.check(DEFAULT_PROJECT, 400)
    await storage.check(DEFAULT_PROJECT, 1000)
    assert not storage._under_way, "what ended is not remembered"


async def test_a_body_that_declared_less_than_comes_is_counted_as_it_comes(
    allowance: Quotas, blobs: Blobs
) -> None:
    storage = Storage(allowance, blobs)
    with pytest.raises(LowtideError) as refused:
        async with storage.reserved(DEFAULT_PROJECT, 0) as reservation:
            for _ in range(20):
                reservation.arrived(100)
    assert refused.value.code == "storage_limit_exceeded"
    await storage.check(DEFAULT_PROJECT, 1000)


async def test_one_announced_file_takes_one_body_at_a_time(
    allowance: Quotas, store: Store, blobs: Blobs, clock: SkippingClock
) -> None:
    files = FileService(
        store.files,
        blobs,
        clock,
        lambda prefix: f"{prefix}1",
        allowance,
        UploadKeys(store.idempotency, clock),
    )
    async with files.receive(DEFAULT_PROJECT, "file-a", 10):
        with pytest.raises(LowtideError) as refused:
            async with files.receive(DEFAULT_PROJECT, "file-a", 10):
                raise AssertionError("it was let in")
        assert refused.value.code == "upload_busy"
        async with files.receive(DEFAULT_PROJECT, "file-b", 10):
            pass
