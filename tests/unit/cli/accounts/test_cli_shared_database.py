"""The operator's commands on a PostgreSQL that servers elsewhere may be using."""

import json
from pathlib import Path

import pytest
from prompt import Run

from lowtide.cli.terminal import command_errors
from lowtide.store.schema.tables import HEAD
from testkit.next_version import NEXT_HEAD, next_version
from testkit.postgres import PostgresServer


def use(url: str) -> None:
    Path("lowtide.toml").write_text(f"[server]\ndatabase_url = {json.dumps(url)}\n")


def test_a_key_made_in_one_place_is_listed_in_another(
    run_main: Run, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for machine in ("one", "two"):
        (tmp_path / machine).mkdir()
        monkeypatch.chdir(tmp_path / machine)
        use(postgres_url)
        if machine == "one":
            assert run_main("keys", "create", "nightly").code == command_errors.DONE
    assert "nightly" in run_main("keys", "list", "--json").out


def test_looking_makes_nothing_in_an_empty_database(
    run_main: Run, postgres: PostgresServer
) -> None:
    with postgres.database() as name:
        use(postgres.url(name))
        reported = run_main("keys", "list")
        assert reported.code != command_errors.DONE and "no installation" in reported.err
        tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
        assert postgres.sql(tables, database=name) == "0\n"
        assert run_main("keys", "create", "first").code == command_errors.DONE, "which founds one"


def test_an_older_schema_is_left_to_the_servers(
    run_main: Run, postgres: PostgresServer, tmp_path: Path
) -> None:
    with postgres.database("head") as name, next_version(tmp_path / "next"):
        use(postgres.url(name))
        reported = run_main("keys", "create", "late")
        assert reported.code != command_errors.DONE
        assert f"schema {HEAD}" in reported.err and NEXT_HEAD in reported.err
        assert "Start a server" in reported.err
        seen = postgres.sql("SELECT version_num FROM alembic_version", database=name)
        assert seen == f"{HEAD}\n"
