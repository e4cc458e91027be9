"""`lowtide keys`, `orgs` and `projects`: the same on the database and by a server on it."""

import asyncio
import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from installation import SIDES, Installation, Prompt, running_installation
from prompt import Run

from lowtide import limits
from lowtide.cli.terminal import command_errors
from lowtide.core.accounts.tenancy import DEFAULT_PROJECT
from lowtide.core.errors import LowtideError
from lowtide.data_dir import locked_data_dir
from lowtide.service.accounts.authentication import Authenticator
from lowtide.service.accounts.tenants import DEFAULT_SCOPES
from lowtide.store.schema.tables import HEAD
from lowtide.store.sql_store import SqlStore
from lowtide.system import SystemClock
from testkit.empty_database import place_empty_database
from testkit.next_version import NEXT_HEAD, next_version


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with running_installation(tmp_path_factory.mktemp("home")) as one:
        yield one


@pytest.fixture(params=SIDES)
def ask(request: pytest.FixtureRequest, installation: Installation, run_main: Run) -> Prompt:
    """Either side; the database's has a server running beside."""
    return Prompt(run_main, installation.at(request.param))


@pytest.fixture
def alone(run_main: Run, tmp_path: Path) -> Prompt:
    """A data directory that nothing was ever in."""
    return Prompt(run_main, ("--data-dir", str(tmp_path / "d")))


def is_accepted(data_dir: Path, credential: str) -> bool:
    """Whether a server on that data directory would let this key in."""

    async def examine() -> bool:
        store = SqlStore.sqlite(data_dir / "lowtide.db")
        await store.open()
        try:
            await Authenticator(store.tenants, SystemClock()).authenticate(credential)
        except LowtideError as error:
            assert error.code == "invalid_api_key"
            return False
        finally:
            await store.aclose()
        return True

    return asyncio.run(examine())


# ---- keys


def test_a_new_key_stands_alone_on_standard_output(ask: Prompt, installation: Installation) -> None:
    outcome = ask("keys", "create", "one")
    assert outcome.code == command_errors.DONE
    assert outcome.out.count("\n") == 1
    assert is_accepted(installation.data_dir, outcome.out.strip())
    assert "shown only now" in outcome.err


def test_quiet_says_nothing_else(ask: Prompt) -> None:
    outcome = ask("keys", "create", "q", "--quiet")
    assert outcome.out.startswith("lt-") and outcome.err == ""


def test_json_has_the_key_and_its_record(ask: Prompt) -> None:
    made = ask.json("keys", "create", "j", "--scopes", "admin, read")
    assert made["key"].endswith(made["hint"])
    assert (made["scopes"], made["project_id"]) == (["admin", "read"], DEFAULT_PROJECT)
    assert made["expires_at"] is None


def test_a_key_is_never_shown_again(ask: Prompt) -> None:
    made = ask.json("keys", "create", "secret")
    secret = made["key"].rpartition("-")[2]
    listed = ask("keys", "list").out + ask("keys", "list", "--json").out
    assert made["id"] in listed
    assert secret not in listed


def test_scopes_left_out_are_those_of_the_service(ask: Prompt) -> None:
    assert set(ask.json("keys", "create", "default")["scopes"]) == DEFAULT_SCOPES


@pytest.mark.parametrize(("span", "seconds"), [("90m", 5400), ("12h", 43200), ("30d", 30 * 86400)])
def test_a_span_is_counted_from_now(ask: Prompt, span: str, seconds: int) -> None:
    before = int(time.time())
    made = ask.json("keys", "create", "short", "--expires", span)
    assert before + seconds <= made["expires_at"] <= time.time() + seconds


def test_a_date_to_expire_is_utc(ask: Prompt) -> None:
    made = ask.json("keys", "create", "dated", "--expires", "2033-05-18T03:33:20")
    assert made["expires_at"] == 2_000_000_000


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--expires", "soon"), "--expires 'soon' is no span and no date"),
        (("--expires", "9999-12-31T23:59:59-12:00"), "is no span and no date"),
        (("--expires", "2020-01-01"), "in the past"),
        (("--scopes", "read,root"), "scopes must be one or more of admin, read, submit"),
        (("--scopes", ""), "scopes must be"),
        (("--project", "nope"), "There is no project 'nope'.\nThere are: proj_default (Default)"),
    ],
)
def test_a_key_that_cannot_be_made_is_refused_with_the_reason(
    ask: Prompt, options: tuple[str, str], words: str
) -> None:
    outcome = ask("keys", "create", "bad", *options)
    assert (outcome.code, outcome.out) == (command_errors.USAGE, "")
    assert words in outcome.err
    assert "bad" not in ask("keys", "list").out


def test_a_project_may_be_named(ask: Prompt) -> None:
    name = f"evals {time.monotonic_ns()}"
    project = ask.json("projects", "create", name)
    made = ask.json("keys", "create", "k", "--project", name)
    assert made["project_id"] == project["id"]
    assert [key["id"] for key in ask.json("keys", "list", "--project", name)["data"]] == [
        made["id"]
    ]
    ask("projects", "create", name)
    outcome = ask("keys", "create", "k", "--project", name)
    assert outcome.code == command_errors.USAGE and "2 projects are called" in outcome.err


@pytest.mark.parametrize("part", ["id", "key"])
def test_a_revoked_key_is_refused_and_stays_listed(
    ask: Prompt, installation: Installation, part: str
) -> None:
    made = ask.json("keys", "create", "gone")
    assert ask("keys", "revoke", made[part]).code == command_errors.DONE
    assert not is_accepted(installation.data_dir, made["key"])
    (row,) = [row for row in ask("keys", "list").out.splitlines() if row.startswith(made["id"])]
    assert "revoked" in row.split("\t")
    first = ask.json("keys", "revoke", made["id"])["revoked_at"]
    assert first is not None and first <= time.time()


def test_the_list_says_how_long_a_key_is_good(ask: Prompt) -> None:
    made = ask.json("keys", "create", "dated", "--expires", "2033-05-18T12:00:00")
    (row,) = [row for row in ask("keys", "list").out.splitlines() if row.startswith(made["id"])]
    assert row.split("\t") == [
        made["id"],
        "dated",
        DEFAULT_PROJECT,
        "read,submit",
        "to 2033-05-18",
        "-",
    ]


def test_an_unknown_key_is_told_with_the_way_to_the_list(ask: Prompt) -> None:
    outcome = ask("keys", "revoke", "nobody", "--json")
    assert outcome.code == command_errors.USAGE
    error = json.loads(outcome.out)["error"]
    assert error["code"] == "key_not_found" and "lowtide keys list" in error["hint"]


def test_both_sides_tell_the_same_of_the_same(run_main: Run, installation: Installation) -> None:
    database, server = (Prompt(run_main, installation.at(side)) for side in SIDES)
    by_server = server.json("keys", "create", "by server", "--expires", "1d")
    by_database = database.json("keys", "create", "by database", "--expires", "1d")
    assert by_server.keys() == by_database.keys()
    for noun in ("keys", "projects", "orgs"):
        assert database.json(noun, "list") == server.json(noun, "list")
    assert database.json("usage", "--until", "2026-11-21") == server.json(
        "usage", "--until", "2026-11-21"
    )


# ---- organizations and projects


def test_an_organization_has_limits_and_a_cap_that_can_be_changed(ask: Prompt) -> None:
    name = f"research {time.monotonic_ns()}"
    made = ask.json("orgs", "create", name, "--spend-cap", "12.50", "--limit", "file_bytes=1000")
    assert (made["spend_cap"], made["limits"]["file_bytes"]) == ("12.50", 1000)
    assert made["limits"]["stored_bytes"] is None
    changed = ask.json("orgs", "set", name, "--limit", "stored_bytes=5")
    own = {key: value for key, value in changed["limits"].items() if value is not None}
    assert (own, changed["spend_cap"]) == ({"file_bytes": 1000, "stored_bytes": 5}, "12.50")
    changed = ask.json("orgs", "set", made["id"], "--limit", "file_bytes=default")
    assert changed["limits"]["file_bytes"] is None
    changed = ask.json("orgs", "set", made["id"], "--spend-cap", "none")
    assert changed["spend_cap"] is None
    assert changed["limits"]["stored_bytes"] == 5
    assert changed in ask.json("orgs", "list")["data"]
    (row,) = [row for row in ask("orgs", "list").out.splitlines() if row.startswith(made["id"])]
    assert row.split("\t")[2:4] == ["none", "stored_bytes=5"]


def test_a_cap_keeps_every_digit(ask: Prompt) -> None:
    made = ask.json("orgs", "create", "poor", "--spend-cap", "0.000000000001")
    assert made["spend_cap"] == "0.000000000001"


def test_a_project_belongs_to_an_organization(ask: Prompt) -> None:
    name = f"lab {time.monotonic_ns()}"
    organization = ask.json("orgs", "create", name)
    project_id = ask("projects", "create", "p", "--org", name).out.strip()
    (listed,) = ask.json("projects", "list", "--org", name)["data"]
    assert (listed["id"], listed["organization_id"]) == (project_id, organization["id"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("orgs", "set", "org_default"), "Give --limit or --spend-cap"),
        (("orgs", "set", "org_default", "--limit", "beers=3"), "There are: requests_per_batch"),
        (("orgs", "set", "org_default", "--limit", "file_bytes=lots"), "a whole number"),
        (("orgs", "set", "org_default", "--limit", "file_bytes=-1"), "must be from 0 to"),
        (("orgs", "set", "org_default", "--spend-cap", "plenty"), "no amount of dollars"),
        (("orgs", "set", "org_default", "--spend-cap", "-1"), "spend_cap must be dollars"),
        (("orgs", "set", "org_default", "--spend-cap", "NaN"), "spend_cap must be dollars"),
        (("orgs", "set", "nobody", "--spend-cap", "1"), "There are: org_default (Default)"),
        (("orgs", "create", " "), "name must have"),
        (("projects", "create", "p", "--org", "nobody"), "There is no organization 'nobody'"),
        (("projects", "list", "--org", "nobody"), "There is no organization 'nobody'"),
    ],
)
def test_what_makes_no_sense_is_refused_and_changes_nothing(
    ask: Prompt, arguments: tuple[str, ...], words: str
) -> None:
    before = ask("orgs", "list").out, ask("projects", "list").out
    outcome = ask(*arguments)
    assert outcome.code == command_errors.USAGE
    assert words in outcome.err
    assert (ask("orgs", "list").out, ask("projects", "list").out) == before


def test_a_long_list_of_what_there_is_ends_somewhere(alone: Prompt) -> None:
    for number in range(limits.TENANTS_LISTED_MAX + 2):
        alone("orgs", "create", f"o{number}")
    outcome = alone("orgs", "set", "nobody", "--spend-cap", "1")
    assert "and 3 more" in outcome.err


# ---- which installation


def test_the_first_key_makes_the_installation(alone: Prompt, tmp_path: Path) -> None:
    key = alone("keys", "create", "root", "--scopes", "admin", "--quiet").out.strip()
    assert is_accepted(tmp_path / "d", key)


@pytest.mark.parametrize(
    "arguments",
    [("keys", "list"), ("keys", "revoke", "x"), ("orgs", "list"), ("projects", "list"), ("usage",)],
)
def test_looking_makes_nothing(alone: Prompt, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    outcome = alone(*arguments)
    assert outcome.code == command_errors.USAGE
    assert "There is no installation in" in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_a_server_and_a_folder_exclude_each_other(run_main: Run) -> None:
    outcome = run_main("keys", "list", "--server", "x", "--data-dir", "d")
    assert outcome.code == command_errors.USAGE
    assert "--server and --data-dir exclude each other" in outcome.err


def test_an_option_is_stronger_than_the_variable_for_the_server(
    alone: Prompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOWTIDE_SERVER", "http://127.0.0.1:9")
    assert alone("keys", "create", "here").code == command_errors.DONE


def test_the_variable_names_a_server(run_main: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOWTIDE_SERVER", "http://127.0.0.1:9")
    outcome = run_main("keys", "list")
    assert outcome.code == command_errors.USAGE and "No server answers" in outcome.err


@pytest.fixture
def old_database(tmp_path: Path) -> Iterator[Path]:
    """As the Lowtide before this one left it: what runs here is the next version."""
    path = tmp_path / "d" / "lowtide.db"
    place_empty_database(path)
    with next_version(tmp_path / "next"):
        yield path


def version(database: Path) -> str:
    with closing(sqlite3.connect(database)) as connection:
        (found,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return str(found)


def test_an_old_schema_is_not_changed_under_a_running_server(
    alone: Prompt, old_database: Path
) -> None:
    before = version(old_database)
    with locked_data_dir(old_database.parent):
        outcome = alone("keys", "list")
    assert outcome.code == command_errors.USAGE
    assert "in use by another Lowtide" in outcome.err
    assert version(old_database) == before
    assert before == HEAD


def test_an_old_schema_is_brought_up_to_date_where_nothing_runs(
    alone: Prompt, old_database: Path
) -> None:
    assert alone("keys", "create", "one").code == command_errors.DONE
    assert version(old_database) == NEXT_HEAD
    with locked_data_dir(old_database.parent):
        assert alone("keys", "create", "two").code == command_errors.DONE
