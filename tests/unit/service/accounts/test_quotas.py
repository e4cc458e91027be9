"""What an organization may do, from defaults and overrides."""

from datetime import UTC, datetime

import pytest
from skipping_clock import SkippingClock

from lowtide import limits
from lowtide.config import LimitSettings
from lowtide.core.accounts.tenancy import DEFAULT_ORGANIZATION, DEFAULT_PROJECT, OrganizationLimits
from lowtide.ports.blobs import Blobs
from lowtide.ports.store import Store
from lowtide.service.accounts.quotas import Budget, Quotas, month_of, spend_cap_message
from lowtide.service.files.storage import Storage


@pytest.fixture
def allowance(store: Store, clock: SkippingClock) -> Quotas:
    return Quotas(store.tenants, store.ledger, clock, LimitSettings(batches_per_hour=9))


async def test_an_override_wins_and_the_rest_stays_default(
    allowance: Quotas, store: Store, clock: SkippingClock
) -> None:
    await store.tenants.change_organization(
        DEFAULT_ORGANIZATION,
        limits=OrganizationLimits(file_bytes=0),
        spend_cap_pico=5,
        now=clock.now(),
    )
    bounds = await allowance.of(DEFAULT_PROJECT)
    assert (bounds.file_bytes, bounds.batches_per_hour, bounds.spend_cap_pico) == (0, 9, 5)
    assert bounds.requests_per_batch == limits.REQUESTS_PER_BATCH
    assert bounds.stored_bytes is None


async def test_a_change_is_seen_after_seconds_and_at_once_when_told(
    allowance: Quotas, store: Store, clock: SkippingClock
) -> None:
    async def change(file_bytes: int) -> None:
        await store.tenants.change_organization(
            DEFAULT_ORGANIZATION,
            limits=OrganizationLimits(file_bytes=file_bytes),
            spend_cap_pico=None,
            now=clock.now(),
        )

    async def seen() -> int:
        return (await allowance.of(DEFAULT_PROJECT)).file_bytes

    assert await seen() == limits.FILE_BYTES
    await change(1)
    assert await seen() == limits.FILE_BYTES
    clock.advance(limits.TENANT_CACHE_S)
    assert await seen() == 1
    await change(2)
    allowance.forget()
    assert await seen() == 2


async def test_the_cache_is_bounded(allowance: Quotas, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TENANT_CACHE_ENTRIES", 2)
    for number in range(5):
        assert (await allowance.of(f"proj_{number}")).batches_per_hour == 9
    assert len(allowance._known) == 2


async def test_without_bounds_nothing_is_refused(allowance: Quotas, blobs: Blobs) -> None:
    await Storage(allowance, blobs).check(DEFAULT_PROJECT, 10**15)
    await allowance.check_spend(DEFAULT_PROJECT)
    assert await allowance.budget(DEFAULT_PROJECT) is None


def test_a_budget_never_leaves_less_than_nothing() -> None:
    assert not Budget(cap_pico=5, spent_pico=7).covers(0)
    assert Budget(cap_pico=7, spent_pico=5).covers(2)
    assert not Budget(cap_pico=7, spent_pico=5).covers(3)


def test_the_message_names_cap_spent_and_estimate() -> None:
    message = spend_cap_message(Budget(5 * 10**12, 10**12), 45 * 10**11)
    assert "Cap: $5.00 a month; $1.00 is spent and this batch is estimated at $4.50." in message


def test_a_month_begins_at_its_first_instant() -> None:
    assert month_of(datetime(2026, 11, 21, 3, 4, 5, 6, UTC)) == datetime(2026, 11, 1, tzinfo=UTC)


async def test_defaults_that_were_read_again_hold_at_once_beside_the_overrides(
    allowance: Quotas, store: Store, clock: SkippingClock
) -> None:
    await store.tenants.change_organization(
        DEFAULT_ORGANIZATION,
        limits=OrganizationLimits(file_bytes=7),
        spend_cap_pico=None,
        now=clock.now(),
    )
    assert (await allowance.of(DEFAULT_PROJECT)).batches_per_hour == 9
    allowance.reload(LimitSettings(batches_per_hour=3, file_bytes=100))
    bounds = await allowance.of(DEFAULT_PROJECT)
    assert (bounds.batches_per_hour, bounds.file_bytes) == (3, 7)
    assert allowance.defaults.batches_per_hour == 3
