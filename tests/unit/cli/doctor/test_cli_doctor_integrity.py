"""`lowtide doctor` on drift: what it says, what it asks, and what it leaves alone."""

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from prompt import Run

from lowtide.blobs.folder.folder_blobs import FolderBlobs
from lowtide.store.sql_store import SqlStore
from lowtide.system import SystemClock
from testkit.empty_database import place_empty_database
from testkit.manual_worker import ManualWorker


@pytest.fixture
def blobs(tmp_path: Path) -> Path:
    """The blobs of an installation in ./lowtide-data: a batch with two commits of results."""
    asyncio.run(_install(tmp_path / "lowtide-data"))
    return tmp_path / "lowtide-data" / "blobs"


async def _install(data_dir: Path) -> None:
    place_empty_database(data_dir / "lowtide.db")
    store = SqlStore.sqlite(data_dir / "lowtide.db")
    await store.open()
    hand = ManualWorker(store, FolderBlobs(data_dir / "blobs"), SystemClock())
    batch = await hand.submit(await hand.upload(10), "batch_1")
    await hand.plan()
    await hand.settle(batch.id, ok=[1, 2, 3])
    await hand.settle(batch.id, ok=[4], bad=[5])
    await store.aclose()


def counts(blobs: Path) -> tuple[int, int]:
    with closing(sqlite3.connect(blobs.parent / "lowtide.db")) as database:
        found = database.execute("SELECT completed, failed FROM batches").fetchone()
    return int(found[0]), int(found[1])


def test_without_drift_doctor_says_how_much_it_looked_at(run_main: Run, blobs: Path) -> None:
    outcome = run_main("doctor", "--deep")
    assert outcome.code == 0, outcome.out
    assert "5 blobs that rows need, all there" in outcome.out
    assert blobs.is_dir()


def test_drift_fails_and_names_the_blob_and_the_cure(run_main: Run, blobs: Path) -> None:
    (blobs / "segments/1").unlink()
    outcome = run_main("doctor")
    assert outcome.code == 1
    assert "1 x segment of results, missing: segments/1" in outcome.out
    assert "lowtide doctor --repair" in outcome.out and "run again" in outcome.out
    assert counts(blobs) == (4, 1), "a look changes nothing"


def test_quick_does_not_compare(run_main: Run, blobs: Path) -> None:
    (blobs / "segments/1").unlink()
    outcome = run_main("doctor", "--quick")
    assert outcome.code == 0 and "drift" not in outcome.out


def test_a_repair_is_asked_for_and_may_be_declined(
    run_main: Run, blobs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (blobs / "segments/1").unlink()
    monkeypatch.setattr("typer.confirm", lambda *_, **__: False)
    outcome = run_main("doctor", "--repair")
    assert outcome.code == 2 and "Nothing was changed" in outcome.err
    assert counts(blobs) == (4, 1)


def test_a_repair_mends_and_looks_again(run_main: Run, blobs: Path) -> None:
    (blobs / "segments/1").unlink()
    outcome = run_main("doctor", "--repair", "--yes", "--json")
    assert outcome.code == 0, outcome.out
    answer = json.loads(outcome.out)
    (repair,) = answer["repairs"]
    assert (repair["blob"], repair["trouble"], repair["needed_as"], repair["done"]) == (
        "segments/1",
        "missing",
        "segment",
        True,
    )
    (drift,) = [check for check in answer["checks"] if check["name"] == "drift"]
    assert drift["verdict"] == "ok"
    assert counts(blobs) == (1, 1)
    assert run_main("doctor", "--repair", "--yes").code == 0, "again, with nothing to do"


def test_a_store_without_any_blob_is_taken_for_the_wrong_one(run_main: Run, blobs: Path) -> None:
    blobs.rename(blobs.with_name("elsewhere"))
    outcome = run_main("doctor")
    assert outcome.code == 1 and "every blob that was looked for is missing" in outcome.out
    outcome = run_main("doctor", "--repair", "--yes")
    assert outcome.code == 2 and "--accept-loss" in outcome.err
    assert counts(blobs) == (4, 1)
    assert not blobs.exists(), "not even a folder was made"
    blobs.with_name("elsewhere").rename(blobs)
    assert run_main("doctor").code == 0


@pytest.mark.parametrize(
    "options",
    [("--yes",), ("--accept-loss",), ("--quick", "--deep"), ("--repair", "--json")],
)
def test_options_that_make_no_sense_together_are_refused(
    run_main: Run, options: tuple[str, ...]
) -> None:
    assert run_main("doctor", *options).code == 2


def test_other_problems_come_before_drift(run_main: Run, blobs: Path) -> None:
    """A database of another version is not compared: its rows may mean something else."""
    with closing(sqlite3.connect(blobs.parent / "lowtide.db")) as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
        database.commit()
    outcome = run_main("doctor")
    assert outcome.code == 0 and "drift" not in outcome.out
