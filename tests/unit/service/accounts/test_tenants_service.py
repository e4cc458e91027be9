"""The verbs on tenants: what they check, what they keep to themselves."""

from decimal import Decimal
from itertools import count

import pytest
from skipping_clock import SkippingClock

from lowtide import limits
from lowtide.core.accounts.tenancy import DEFAULT_PROJECT, SCOPES, OrganizationLimits
from lowtide.core.errors import LowtideError
from lowtide.ports.store import Store
from lowtide.service.accounts.authentication import Authenticator
from lowtide.service.accounts.tenants import DEFAULT_SCOPES, TenantService


@pytest.fixture
def verbs(store: Store, clock: SkippingClock) -> TenantService:
    numbers = count(1)
    access = Authenticator(store.tenants, clock)
    return TenantService(store.tenants, access, clock, lambda p: f"{p}{next(numbers)}")


async def test_keys_are_different_and_never_in_a_list(verbs: TenantService) -> None:
    made = [await verbs.create_key(DEFAULT_PROJECT, "k", scopes=SCOPES) for _ in range(50)]
    assert len({new.credential for new in made}) == len({new.key.id for new in made}) == 50
    listed = repr(await verbs.keys(DEFAULT_PROJECT))
    assert not any(new.credential.rpartition("-")[2] in listed for new in made)
    assert all(new.key.id in listed for new in made)


async def test_a_key_may_read_and_submit_unless_said_otherwise(verbs: TenantService) -> None:
    made = await verbs.create_key(DEFAULT_PROJECT, " named ")
    assert made.key.scopes == DEFAULT_SCOPES == {"read", "submit"}
    assert made.key.name == "named"


@pytest.mark.parametrize("name", ["", "  ", "x" * (limits.NAME_CHARS_MAX + 1), "a\x00b", "a\x1bb"])
async def test_a_name_is_bounded_and_printable(verbs: TenantService, name: str) -> None:
    with pytest.raises(LowtideError) as refused:
        await verbs.create_organization(name)
    assert (refused.value.code, refused.value.param) == ("invalid_request", "name")


@pytest.mark.parametrize("cap", ["-0.01", "NaN", "Infinity", "1000000.01"])
async def test_a_cap_is_a_sum_of_money(verbs: TenantService, cap: str) -> None:
    with pytest.raises(LowtideError) as refused:
        await verbs.create_organization("o", spend_cap=Decimal(cap))
    assert refused.value.param == "spend_cap"


async def test_limits_are_bounded_and_stored(verbs: TenantService) -> None:
    bounds = OrganizationLimits(batches_per_hour=0, stored_bytes=limits.TENANT_LIMIT_MAX)
    cap = Decimal(limits.SPEND_CAP_DOLLARS_MAX)
    made = await verbs.create_organization("o", bounds=bounds, spend_cap=cap)
    assert (await verbs.organization(made.id)).limits == bounds
    assert (
        await verbs.organization(made.id)
    ).spend_cap_pico == limits.SPEND_CAP_DOLLARS_MAX * 10**12
    with pytest.raises(LowtideError) as refused:
        await verbs.change_organization(
            made.id, bounds=OrganizationLimits(file_bytes=-1), spend_cap=None
        )
    assert refused.value.param == "limits.file_bytes"


async def test_revoking_twice_keeps_the_first_instant(
    verbs: TenantService, clock: SkippingClock
) -> None:
    made = await verbs.create_key(DEFAULT_PROJECT, "k")
    first = await verbs.revoke_key(made.key.id)
    clock.advance(10)
    assert await verbs.revoke_key(made.key.id) == first
