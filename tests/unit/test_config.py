"""Settings: where they come from, which of two wins, and what is refused."""

from pathlib import Path

import pytest

from lowtide import config
from lowtide.config_sources import ConfigError


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_flags_win_over_environment_over_file_over_defaults(tmp_path: Path) -> None:
    file = write(tmp_path / "l.toml", "[server]\nport = 1\nhost = '::1'\n[dispatch]\nbeat_s = 2\n")
    environ = {"LOWTIDE_SERVER__PORT": "2", "LOWTIDE_SERVER__HOST": "localhost"}
    settings = config.load(file, environ, {"server.port": 3})
    assert (settings.server.port, settings.server.host) == (3, "localhost")
    assert (settings.dispatch.beat_s, settings.dispatch.attempts_max) == (2, 5)


@pytest.mark.parametrize("source", ["file", "environment", "flag"])
def test_the_data_directory_can_be_set_from_every_source(tmp_path: Path, source: str) -> None:
    file = write(tmp_path / "l.toml", "[server]\ndata_dir = 'd'\n" if source == "file" else "")
    environ = {"LOWTIDE_SERVER__DATA_DIR": "d"} if source == "environment" else {}
    flags = {"server.data_dir": "d"} if source == "flag" else {}
    assert config.load(file, environ, flags).server.data_dir == Path("d")


def test_a_data_directory_in_the_home_folder_is_expanded() -> None:
    settings = config.load(None, {}, {"server.data_dir": "~/tide"})
    assert settings.server.data_dir == Path.home() / "tide"


def test_replicas_can_come_from_the_environment_as_json() -> None:
    environ = {"LOWTIDE_REPLICA": '[{"url": "http://h:1/v1", "models": ["m"], "window": 8}]'}
    (replica,) = config.load(None, environ).replica
    assert (replica.url, replica.models, replica.window) == ("http://h:1/v1", ("m",), 8)


def test_variables_of_the_command_line_are_no_settings() -> None:
    environ = {"LOWTIDE_SERVER": "http://h", "LOWTIDE_API_KEY": "k", "LOWTIDE_DEBUG": "1"}
    assert config.load(None, environ) == config.Settings()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[server]\nprot = 1", "unknown field `prot`"),
        ("[server]\nport = 'x'", "$.server.port"),
        ("[server]\nport = 70000", "server.port: must be a port"),
        ("[server]\nhost = '0.0.0.0'", "public address"),
        ("[server]\ndata_dir = 5", "path of a folder - at `$.server.data_dir`"),
        ("[limits]\ncompletion_window_default = '5m'", "from 1h to 7d"),
        ("[dispatch]\nlease_ttl_s = 2", "at least three beats"),
        ("[[replica]]\nurl = 'h:1'\nmodels = ['m']", "must begin with http:// or https://"),
        ("[[replica]]\nurl = 'http://h'\nmodels = []", "at least one model id"),
        ("[[model]]\nid = 'a'\n[[model]]\nid = 'b'\naliases = ['a']", "'a' is twice"),
        ("[dispatch]\nhours = 'at night'", "dispatch.hours: 'at night' is no span of hours"),
        ("[dispatch]\ntimezone = 'Berlin'", "dispatch.timezone = 'Berlin'"),
        ("[[model]]\nid = 'a'\nhours = '25:00-26:00'", "[[model]] a: hours"),
        ("[limits]\ninfeasible = 'ignore'", "limits.infeasible"),
        ("[server", "not valid TOML"),
    ],
)
def test_a_bad_setting_is_refused_with_its_key(tmp_path: Path, text: str, words: str) -> None:
    file = write(tmp_path / "l.toml", text)
    with pytest.raises(ConfigError) as refused:
        config.load(file, {})
    assert words in str(refused.value)


def test_a_settings_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        config.load(tmp_path / "none.toml", {})


def test_a_models_own_hours_go_before_those_of_all() -> None:
    settings = config.Settings(
        dispatch=config.Dispatch(hours="22:00-06:00", timezone="Europe/Berlin"),
        model=(config.Model(id="day", hours="09:00-17:00"), config.Model(id="night")),
    )
    config.check(settings)
    hours = config.hours_by_model(settings, ["day", "night", "other"])
    assert hours["day"].opens == "window opens 09:00 (Europe/Berlin)"
    assert hours["night"] == hours["other"]
    assert config.hours_by_model(config.Settings(), ["day"]) == {}
