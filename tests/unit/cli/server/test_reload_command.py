"""`lowtide reload`, and how a change of the settings file is noticed."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prompt import Run

from lowtide.cli.server.reloading import SettingsFileWatch
from lowtide.config.sources import ConfigError
from lowtide.data_dir import DataDirInUse, locked_data_dir, mark_reloadable
from testkit.patience import PATIENCE_S

HOLD = """
import signal, sys
from pathlib import Path
from lowtide.data_dir import locked_data_dir, mark_reloadable
with locked_data_dir(Path(sys.argv[1])):
    if sys.argv[2] == "server":
        signal.signal(signal.SIGHUP, lambda *_: sys.exit(7))
        mark_reloadable(Path(sys.argv[1]))
    print("held", flush=True)
    signal.pause()
"""


def held(folder: Path, by: str) -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), by], stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        try:
            yield child
        finally:
            child.kill()


@pytest.fixture
def server(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    yield from held(tmp_path / "data", "server")


@pytest.fixture
def command(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    yield from held(tmp_path / "data", "command")


def test_the_server_of_the_folder_is_asked(
    server: "subprocess.Popen[bytes]", tmp_path: Path, run_main: Run
) -> None:
    outcome = run_main("reload", "--data-dir", str(tmp_path / "data"))
    assert outcome.code == 0, outcome.err
    assert f"Process {server.pid} reads its settings again" in outcome.err
    assert server.wait(PATIENCE_S) == 7


def test_a_command_that_holds_the_folder_is_not_ended(
    command: "subprocess.Popen[bytes]", tmp_path: Path, run_main: Run
) -> None:
    outcome = run_main("reload", "--data-dir", str(tmp_path / "data"))
    assert outcome.code != 0
    assert "No server or worker runs on" in outcome.err
    assert command.poll() is None


def test_where_no_server_runs_that_is_told_and_no_folder_is_made(
    tmp_path: Path, run_main: Run
) -> None:
    outcome = run_main("reload", "--data-dir", str(tmp_path / "data"))
    assert outcome.code != 0
    assert "--data-dir" in outcome.err
    assert not (tmp_path / "data").exists()


def test_settings_with_a_mistake_are_told_and_nobody_is_asked(
    server: "subprocess.Popen[bytes]", tmp_path: Path, run_main: Run
) -> None:
    config = tmp_path / "lowtide.toml"
    config.write_text("[server]\nprot = 1\n")
    data = str(tmp_path / "data")
    outcome = run_main("reload", "--config", str(config), "--data-dir", data)
    assert outcome.code != 0
    assert "server.prot: there is no such key" in outcome.err
    assert server.poll() is None


def test_the_lock_says_whether_its_process_reloads(tmp_path: Path) -> None:
    with locked_data_dir(tmp_path):
        mark_reloadable(tmp_path)
        with pytest.raises(DataDirInUse, match=rf"\(process {os.getpid()}\)") as caught:
            locked_data_dir(tmp_path).__enter__()
        assert caught.value.reloads
    with locked_data_dir(tmp_path):  # who has it next does not, unless it says so
        with pytest.raises(DataDirInUse) as caught:
            locked_data_dir(tmp_path).__enter__()
        assert not caught.value.reloads


def test_a_change_counts_once_the_file_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "lowtide.toml"
    file.write_text("# one\n")
    watch = SettingsFileWatch(lambda: file)
    assert not watch.has_changed()
    file.write_text("# half of\n")
    assert not watch.has_changed()
    file.write_text("# half of the second\n")
    assert not watch.has_changed()
    assert watch.has_changed()
    watch.note_read()
    assert not watch.has_changed()


def test_a_file_that_was_read_after_its_change_is_not_read_again(tmp_path: Path) -> None:
    file = tmp_path / "lowtide.toml"
    file.write_text("# one\n")
    watch = SettingsFileWatch(lambda: file)
    file.write_text("# the second\n")
    watch.note_read()  # by SIGHUP
    assert [watch.has_changed() for _ in range(3)] == [False] * 3


def test_a_file_that_is_missing_for_a_moment_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "lowtide.toml"
    file.write_text("# one\n")
    watch = SettingsFileWatch(lambda: file)
    file.unlink()
    assert [watch.has_changed() for _ in range(3)] == [False] * 3
    file.write_text("# the second\n")
    assert [watch.has_changed() for _ in range(2)] == [False, True]


def test_without_a_file_there_is_nothing_to_watch(tmp_path: Path) -> None:
    def unreadable() -> Path | None:
        raise ConfigError("cannot be read")

    for file in (lambda: None, unreadable):
        watch = SettingsFileWatch(file)
        assert not watch.has_changed()
