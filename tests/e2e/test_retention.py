"""What Lowtide keeps ends: by its own expiry, or at once when its owner deletes it.

Sizes are those of the folder of blobs, as a disk counts them. The sweep's ticks are called with a
later `now`, and the clock of the API is set forward with them.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from product_env import CHAT, Env, Json, RuledEngine, ShiftedClock, ask, asks, replica

from lowtide import limits
from lowtide.config import DispatchSettings, ServerSettings, Settings
from lowtide.loops.batches.housekeeping import SweepLoop
from lowtide.wiring import application
from testkit.scripted_engine import completion, reply

pytestmark = pytest.mark.usefixtures("full_window")

HOUR = timedelta(hours=1)
LINES = 120


class Keeper:
    """A running Lowtide whose clock a test sets forward, and what it has on disk."""

    def __init__(
        self, running: application.Application, http: httpx.AsyncClient, clock: ShiftedClock
    ) -> None:
        self.env = Env(http)
        self.clock = clock
        self._blobs = running.settings.server.data_dir / "blobs"
        self._sweep = SweepLoop(running.store.results, running.blobs, clock)

    def on_disk(self) -> dict[str, int]:
        """Every file and folder of the object store, a file with its bytes."""
        return {
            str(path.relative_to(self._blobs)): path.stat().st_size if path.is_file() else 0
            for path in self._blobs.rglob("*")
        }

    def bytes_on_disk(self) -> int:
        return sum(self.on_disk().values())

    async def sweep(self, later: timedelta = timedelta()) -> None:
        """Set the clock forward and sweep."""
        self.clock.shift += later
        await self._sweep.tick(self.clock.now())

    async def status(self, file_id: str) -> int:
        return (await self.env.http.get(f"/v1/files/{file_id}/content")).status_code


@asynccontextmanager
async def keeping(
    folder: Path, engine: RuledEngine, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Keeper]:
    clock = ShiftedClock()
    monkeypatch.setattr(application, "SystemClock", lambda: clock)
    settings = Settings(
        server=ServerSettings(data_dir=folder / "data"),
        dispatch=DispatchSettings(commit_interval_s=0.05),
        replica=(replica(engine),),
    )
    async with application.open_application(settings) as running:
        assert running.asgi is not None
        transport = httpx.ASGITransport(running.asgi)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            yield Keeper(running, http, clock)


@pytest.fixture
async def engine() -> AsyncIterator[RuledEngine]:
    """Refuses every tenth request, so that there is an error file, too."""
    refusal = (reply({"error": {"message": "no", "type": "invalid_request_error"}}, 400),)
    async with RuledEngine(lambda text, _: refusal if text.endswith("0") else None) as running:
        yield running


@pytest.fixture
async def keeper(
    tmp_path: Path, engine: RuledEngine, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Keeper]:
    async with keeping(tmp_path, engine, monkeypatch) as running:
        yield running


async def upload(env: Env, **fields: str) -> str:
    """The lines of a batch, as a file with these form fields."""
    content = "".join(json.dumps(line) + "\n" for line in asks(LINES)).encode()
    sent = await env.http.post(
        "/v1/files", data={"purpose": "batch", **fields}, files={"file": ("in.jsonl", content)}
    )
    assert sent.status_code == 200, sent.text
    return str(sent.json()["id"])


async def ended(env: Env, file_id: str, **fields: object) -> Json:
    batch = await env.end(await env.create(file_id, CHAT, **fields))
    assert batch["status"] == "completed"
    assert batch["request_counts"] == {"total": LINES, "completed": 108, "failed": 12}
    return batch


def files_of(batch: Json) -> list[str]:
    return [batch["input_file_id"], batch["output_file_id"], batch["error_file_id"]]


async def test_files_go_when_their_own_time_is_over_and_the_disk_is_as_before(
    keeper: Keeper,
) -> None:
    before = keeper.on_disk()
    form = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "7200"}
    input_id = await upload(keeper.env, **form)
    expiry = {"anchor": "created_at", "seconds": 3 * 3600}
    batch = await ended(keeper.env, input_id, output_expires_after=expiry)
    full = keeper.bytes_on_disk()
    assert full > sum(before.values()) + 2 * LINES * 100
    await keeper.sweep(HOUR)
    assert [await keeper.status(file_id) for file_id in files_of(batch)] == [200, 200, 200]
    await keeper.sweep(HOUR)
    assert [await keeper.status(file_id) for file_id in files_of(batch)] == [404, 200, 200]
    assert keeper.bytes_on_disk() < full
    await keeper.sweep(HOUR)
    assert [await keeper.status(file_id) for file_id in files_of(batch)] == [404, 404, 404]
    assert keeper.on_disk() == before


async def test_without_an_expiry_of_their_own_files_are_kept_for_thirty_days(
    keeper: Keeper,
) -> None:
    before = keeper.on_disk()
    batch = await ended(keeper.env, await upload(keeper.env))
    await keeper.sweep(timedelta(seconds=limits.FILE_TTL_S) - HOUR)
    assert [await keeper.status(file_id) for file_id in files_of(batch)] == [200, 200, 200]
    await keeper.sweep(HOUR)
    assert [await keeper.status(file_id) for file_id in files_of(batch)] == [404, 404, 404]
    assert keeper.on_disk() == before


async def test_what_is_deleted_at_once_is_off_the_disk_with_the_next_sweep(
    keeper: Keeper,
) -> None:
    before = keeper.on_disk()
    batch = await ended(keeper.env, await upload(keeper.env))
    for file_id in files_of(batch):
        deleted = await keeper.env.http.delete(f"/v1/files/{file_id}")
        assert deleted.json() == {"id": file_id, "object": "file", "deleted": True}
        assert await keeper.status(file_id) == 404
    await keeper.sweep()
    assert keeper.on_disk() == before


async def test_the_batch_and_its_cost_outlive_its_files(keeper: Keeper) -> None:
    batch = await ended(keeper.env, await upload(keeper.env))
    await keeper.sweep(timedelta(seconds=limits.FILE_TTL_S) + HOUR)
    seen = await keeper.env.see(batch)
    assert seen["usage"] == batch["usage"]
    assert seen["cost"] == batch["cost"]
    assert seen["request_counts"] == batch["request_counts"]


async def test_an_input_deleted_under_a_running_batch_is_kept_until_the_batch_ends(
    keeper: Keeper, engine: RuledEngine
) -> None:
    before = keeper.on_disk()
    engine.rule = lambda *_: (0.01, reply(completion()))
    file_id = await upload(keeper.env)
    batch = await keeper.env.create(file_id)
    await engine.saw_requests(5)
    assert (await keeper.env.http.delete(f"/v1/files/{file_id}")).status_code == 200
    await keeper.sweep()
    assert any(name.startswith(f"files/{file_id}/") for name in keeper.on_disk())
    output, errors = await keeper.env.results(await keeper.env.end(batch))
    assert (len(output), errors) == (LINES, [])
    await keeper.sweep()
    assert not any(name.startswith(f"files/{file_id}/") for name in keeper.on_disk())
    await keeper.sweep(timedelta(seconds=limits.FILE_TTL_S) + HOUR)
    assert keeper.on_disk() == before


async def test_an_input_that_expires_under_a_running_batch_is_kept_until_the_batch_ends(
    keeper: Keeper, engine: RuledEngine
) -> None:
    engine.rule = lambda *_: (0.01, reply(completion()))
    form = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    file_id = await upload(keeper.env, **form)
    batch = await keeper.env.create(file_id)
    await engine.saw_requests(5)
    await keeper.sweep(HOUR)
    assert await keeper.status(file_id) == 404
    output, _ = await keeper.env.results(await keeper.env.end(batch))
    assert len(output) == LINES


async def test_a_cancelled_batch_and_a_failed_one_leave_nothing_behind(
    keeper: Keeper, engine: RuledEngine
) -> None:
    before = keeper.on_disk()
    engine.rule = lambda text, _: None if text == "q1" else (0.05, reply(completion()))
    cancelled = await keeper.env.start(asks(LINES))
    await engine.saw_requests(2)
    await keeper.env.cancel(cancelled)
    await keeper.env.end(cancelled)
    failed = await keeper.env.end(await keeper.env.start([ask(1), "{"]))
    assert failed["status"] == "failed"
    await keeper.sweep(timedelta(seconds=limits.FILE_TTL_S) + HOUR)
    assert keeper.on_disk() == before
