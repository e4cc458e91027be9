"""Credentials in, key owners out, over a real store."""

from datetime import timedelta

import pytest
from skipping_clock import SkippingClock

from lowtide import limits
from lowtide.core.accounts.tenancy import DEFAULT_PROJECT, KeyOwner
from lowtide.core.errors import LowtideError
from lowtide.ports.accounts import TenantStore
from lowtide.ports.store import Store, StoreUnavailable
from lowtide.service.accounts.authentication import Authenticator, hash_secret
from lowtide.service.accounts.tenants import NewKey, TenantService


class CountedTenants:
    """The store's tenants, counting look-ups; `away` makes writes fail."""

    def __init__(self, tenants: TenantStore) -> None:
        self._tenants = tenants
        self.lookups = 0
        self.away = False

    def __getattr__(self, name: str) -> object:
        return getattr(self._tenants, name)

    async def key_owner(self, key_id: str) -> KeyOwner | None:
        self.lookups += 1
        return await self._tenants.key_owner(key_id)

    async def touch_keys(self, used_at: object) -> None:
        if self.away:
            raise StoreUnavailable("gone")
        await self._tenants.touch_keys(used_at)  # type: ignore[arg-type]


class Env:
    def __init__(self, store: Store, clock: SkippingClock) -> None:
        self.clock = clock
        self.store = store
        self.tenants = CountedTenants(store.tenants)
        self.access = Authenticator(self.tenants, clock)  # type: ignore[arg-type]
        self.verbs = TenantService(store.tenants, self.access, clock, lambda p: f"{p}x")

    async def key(self, lifetime_s: float | None = None) -> NewKey:
        expires_at = None
        if lifetime_s is not None:
            expires_at = self.clock.now() + timedelta(seconds=lifetime_s)
        return await self.verbs.create_key(DEFAULT_PROJECT, "k", expires_at=expires_at)

    async def is_refused(self, credential: str) -> bool:
        try:
            await self.access.authenticate(credential)
        except LowtideError as error:
            assert error.code == "invalid_api_key"
            return True
        return False


@pytest.fixture
def env(store: Store, clock: SkippingClock) -> Env:
    return Env(store, clock)


async def test_a_key_is_looked_up_once_in_a_while(env: Env) -> None:
    made = await env.key()
    for _ in range(100):
        owner = await env.access.authenticate(made.credential)
    assert owner.project.id == DEFAULT_PROJECT
    assert env.tenants.lookups == 1
    env.clock.advance(limits.KEY_CACHE_S)
    await env.access.authenticate(made.credential)
    assert env.tenants.lookups == 2


async def test_a_cached_key_ends_at_its_instant(env: Env) -> None:
    made = await env.key(lifetime_s=1.0)
    assert not await env.is_refused(made.credential)
    env.clock.advance(1.0)
    assert await env.is_refused(made.credential)
    assert env.tenants.lookups == 1


async def test_a_key_is_good_at_once_after_its_id_was_guessed(env: Env) -> None:
    made = await env.key()
    assert await env.is_refused(f"lt-{made.key.id}-guess")
    assert not await env.is_refused(made.credential)


async def test_the_cache_is_bounded_against_made_up_ids(
    env: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "KEY_UNKNOWN_ENTRIES", 3)
    for number in range(10):
        assert await env.is_refused(f"lt-made{number}-up")
    assert await env.is_refused("lt-made9-up")
    assert env.tenants.lookups == 10
    assert await env.is_refused("lt-made0-up")
    assert env.tenants.lookups == 11


async def test_guessed_ids_push_no_key_out(env: Env, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "KEY_CACHE_ENTRIES", 3)
    monkeypatch.setattr(limits, "KEY_UNKNOWN_ENTRIES", 3)
    made = await env.key()
    await env.access.authenticate(made.credential)
    for number in range(10):
        assert await env.is_refused(f"lt-made{number}-up")
    lookups = env.tenants.lookups
    await env.access.authenticate(made.credential)
    assert env.tenants.lookups == lookups


async def test_a_key_made_after_a_guess_of_its_id_works_at_once(env: Env) -> None:
    made = await env.key()
    env.access._unknown[made.key.id] = env.clock.monotonic()
    env.access.forget(made.key.id)
    assert (await env.access.authenticate(made.credential)).key.id == made.key.id


@pytest.mark.parametrize(
    "credential",
    ["", "lt-", "lt--", "lt-a", "lt-a-", "lt--b", "lt-a-b-c", "LT-a-b", "lt-a-b\n", "lt-ä-b", " "],
)
async def test_what_has_not_the_form_of_a_key_costs_no_look_up(env: Env, credential: str) -> None:
    assert await env.is_refused(credential)
    assert await env.is_refused("lt-a-" + "b" * limits.KEY_CHARS_MAX)
    assert env.tenants.lookups == 0


async def test_uses_are_written_in_one_go_and_survive_a_store_that_is_away(env: Env) -> None:
    made = [await env.key(), await env.key()]

    async def written() -> list[bool]:
        keys = await env.store.tenants.keys()
        return sorted(key.last_used_at is not None for key in keys)

    for each in made:
        await env.access.authenticate(each.credential)
    env.clock.advance(limits.KEY_TOUCH_S)
    env.tenants.away = True
    await env.access.authenticate(made[0].credential)
    assert await written() == [False, False]
    env.tenants.away = False
    await env.access.flush()
    assert await written() == [True, True]


async def test_only_the_hash_of_a_secret_is_stored(env: Env) -> None:
    made = await env.key()
    secret = made.credential.rpartition("-")[2]
    owner = await env.store.tenants.key_owner(made.key.id)
    assert owner is not None
    assert owner.key.secret_hash == hash_secret(secret)
    assert secret not in repr(owner)
    assert owner.key.hint == secret[-4:]
