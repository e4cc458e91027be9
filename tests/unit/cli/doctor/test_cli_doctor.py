"""`lowtide doctor`: each thing that can be wrong is found, and nothing is changed by looking."""

import asyncio
import json
import os
import socket
import sqlite3
import threading
from contextlib import closing
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from prompt import Run

from lowtide.core.replicas.replica_assignment import Member
from lowtide.data_dir import locked_data_dir
from lowtide.store.schema.tables import HEAD
from lowtide.store.sql_store import SqlStore
from testkit.empty_database import place_empty_database
from testkit.next_version import next_version
from testkit.postgres import PostgresServer


def checks(run_main: Run, *arguments: str | Path, code: int) -> dict[str, dict[str, Any]]:
    outcome = run_main("doctor", "--json", *arguments)
    assert outcome.code == code
    return {check["name"]: check for check in json.loads(outcome.out)["checks"]}


def database(folder: Path, version: str, least_code: str = HEAD) -> Path:
    """A whole one, that says it is of this version and asks for this code."""
    path = folder / "lowtide.db"
    place_empty_database(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (version,))
        connection.execute("UPDATE schema_compatibility SET least_code = ?", (least_code,))
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


def test_a_data_dir_that_others_may_read_is_warned_of(run_main: Run, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir(mode=0o755)
    found = checks(run_main, "--data-dir", "d", code=0)["data dir"]
    assert (found["verdict"], "755" in found["what"]) == ("warn", True)
    (tmp_path / "d").chmod(0o700)
    assert checks(run_main, "--data-dir", "d", code=0)["data dir"]["verdict"] == "ok"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_data_dir_that_cannot_be_written_fails(run_main: Run, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir(mode=0o500)
    assert checks(run_main, "--data-dir", "d", code=1)["data dir"]["verdict"] == "fail"


def test_a_full_disk_fails(run_main: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def usage(_place: Path) -> Any:
        return type("Usage", (), {"free": 1024})

    monkeypatch.setattr("shutil.disk_usage", usage)
    assert checks(run_main, code=1)["space"]["verdict"] == "fail"


def test_a_restore_that_did_not_end_fails(run_main: Run, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "restore.partial").touch()
    found = checks(run_main, "--data-dir", "d", code=1)
    assert found["lock"]["verdict"] == "fail" and "lowtide restore" in found["lock"]["remedy"]


def test_a_running_server_is_no_warning(run_main: Run, tmp_path: Path) -> None:
    with locked_data_dir(tmp_path / "d"):
        found = checks(run_main, "--data-dir", "d", code=0)
    assert found["lock"]["verdict"] == "ok"
    assert f"process {os.getpid()}" in found["lock"]["what"]


def test_a_lowtide_at_the_port_is_fine_if_it_is_that_of_the_folder(
    run_main: Run, tmp_path: Path
) -> None:
    class Probe(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"status": "ok"}')

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Probe) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        (tmp_path / "lowtide.toml").write_text(f"[server]\nport = {server.server_port}\n")
        with locked_data_dir(tmp_path / "d"):
            mine = checks(run_main, "--data-dir", "d", code=0)["port"]
        others = checks(run_main, "--data-dir", "other", code=0)["port"]
        server.shutdown()
        thread.join()
    assert mine["verdict"] == "ok"
    assert others["verdict"] == "warn" and "another Lowtide" in others["what"]
    assert not (tmp_path / "other").exists()


SCHEMAS = [
    (HEAD, HEAD, "ok"),
    ("0012", HEAD, "fail"),  # of a development version
    ("9999", HEAD, "ok"),  # a rolling upgrade: it says that we may go on
    ("9999", "9998", "fail"),
]


@pytest.mark.parametrize(("version", "least_code", "verdict"), SCHEMAS)
def test_the_schema_is_compared_and_left_alone(
    run_main: Run, tmp_path: Path, version: str, least_code: str, verdict: str
) -> None:
    path = database(tmp_path / "d", version, least_code)
    before = path.read_bytes()
    found = checks(run_main, "--data-dir", "d", code=1 if verdict == "fail" else 0)
    assert found["store"]["verdict"] == verdict
    assert path.read_bytes() == before


def test_a_schema_that_the_next_start_brings_up_to_date_is_a_warning(
    run_main: Run, tmp_path: Path
) -> None:
    path = database(tmp_path / "d", HEAD)
    before = path.read_bytes()
    with next_version(tmp_path / "next"):
        found = checks(run_main, "--data-dir", "d", code=0)
    assert found["store"]["verdict"] == "warn" and "next start" in found["store"]["remedy"]
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


def settings(tmp_path: Path, text: str) -> None:
    (tmp_path / "lowtide.toml").write_text(text)


def test_keys_mode_without_a_key_warns_and_says_how_to_make_one(
    run_main: Run, tmp_path: Path
) -> None:
    settings(tmp_path, '[auth]\nmode = "keys"\n')
    auth = checks(run_main, code=0)["auth"]
    assert auth["verdict"] == "warn" and "every call is refused" in auth["what"]
    assert "lowtide keys create" in auth["remedy"]
    assert not (tmp_path / "lowtide-data").exists()


def test_keys_mode_wants_an_administrator(run_main: Run, tmp_path: Path) -> None:
    settings(tmp_path, '[auth]\nmode = "keys"\n')
    run_main("keys", "create", "somebody")
    auth = checks(run_main, code=0)["auth"]
    assert auth["verdict"] == "warn" and "1 valid, 0 of them" in auth["what"]
    made = json.loads(run_main("keys", "create", "root", "--scopes", "admin", "--json").out)
    assert checks(run_main, code=0)["auth"]["verdict"] == "ok"
    run_main("keys", "revoke", made["id"])
    assert checks(run_main, code=0)["auth"]["verdict"] == "warn"


def test_open_mode_is_told(run_main: Run) -> None:
    assert "no key is asked for" in checks(run_main, code=0)["auth"]["what"]


def test_a_spend_cap_that_is_reached_is_a_warning(run_main: Run) -> None:
    run_main("orgs", "create", "research", "--spend-cap", "5")
    assert "none is reached" in checks(run_main, code=0)["spend cap"]["what"]
    run_main("orgs", "set", "research", "--spend-cap", "0")
    cap = checks(run_main, code=0)["spend cap"]
    assert cap["verdict"] == "warn" and cap["what"].startswith("research (org_")
    assert "lowtide orgs set org_" in cap["remedy"]


@pytest.mark.parametrize(
    ("models", "priced", "verdict", "words"),
    [
        (["a", "b"], ["a", "b"], "ok", "each of 2"),
        (["a", "alias-of-a"], ["a"], "ok", "each of 1"),
        (["a", "b"], ["a"], "warn", "b without one"),
        (["a", "b"], [], "ok", "no served model has one"),
    ],
)
def test_models_that_cost_nothing_beside_others_that_do_are_a_warning(
    run_main: Run,
    tmp_path: Path,
    models: list[str],
    priced: list[str],
    verdict: str,
    words: str,
) -> None:
    text = f'[[replica]]\nurl = "http://127.0.0.1:9/v1"\nmodels = {json.dumps(models)}\n'
    for model in priced:
        names = f'id = "{model}"\naliases = ["alias-of-{model}"]\n'
        text += f"[[model]]\n{names}input_price = 0.1\n"
    settings(tmp_path, text)
    prices = checks(run_main, code=1)["prices"]  # 1: nobody listens at the replica's address
    assert (prices["verdict"], words in prices["what"]) == (verdict, True), prices["what"]


# ---- PostgreSQL


def use(url: str, lease_ttl_s: float = 30) -> None:
    """In the settings of this folder."""
    Path("lowtide.toml").write_text(
        f"[server]\ndatabase_url = {json.dumps(url)}\n[dispatch]\nlease_ttl_s = {lease_ttl_s}\n"
    )


def test_a_postgres_is_named_with_its_schema_and_what_makes_it_unsafe(
    run_main: Run, postgres_url: str
) -> None:
    use(postgres_url)
    found = checks(run_main, code=0)["store"]
    assert found["verdict"] == "warn", "the server of the tests may forget in a power cut"
    assert "PostgreSQL" in found["what"] and f"schema {HEAD}" in found["what"]
    assert "fsync = off" in found["what"]


@pytest.mark.parametrize(("version", "least_code", "verdict"), SCHEMAS[1:])
def test_the_schema_of_a_postgres_is_compared_and_left_alone(
    run_main: Run, postgres: PostgresServer, version: str, least_code: str, verdict: str
) -> None:
    verdict = "warn" if verdict == "ok" else verdict  # its settings are those of a test
    with postgres.database("head") as name:
        postgres.sql(
            f"UPDATE alembic_version SET version_num = '{version}'",
            f"UPDATE schema_compatibility SET least_code = '{least_code}'",
            database=name,
        )
        use(postgres.url(name))
        found = checks(run_main, code=1 if verdict == "fail" else 0)["store"]
        assert found["verdict"] == verdict and version in found["what"]
        seen = postgres.sql("SELECT version_num FROM alembic_version", database=name)
        assert seen == f"{version}\n"


def test_an_empty_postgres_stays_empty(run_main: Run, postgres: PostgresServer) -> None:
    with postgres.database() as name:
        use(postgres.url(name))
        assert "empty" in checks(run_main, code=0)["store"]["what"]
        tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
        assert postgres.sql(tables, database=name) == "0\n"


def test_a_postgres_that_is_not_there_fails_and_keeps_its_password(
    run_main: Run, tmp_path: Path
) -> None:
    use(f"postgresql://me:secret@/db?host={tmp_path}")
    found = checks(run_main, code=1)["store"]
    assert found["verdict"] == "fail" and "database_url" in found["remedy"]
    assert "secret" not in json.dumps(found)


def test_another_kind_of_database_fails_with_the_kinds_there_are(run_main: Run) -> None:
    use("mysql://h/db")
    assert "postgresql://" in checks(run_main, code=1)["store"]["what"]


def beat(url: str, worker_id: str, *wants: str) -> None:
    """A worker's heartbeat, and its claim of all that it wants."""

    async def make() -> None:
        store = SqlStore(url)
        await store.open()
        now = datetime.now(UTC)
        await store.ownership.heartbeat(Member(worker_id, 1, 30.0, frozenset(wants)), now)
        await store.ownership.claim(worker_id, wants, now)
        await store.aclose()

    asyncio.run(make())


def test_workers_are_named_with_the_replicas_that_are_theirs(
    run_main: Run, tmp_path: Path, postgres_url: str
) -> None:
    config = f"[server]\ndatabase_url = {json.dumps(postgres_url)}\n"
    config += "[[replica]]\nurl = 'http://r2.invalid/v1/'\nmodels = ['m']\n"
    (tmp_path / "lowtide.toml").write_text(config)
    found = checks(run_main, code=1)  # the replica is not there
    assert (found["workers"]["verdict"], found["workers"]["what"]) == ("ok", "none runs at present")
    beat(postgres_url, "w-1", "r1.invalid")
    one = checks(run_main, code=1)["workers"]
    assert one["verdict"] == "warn" and "no worker lists r2.invalid;" in one["what"]
    beat(postgres_url, "w-2", "r1.invalid", "r2.invalid")
    both = checks(run_main, code=1)["workers"]
    assert both["verdict"] == "ok"
    assert both["what"] == "w-1: r1.invalid; w-2: r2.invalid"
