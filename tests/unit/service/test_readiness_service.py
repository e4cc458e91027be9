"""Readiness: what makes a server not ready, and what asking costs."""

import asyncio
from typing import Any

import pytest
import structlog
from skipping_clock import SkippingClock

from lowtide import limits
from lowtide.core.errors import LowtideError
from lowtide.ports.blobs import Blobs, BlobsUnavailable
from lowtide.ports.store import Store, StoreReadOnly, StoreUnavailable
from lowtide.service.readiness import Readiness
from testkit.faults import Faulty


class Places:
    """A real store and a real folder, each of which may be made to fail."""

    def __init__(self, store: Store, blobs: Blobs, clock: SkippingClock) -> None:
        self.files = Faulty(store.files, ("get",))
        self.blobs = Faulty(blobs, ("size",))
        self.store = Faulty(store, ("check_writable",))
        self.readiness = Readiness(self.files, self.store.check_writable, self.blobs, clock)


@pytest.fixture
def places(store: Store, blobs: Blobs, clock: SkippingClock) -> Places:
    return Places(store, blobs, clock)


async def refusal(readiness: Readiness) -> LowtideError:
    with pytest.raises(LowtideError) as refused:
        await readiness.check()
    return refused.value


async def test_a_server_whose_storage_answers_is_ready(places: Places) -> None:
    await places.readiness.check()


@pytest.mark.parametrize(
    ("database", "bucket", "reported"),
    [
        (True, False, "No answer from the database."),
        (False, True, "No answer from the object store."),
        (True, True, "No answer from the database. No answer from the object store."),
    ],
)
async def test_what_does_not_answer_is_named_to_all_and_explained_in_the_log(
    places: Places, database: bool, bucket: bool, reported: str
) -> None:
    if database:
        places.files.fail("get", StoreUnavailable("postgresql://secret refuses us"))
    if bucket:
        places.blobs.fail("size", BlobsUnavailable("s3://secret refuses us"))
    with structlog.testing.capture_logs() as logs:
        error = await refusal(places.readiness)
    assert (error.code, error.message) == ("storage_unavailable", reported)
    assert all("secret refuses us" in log["reason"] for log in logs)
    assert len(logs) == database + bucket


async def test_a_database_that_takes_no_writes_is_told_as_that(places: Places) -> None:
    places.store.fail("check_writable", StoreReadOnly("it is a standby of secret"))
    error = await refusal(places.readiness)
    assert (error.code, error.message) == (
        "storage_unavailable",
        "The database takes no writes.",
    )


async def test_storage_that_stays_away_is_logged_once_and_once_when_it_is_back(
    places: Places, clock: SkippingClock
) -> None:
    with structlog.testing.capture_logs() as logs:
        for _ in range(20):
            places.files.fail("get", StoreUnavailable("gone"))
            await refusal(places.readiness)
            clock.advance(limits.READY_FRESH_S)
        await places.readiness.check()
        clock.advance(limits.READY_FRESH_S)
        await places.readiness.check()
    assert [(log["event"], log["what"]) for log in logs] == [
        ("storage.missing", "database"),
        ("storage.back", "database"),
    ]


async def test_storage_that_hangs_is_not_waited_for(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*_: Any) -> None:
        await asyncio.Event().wait()

    async def answer(*_: Any) -> None:  # at once, as a real database cannot promise to
        return None

    monkeypatch.setattr(limits, "READY_CHECK_S", 0.01)
    monkeypatch.setattr(places.blobs, "size", hang, raising=False)
    monkeypatch.setattr(places.files, "get", answer, raising=False)
    error = await refusal(places.readiness)
    assert error.message == "No answer from the object store."


async def test_one_look_serves_all_who_ask_within_its_time(
    places: Places, clock: SkippingClock
) -> None:
    await asyncio.gather(*(places.readiness.check() for _ in range(50)))
    assert (places.files.calls["get"], places.blobs.calls["size"]) == (1, 1)
    places.files.fail("get", StoreUnavailable("gone"))
    await places.readiness.check()
    clock.advance(limits.READY_FRESH_S)
    assert (await refusal(places.readiness)).code == "storage_unavailable"
    clock.advance(limits.READY_FRESH_S)
    await places.readiness.check()
    assert places.files.calls["get"] == 3


async def test_a_server_that_was_told_to_stop_is_not_ready(places: Places) -> None:
    await places.readiness.check()
    places.readiness.begin_drain()
    assert (await refusal(places.readiness)).code == "server_stopping"
    assert places.files.calls["get"] == 1
