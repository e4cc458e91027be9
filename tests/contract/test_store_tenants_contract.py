"""Contract of TenantStore: organizations, projects, keys, and what each of them has used."""

import inspect
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from lowtide.core.accounts.tenancy import (
    DEFAULT_ORGANIZATION,
    DEFAULT_PROJECT,
    ApiKey,
    OrganizationLimits,
    Project,
)
from lowtide.core.batches.batch import Batch
from lowtide.core.files.file import File
from lowtide.ports import store as port
from lowtide.ports.accounts import LedgerStore, TenantStore
from lowtide.ports.files import FileStore
from testkit.store_fixture import StoreFixture


def key_of(world: StoreFixture, project_id: str, **rest: Any) -> ApiKey:
    return ApiKey(
        id=world.fresh("key_"),
        project_id=project_id,
        name="night jobs",
        secret_hash="ab" * 32,
        hint="wxyz",
        scopes=frozenset({"read", "submit"}),
        created_at=world.now,
        **rest,
    )


async def test_a_fresh_store_has_the_default_organization_and_project(world: StoreFixture) -> None:
    (organization,) = await world.store.tenants.organizations()
    (project,) = await world.store.tenants.projects()
    assert (organization.id, organization.name) == (DEFAULT_ORGANIZATION, "Default")
    assert (organization.limits, organization.spend_cap_pico) == (OrganizationLimits(), None)
    assert (project.id, project.organization_id) == (DEFAULT_PROJECT, DEFAULT_ORGANIZATION)


async def test_an_organization_comes_back_as_it_was_added(world: StoreFixture) -> None:
    limits = OrganizationLimits(requests_per_batch=7, requests_in_flight=3, stored_bytes=2**60)
    added = await world.organization(limits=limits, spend_cap_pico=10**25)
    assert await world.store.tenants.organization(added.id) == added
    assert await world.store.tenants.organization("org_unknown") is None
    assert [o.id for o in await world.store.tenants.organizations()] == [
        added.id,
        DEFAULT_ORGANIZATION,
    ], "oldest first"


async def test_changing_an_organization_replaces_limits_and_cap(world: StoreFixture) -> None:
    added = await world.organization(limits=OrganizationLimits(file_bytes=5), spend_cap_pico=3)
    limits = OrganizationLimits(batches_per_hour=9)
    change = world.store.tenants.change_organization
    assert await change(added.id, limits=limits, spend_cap_pico=None, now=world.now)
    seen = await world.store.tenants.organization(added.id)
    assert seen is not None
    assert (seen.limits, seen.spend_cap_pico, seen.name) == (limits, None, added.name)
    assert not await change("org_unknown", limits=limits, spend_cap_pico=1, now=world.now)


async def test_a_project_needs_an_organization_and_a_key_a_project(world: StoreFixture) -> None:
    tenants = world.store.tenants
    orphan = Project(id="p9", organization_id="org_x", name="x", created_at=world.now)
    assert not await tenants.add_project(orphan)
    assert await tenants.project("p9") is None
    assert not await tenants.add_key(key_of(world, "p9"))
    assert await tenants.keys() == []


async def test_projects_are_listed_by_organization(world: StoreFixture) -> None:
    one, two = await world.organization(), await world.organization()
    for project, owner in (("p1", one), ("p2", two), ("p3", one)):
        await world.project(project, owner.id)
    tenants = world.store.tenants
    assert [p.id for p in await tenants.projects(one.id)] == ["p1", "p3"]
    assert {p.id for p in await tenants.projects()} == {"p1", "p2", "p3", DEFAULT_PROJECT}
    assert await tenants.projects("org_unknown") == []


async def test_a_key_comes_back_with_those_it_acts_for(world: StoreFixture) -> None:
    organization = await world.organization(spend_cap_pico=5)
    await world.project("p1", organization.id)
    key = key_of(world, "p1", expires_at=world.now + timedelta(days=1))
    assert await world.store.tenants.add_key(key)
    owner = await world.store.tenants.key_owner(key.id)
    assert owner is not None
    assert (owner.key, owner.organization) == (key, organization)
    assert owner.project == await world.store.tenants.project("p1")
    assert await world.store.tenants.key_owner("key_unknown") is None


async def test_keys_are_listed_newest_first_with_the_revoked(world: StoreFixture) -> None:
    keys = []
    for project in ("p1", "p2", "p1"):
        key = key_of(world, await world.project(project))
        assert await world.store.tenants.add_key(key)
        keys.append(key)
        world.pass_time(1)
    await world.store.tenants.revoke_key(keys[0].id, world.now)
    assert [k.id for k in await world.store.tenants.keys("p1")] == [keys[2].id, keys[0].id]
    assert [k.id for k in await world.store.tenants.keys()] == [k.id for k in reversed(keys)]
    assert await world.store.tenants.keys("p9") == []


async def test_a_key_is_revoked_once(world: StoreFixture) -> None:
    key = key_of(world, await world.project("p1"))
    await world.store.tenants.add_key(key)
    first = world.now
    assert await world.store.tenants.revoke_key(key.id, first)
    world.pass_time(60)
    assert await world.store.tenants.revoke_key(key.id, world.now)
    (seen,) = await world.store.tenants.keys()
    assert seen.revoked_at == first
    assert not seen.is_valid(first - timedelta(seconds=1))
    assert not await world.store.tenants.revoke_key("key_unknown", world.now)


async def test_the_last_use_of_a_key_never_goes_back(world: StoreFixture) -> None:
    await world.project("p1")
    one, two = key_of(world, "p1"), key_of(world, "p1")
    for key in (one, two):
        await world.store.tenants.add_key(key)
    later = world.now + timedelta(seconds=9)
    await world.store.tenants.touch_keys({one.id: later, "key_unknown": later})
    await world.store.tenants.touch_keys({one.id: world.now, two.id: world.now})
    await world.store.tenants.touch_keys({})
    seen = {key.id: key.last_used_at for key in await world.store.tenants.keys()}
    assert seen == {one.id: later, two.id: world.now}


# ---- what has been used


async def test_batches_created_are_counted_over_all_projects_of_an_organization(
    world: StoreFixture,
) -> None:
    other = await world.organization()
    await world.project("q1", other.id)
    await world.validating(project="p1")
    world.pass_time(10)
    since = world.now
    cancelled = await world.validating(project="p1")
    await world.store.batches.cancel("p1", cancelled.id, world.now)
    await world.validating(project="p2")
    await world.validating(project="q1")
    count = world.store.tenants.batches_created_since
    assert await count(DEFAULT_ORGANIZATION, since) == 2
    assert await count(DEFAULT_ORGANIZATION, since - timedelta(seconds=10)) == 3
    assert await count(other.id, since) == 1
    assert await count("org_unknown", since) == 0


async def test_stored_bytes_are_those_of_files_that_are_not_deleted(world: StoreFixture) -> None:
    other = await world.organization()
    await world.project("q1", other.id)
    gone = await world.file(project="p1")
    await world.file(project="p2")
    await world.file(project="p2", pending=True)
    await world.file(project="q1")

    async def stored(organization_id: str) -> int:
        return (await world.store.tenants.storage_use(organization_id)).bytes

    assert await stored(DEFAULT_ORGANIZATION) == 2000
    await world.store.files.delete("p1", gone.id, world.now)
    assert await stored(DEFAULT_ORGANIZATION) == 1000
    assert await stored("org_unknown") == 0
    ended = await world.completed(failed=1, project="p1")
    assert await stored(DEFAULT_ORGANIZATION) == 1000 + 1000 + 400, "input and results"
    await world.store.files.delete("p1", ended.output_file_id or "", world.now)
    assert await stored(DEFAULT_ORGANIZATION) == 2100


# ---- another tenant's ids


def methods_with_a_project() -> set[str]:
    """Methods of the ports that take whose it is and which one."""
    protocols = (
        FileStore,
        port.BatchStore,
        port.LifecycleStore,
        port.WorkStore,
        port.ResultStore,
        TenantStore,
        LedgerStore,
    )
    return {
        f"{protocol.__name__}.{name}"
        for protocol in protocols
        for name, method in inspect.getmembers(protocol, inspect.isfunction)
        if "project_id" in inspect.signature(method).parameters
    }


async def files_behind(world: StoreFixture, project_id: str, cursor: str) -> list[File]:
    try:
        return await world.store.files.page(project_id, after=cursor, limit=9)
    except port.UnknownCursor:
        return []


async def batches_behind(world: StoreFixture, project_id: str, cursor: str) -> list[Batch]:
    try:
        return await world.store.batches.page(project_id, after=cursor, limit=9)
    except port.UnknownCursor:
        return []


async def test_another_projects_ids_are_unknown_to_every_method(world: StoreFixture) -> None:
    await world.project("p2")
    await world.store.tenants.add_key(key_of(world, await world.project("p1")))
    batch = await world.completed(failed=1, project="p1")
    mine = batch.output_file_id or ""
    store, now = world.store, world.now
    since, until = now - timedelta(days=1), now + timedelta(days=1)
    asked = {
        "FileStore.get": await store.files.get("p2", mine),
        "FileStore.get_many": await store.files.get_many("p2", [mine]),
        "FileStore.page": await files_behind(world, "p2", mine),
        "FileStore.names": await store.files.names("p2", [mine]),
        "FileStore.delete": await store.files.delete("p2", mine, now),
        "BatchStore.get": await store.batches.get("p2", batch.id),
        "BatchStore.get_many": await store.batches.get_many("p2", [batch.id]),
        "BatchStore.page": await batches_behind(world, "p2", batch.id),
        "BatchStore.repeated": await store.batches.repeated("p2", "d", since=since, now=now),
        "BatchStore.cancel": await store.batches.cancel("p2", batch.id, now),
        "TenantStore.keys": await store.tenants.keys("p2"),
        "LedgerStore.usage": await store.ledger.usage(
            since=since, until=until, group_by=["project"], project_id="p2"
        ),
    }
    assert not any(asked.values()), asked
    assert methods_with_a_project() - {"TenantStore.project"} == asked.keys()
    assert await store.files.get("p1", mine) is not None
    assert await world.see(batch) == batch


async def test_a_batch_of_a_project_that_nobody_made_is_refused(world: StoreFixture) -> None:
    record = world.batch_record(await world.file())
    stray = msgspec.structs.replace(record, project_id="p_nobody")
    with pytest.raises(port.StoreError, match="organization_id"):
        await world.store.batches.add(stray, digest="d", repeat=False, since=world.now)
