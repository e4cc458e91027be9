"""Every way to go wrong at the prompt: one sentence, the right exit code, JSON where it is due."""

import errno
import json
from pathlib import Path

import pytest
import typer
from prompt import Run
from typer.core import TyperGroup

from lowtide.cli import app
from lowtide.cli.commands import command_line
from lowtide.cli.terminal import command_errors, console
from lowtide.config.sources import ConfigError
from lowtide.core.errors import LowtideError
from lowtide.ports.blobs import BlobsFull
from lowtide.ports.store import StoreUnavailable

LINE = '{"custom_id": "a", "body": {"model": "m", "messages": []}}\n'


@pytest.fixture
def batch(tmp_path: Path) -> Path:
    path = tmp_path / "b.jsonl"
    path.write_text(LINE)
    return path


def test_the_version_is_told(run_main: Run) -> None:
    outcome = run_main("--version")
    assert outcome.code == 0
    assert outcome.out.startswith("lowtide 0.")


def test_the_help_that_imports_no_command_is_that_of_the_commands() -> None:
    def shown(word: str | None) -> dict[str, str]:
        line = typer.main.get_command(command_line(word))
        assert isinstance(line, TyperGroup)
        return {name: each.get_short_help_str(200) for name, each in line.commands.items()}

    assert shown("--help") == shown(None)
    assert all(shown("--help").values())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["frobnicate"], "No such command"),
        (["batches", "show", "x"], "Did you mean `lowtide batches get`?"),
        (["organizations"], "Did you mean `lowtide orgs`?"),
        (["batches", "create", "nope.jsonl"], "nope.jsonl: no such file"),
        (["run"], "Missing argument"),
        (["run", "nope.jsonl", "-o", "o.jsonl"], "nope.jsonl: no such file"),
        (["run", ".", "-o", "o.jsonl"], "is a folder"),
        (["run", ".", "-o", "o.jsonl"], "Name a file in it, as b.jsonl."),
        (
            ["run", "b.jsonl", "-o", "o.jsonl", "--errors", "."],
            "For example: --errors errors.jsonl",
        ),
        (["run", "b.jsonl", "-o", "b.jsonl/o.jsonl"], "b.jsonl is a file, not a folder."),
        (["run", "b.jsonl", "-o", "."], "is a folder"),
        (["run", "b.jsonl", "-o", "b.jsonl"], "is the input itself"),
        (["run", "b.jsonl", "-o", "no/such/o.jsonl"], "does not exist"),
        (["run", "b.jsonl", "-o", "o.jsonl"], "Nothing says what is to answer"),
        (["run", "b.jsonl", "-o", "o", "--server", "x", "--url", "x"], "exclude each other"),
        (["run", "b.jsonl", "-o", "o", "--url", "nonsense"], "is not an address"),
        (["run", "b.jsonl", "-o", "o", "--url", "http://127.0.0.1:9/v1"], "No engine answers"),
        (["run", "b.jsonl", "-o", "o", "--server", "x", "--window", "3"], "--window goes with"),
        (["run", "b.jsonl", "-o", "o", "--model", "demo", "--endpoint", "/x"], "--endpoint"),
        (["run", "b.jsonl", "-o", "o", "--errors", "o", "--model", "demo"], "the same file"),
        (["files", "list", "--server", "http://127.0.0.1:9"], "lowtide serve"),
        (["files", "list", "--server", "ftp://x"], "is not an address"),
        (["files", "content", "x/../y"], "is not the id of a file"),
        (["batches", "create", "file-1", "--metadata", "novalue"], "KEY=VALUE"),
        (["batches", "results", "batch_1", "-o", "."], "is a folder"),
        (["serve", "--slots", "2"], "--slots goes with --model"),
        (["serve", "--config", "missing.toml"], "no such file"),
        (["serve", "--host", "0.0.0.0"], "public address"),
        (["validate", "nope.jsonl"], "no such file"),
        (["validate", "b.jsonl", "--endpoint", "/v2/x"], "/v1/embeddings"),
    ],
)
def test_wrong_use_is_one_sentence_and_exit_code_2(
    run_main: Run, batch: Path, arguments: list[str], words: str
) -> None:
    outcome = run_main(*arguments)
    assert outcome.code == command_errors.USAGE
    assert words in outcome.err
    assert outcome.out == ""
    assert [path.name for path in Path.cwd().iterdir()] == ["b.jsonl"]


def test_a_command_that_was_meant_is_told_once(run_main: Run) -> None:
    outcome = run_main("batches", "wach", "x")
    assert outcome.err.count("Did you mean") == 1
    assert "Did you mean `lowtide batches watch`?" in outcome.err


def test_json_makes_the_error_json_too(run_main: Run) -> None:
    outcome = run_main("files", "list", "--server", "http://127.0.0.1:9", "--json")
    answer = json.loads(outcome.out)
    assert answer["error"]["code"] == "no_server"
    assert outcome.code == command_errors.USAGE


def test_an_empty_input_is_refused(run_main: Run, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    outcome = run_main("run", "empty.jsonl", "-o", "o.jsonl", "--model", "demo")
    assert outcome.code == command_errors.USAGE
    assert "is empty" in outcome.err


def test_an_output_that_is_there_is_not_replaced(
    run_main: Run, batch: Path, tmp_path: Path
) -> None:
    (tmp_path / "o.jsonl").write_text("precious")
    outcome = run_main("run", batch, "-o", "o.jsonl", "--model", "demo")
    assert outcome.code == command_errors.USAGE
    assert "--force" in outcome.err
    assert (tmp_path / "o.jsonl").read_text() == "precious"


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (LowtideError("batch_not_found", "No batch.", "id"), "batch_not_found", "No batch. (id)"),
        (ConfigError("server.port: must be a port"), "bad_config", "server.port"),
        (OSError(errno.ENOSPC, "No space left", "/x/out"), "disk_full", "/x/out: no space left"),
        (BlobsFull("the disk is full"), "storage_full", "the disk is full"),
        (StoreUnavailable("locked"), "storage_unavailable", "locked"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "os_error", "/x: Permission"),
        (ExceptionGroup("g", [ConfigError("inner")]), "bad_config", "inner"),
        (KeyError("surprise"), "internal_error", "surprise"),
    ],
)
def test_every_failure_has_words(error: Exception, code: str, words: str) -> None:
    failure = command_errors.explain(error)
    assert failure.code == code
    assert words in failure.message


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (KeyboardInterrupt(), command_errors.INTERRUPTED),
        (command_errors.Terminated(), command_errors.TERMINATED),
        (BrokenPipeError(), command_errors.BROKEN_PIPE),
        (RuntimeError("surprise"), command_errors.USAGE),
    ],
)
def test_whatever_a_command_raises_ends_in_an_exit_code(
    run_main: Run, monkeypatch: pytest.MonkeyPatch, batch: Path, raised: BaseException, code: int
) -> None:
    def fail(*_: object) -> None:
        raise raised

    monkeypatch.setattr("lowtide.cli.batches.validate.inspect", fail)
    monkeypatch.setattr(console, "close_stdout", lambda: None)
    assert run_main("validate", batch).code == code


def test_debug_shows_where_it_happened(
    monkeypatch: pytest.MonkeyPatch, batch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOWTIDE_DEBUG", "1")
    assert app.main(["validate", "nope.jsonl"]) == command_errors.USAGE
    assert "Traceback" in capsys.readouterr().err
