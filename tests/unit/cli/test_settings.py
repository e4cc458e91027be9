"""Which settings file a command of the operator reads, and that it says so."""

from pathlib import Path

import pytest

from lowtide.cli.settings import read_settings


@pytest.fixture
def system_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for /etc/lowtide/lowtide.toml; the working directory is another folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    file = tmp_path / "system.toml"
    monkeypatch.setattr("lowtide.config.settings.SYSTEM_FILE", file)
    monkeypatch.setattr("lowtide.config.SYSTEM_FILE", file)
    return file


def test_the_file_of_the_system_is_read_and_said(
    system_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    system_file.write_text("[server]\nport = 81\n")
    assert read_settings(None).server.port == 81
    assert f"settings: {system_file}" in capsys.readouterr().err


def test_a_local_file_goes_before_it_and_a_command_says_nothing_of_it(
    system_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    system_file.write_text("[server]\nport = 81\n")
    Path("lowtide.toml").write_text("[server]\nport = 82\n")
    assert read_settings(None).server.port == 82
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("system_file")
def test_a_server_always_says_where_its_settings_are_from(
    capsys: pytest.CaptureFixture[str],
) -> None:
    read_settings(None, {"server.port": 83}, always_say=True)
    assert "the defaults" in capsys.readouterr().err
    Path("lowtide.toml").write_text("")
    read_settings(None, always_say=True)
    assert "settings: lowtide.toml" in capsys.readouterr().err
