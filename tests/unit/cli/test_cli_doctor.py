"""`lowtide doctor`: each thing that can be wrong is found, and nothing is changed by looking."""

import json
import os
import socket
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from prompt import Run

from lowtide.data_dir import locked_data_dir
from lowtide.store.schema import HEAD
from lowtide.testing.scripted_engine import ScriptedEngine, reply


def checks(run_main: Run, *arguments: str | Path, code: int) -> dict[str, dict[str, Any]]:
    outcome = run_main("doctor", "--json", *arguments)
    assert outcome.code == code
    return {check["name"]: check for check in json.loads(outcome.out)["checks"]}


def database(folder: Path, version: str) -> Path:
    folder.mkdir()
    path = folder / "lowtide.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32))")
        connection.execute("INSERT INTO alembic_version VALUES (?)", (version,))
        connection.commit()
    return path


def test_a_fresh_place_is_well_and_stays_untouched(run_main: Run, tmp_path: Path) -> None:
    found = checks(run_main, code=0)
    assert {found[name]["verdict"] for name in ("config", "data dir", "store", "blobs")} == {"ok"}
    assert found["replicas"]["verdict"] == "warn"
    assert list(tmp_path.iterdir()) == []


def test_a_bad_setting_fails_and_names_its_key(run_main: Run, tmp_path: Path) -> None:
    (tmp_path / "lowtide.toml").write_text("[server]\nport = 99999\n")
    found = checks(run_main, code=1)
    assert "server.port" in found["config"]["what"]


def test_a_file_in_the_place_of_the_data_dir_fails(run_main: Run, tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    found = checks(run_main, "--data-dir", "f", code=1)
    assert "is a file" in found["data dir"]["what"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_data_dir_that_cannot_be_written_fails(run_main: Run, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir(mode=0o500)
    assert checks(run_main, "--data-dir", "d", code=1)["data dir"]["verdict"] == "fail"


def test_a_full_disk_fails(run_main: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def usage(_place: Path) -> Any:
        return type("Usage", (), {"free": 1024})

    monkeypatch.setattr("shutil.disk_usage", usage)
    assert checks(run_main, code=1)["space"]["verdict"] == "fail"


def test_a_running_server_is_a_warning(run_main: Run, tmp_path: Path) -> None:
    with locked_data_dir(tmp_path / "d"):
        found = checks(run_main, "--data-dir", "d", code=0)
    assert found["lock"]["verdict"] == "warn"
    assert str(os.getpid()) in found["lock"]["what"]


@pytest.mark.parametrize(("version", "verdict"), [(HEAD, "ok"), ("0000", "warn"), ("9999", "fail")])
def test_the_schema_is_compared_and_left_alone(
    run_main: Run, tmp_path: Path, version: str, verdict: str
) -> None:
    path = database(tmp_path / "d", version)
    before = path.read_bytes()
    found = checks(run_main, "--data-dir", "d", code=1 if verdict == "fail" else 0)
    assert found["store"]["verdict"] == verdict
    assert path.read_bytes() == before


def test_a_damaged_database_fails(run_main: Run, tmp_path: Path) -> None:
    database(tmp_path / "d", HEAD).write_bytes(b"this is no database, and long enough to tell")
    assert checks(run_main, "--data-dir", "d", code=1)["store"]["verdict"] == "fail"


def test_a_port_in_use_is_a_warning(run_main: Run, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (tmp_path / "lowtide.toml").write_text(f"[server]\nport = {port}\n")
        assert checks(run_main, code=0)["port"]["verdict"] == "warn"


MODELS = {"object": "list", "data": [{"id": "theirs"}]}


@pytest.mark.parametrize(
    ("answer", "verdict", "words"),
    [
        (reply(MODELS), "ok", "serves theirs"),
        (reply({"data": [{"id": "other"}]}), "warn", "serves other, not theirs"),
        (reply({"oops": 1}), "warn", "cannot be read"),
        (reply({"error": "key"}, 401), "fail", "answered 401"),
        (reply({"detail": "Not Found"}, 404), "warn", "GET /models gave 404 (Not Found)"),
    ],
)
async def test_replicas_are_asked_what_they_serve(
    tmp_path: Path, answer: bytes, verdict: str, words: str
) -> None:
    from lowtide.cli.checkups import check_replica
    from lowtide.config import Replica

    async with ScriptedEngine((answer,)) as engine:
        replica = Replica(url=engine.url, models=("ours",))
        finding = await check_replica(replica, {"ours": "theirs"})
    assert (finding.verdict, words in finding.what) == (verdict, True), finding.what


async def test_a_replica_that_is_gone_fails() -> None:
    from lowtide.cli.checkups import check_replica
    from lowtide.config import Replica

    finding = await check_replica(Replica(url="http://127.0.0.1:9/v1", models=("m",)), {})
    assert finding.verdict == "fail"
    assert finding.remedy
