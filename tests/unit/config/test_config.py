"""Settings: where they come from, which of two wins, and what is refused."""

import json
import re
from pathlib import Path

import pytest

from lowtide import config
from lowtide.config.sources import ConfigError, key_lines

SECRET = "s3cr3t-v4lue"


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_flags_win_over_environment_over_file_over_defaults(tmp_path: Path) -> None:
    text = "[server]\nport = 1\nhost = '::1'\n[dispatch]\ncommit_interval_s = 2\n"
    file = write(tmp_path / "l.toml", text)
    environ = {"LOWTIDE_SERVER__PORT": "2", "LOWTIDE_SERVER__HOST": "localhost"}
    settings = config.load(file, environ, {"server.port": 3})
    assert (settings.server.port, settings.server.host) == (3, "localhost")
    assert (settings.dispatch.commit_interval_s, settings.dispatch.attempts_max) == (2, 5)


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
        ("[server]\nprot = 1", "line 2: server.prot: there is no such key. Did you mean 'port'?"),
        ("[server]\nport = 'x'", "line 2: server.port: must be a whole number, not 'x'"),
        ("[server]\nport = 70000", "server.port: must be a port"),
        ("[server]\nhost = '0.0.0.0'", "public address"),
        ("[server]\ndata_dir = 5", "server.data_dir: must be the path of a folder, not 5"),
        ("[limits]\ncompletion_window_default = '5m'", "from 1h to 7d"),
        ("[dispatch]\nlease_ttl_s = 2", "at least three commits"),
        (
            "[[replica]]\nurl = 'h:1'\nmodels = ['m']",
            "line 2: [[replica]] number 1: url: must be an address that begins with http",
        ),
        ("[[replica]]\nurl = 'http://h'\nmodels = []", "at least one model id"),
        ("[[model]]\nid = 'a'\n[[model]]\nid = 'b'\naliases = ['a']", "'a' is twice"),
        ("[dispatch]\nhours = 'at night'", "dispatch.hours: 'at night' is no span of hours"),
        (
            "[dispatch]\ntimezone = 'Berlin'",
            "dispatch.timezone: 'Berlin': there is no such time zone",
        ),
        ("[[model]]\nid = 'a'\nhours = '25:00-26:00'", "[[model]] number 1: hours: '25:00-26:00'"),
        ("[limits]\ninfeasible = 'ignore'", "limits.infeasible"),
        ("[server", "not valid TOML"),
        ("[sever]\nport = 1", "line 1: sever: there is no such section. Did you mean 'server'?"),
        (
            "[limits]\nport = 1",
            "limits.port: there is no such key here; 'port' belongs to [server]",
        ),
        ("server = 5", "server: is a section: write [server]"),
        ("[replica]\nurl = 'http://h'", "line 1: replica: is a list: write [[replica]]"),
        ("[[replica]]\nurl = 'http://h'", "[[replica]] number 1: models: must be at least one"),
        (
            "[[replica]]\nurl = 'http://h'\nmodels = ['m']\nname = 'two words'",
            "line 4: [[replica]] number 1: name: must be 1 to 100 letters, digits and signs",
        ),
        (
            "[[replica]]\nurl = 'http://h/a'\nmodels = ['m']\n"
            "[[replica]]\nurl = 'http://h/b'\nmodels = ['m']",
            "[[replica]] number 2: name: 'h' is that of number 1, too: give each its own",
        ),
        (
            "[[replica]]\nurl = 'http://h'\nnames = { m = '' }",
            "[[replica]] number 1: names: must be a name in requests = the engine's own",
        ),
        ("[[replica]]\nurl = 'http://h'\nmodels = 'm'", "models: must be a list, not 'm'"),
        ("[auth]\nmode = 'closed'", "auth.mode: must be 'open' or 'keys', not 'closed'"),
        ("[server]\nport = true", "server.port: must be a whole number, not true"),
        (
            "[server]\nport = '8000'",
            "line 2: server.port: must be a whole number, not '8000': leave out the quotes",
        ),
        (
            "[[replica]]\nurl = 'http://h'\nmodels = ['m']\nwindow = '32'",
            "line 4: [[replica]] number 1: window: must be a whole number, not '32': leave out the"
            " quotes",
        ),
        (
            "[[replica]]\nurl = 'http://h'\nmodels = ['m']\nverify_tls = 'false'",
            "verify_tls: must be true or false, not 'false': leave out the quotes",
        ),
        ("[[model]]\nid = 'm'\ninput_price = 'cheap'", "must be a number, not 'cheap'"),
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
        dispatch=config.DispatchSettings(hours="22:00-06:00", timezone="Europe/Berlin"),
        model=(
            config.ModelSettings(id="day", hours="09:00-17:00"),
            config.ModelSettings(id="night"),
        ),
    )
    config.check(settings)
    hours = config.hours_by_model(settings.dispatch, settings.model, ["day", "night", "other"])
    assert hours["day"].opens == "window opens 09:00 (Europe/Berlin)"
    assert hours["night"] == hours["other"]
    assert config.hours_by_model(config.Settings().dispatch, (), ["day"]) == {}


MISTAKES = """\
[server]
prot = 8000
data_dir = 5

[dispatch]
attempts_max = 0

[[replica]]
url = "http://a:1/v1"
models = [
    "m",  # [not a section]
]

[[replica]]
modls = ["m"]
url = "http://b:1/v1"
"""


def test_all_mistakes_are_told_at_once_each_with_its_place(tmp_path: Path) -> None:
    file = write(tmp_path / "l.toml", MISTAKES)
    environ = {"LOWTIDE_SERVER__METRICS_PORT": "many"}
    with pytest.raises(ConfigError) as refused:
        config.load(file, environ, {"server.port": 70_000})
    assert str(refused.value).splitlines() == [
        "7 mistakes in the settings:",
        f"{file} line 2: server.prot: there is no such key. Did you mean 'port'?",
        f"{file} line 3: server.data_dir: must be the path of a folder, not 5",
        "LOWTIDE_SERVER__METRICS_PORT: server.metrics_port: must be a whole number, not 'many'",
        f"{file} line 15: [[replica]] number 2: modls: there is no such key."
        " Did you mean 'models'?",
        "--port: server.port: must be a port from 0 to 65535",
        f"{file} line 6: dispatch.attempts_max: must be at least 1",
        f'{file} line 14: [[replica]] number 2: models: must be at least one model id, or "*" for'
        " all that the engine lists",
    ]


def test_a_number_in_a_variable_is_text_by_nature() -> None:
    environ = {
        "LOWTIDE_SERVER__PORT": "81",
        "LOWTIDE_DISPATCH__ATTEMPT_TIMEOUT_S": "2.5",
        "LOWTIDE_LIMITS__BATCHES_PER_HOUR": "7",
    }
    settings = config.load(None, environ)
    assert (settings.server.port, settings.dispatch.attempt_timeout_s) == (81, 2.5)
    assert settings.limits.batches_per_hour == 7


def test_a_value_of_the_wrong_type_is_refused_also_where_another_source_overrides_it(
    tmp_path: Path,
) -> None:
    file = write(tmp_path / "l.toml", "[server]\nhost = '::1'\nport = true\n")
    with pytest.raises(ConfigError) as refused:
        config.load(file, {"LOWTIDE_SERVER__PORT": "eighty"}, {"server.port": 0})
    assert str(refused.value).splitlines() == [
        "2 mistakes in the settings:",
        f"{file} line 3: server.port: must be a whole number, not true",
        "LOWTIDE_SERVER__PORT: server.port: must be a whole number, not 'eighty'",
    ]


def test_a_list_that_a_variable_overrides_is_told_by_its_lines(tmp_path: Path) -> None:
    file = write(tmp_path / "l.toml", "[[replica]]\nurl = 'http://h'\nmodels = 'm'\n")
    environ = {"LOWTIDE_REPLICA": '[{"url": "http://g", "models": ["m"]}]'}
    with pytest.raises(ConfigError, match="line 3: ") as refused:
        config.load(file, environ)
    assert str(refused.value).endswith("models: must be a list, not 'm'")


def test_a_host_that_a_flag_overrides_is_not_held_against_the_other_settings(
    tmp_path: Path,
) -> None:
    file = write(tmp_path / "l.toml", "[server]\nhost = '0.0.0.0'\n")
    settings = config.load(file, {}, {"server.host": "127.0.0.1"})
    assert settings.server.host == "127.0.0.1"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("http://127.0.0.1:9/v1", "http://localhost:9/v1"),
        ("http://engine:9/v1", "HTTP://Engine:9/v1/"),
        ("http://engine/v1", "http://engine:80/v1"),
        ("https://engine/v1", "https://engine:443/v1"),
    ],
)
def test_one_address_in_two_spellings_is_one_engine(tmp_path: Path, one: str, other: str) -> None:
    text = "".join(f"[[replica]]\nurl = '{url}'\nmodels = ['m']\n" for url in (one, other))
    with pytest.raises(ConfigError) as refused:
        config.load(write(tmp_path / "l.toml", text), {})
    assert "line 5: [[replica]] number 2: url: is that of number 1" in str(refused.value)


def test_addresses_that_differ_are_engines_of_their_own(tmp_path: Path) -> None:
    urls = ("http://h:1/v1", "http://h:2/v1", "https://h:2", "http://[::1]:1/v1", "http://h:1/w?a")
    text = "".join(
        f"[[replica]]\nname = 'r{n}'\nurl = '{url}'\nmodels = ['m']\n" for n, url in enumerate(urls)
    )
    assert len(config.load(write(tmp_path / "l.toml", text), {}).replica) == len(urls)


def test_an_empty_variable_counts_as_unset() -> None:
    environ = {"LOWTIDE_SERVER__PORT": "", "LOWTIDE_REPLICA": " ", "LOWTIDE_LIMITS__LINE_BYTES": ""}
    assert config.load(None, environ) == config.Settings()


@pytest.mark.parametrize("first", ["[", "{", "", '"'])
def test_text_in_a_variable_is_taken_as_it_is(first: str) -> None:
    secret = first + "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
    settings = config.load(None, {"LOWTIDE_SERVER__UPLOAD_SECRET": secret + "\n"})
    assert settings.server.upload_secret == secret


def test_a_list_in_a_variable_may_begin_with_a_blank() -> None:
    text = ' [{"url": "http://h:1/v1", "models": ["m"]}]'
    assert config.load(None, {"LOWTIDE_REPLICA": text}).replica[0].models == ("m",)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("LOWTIDE_REPLICA", "http://h", "LOWTIDE_REPLICA: replica: must be a JSON list"),
        ("LOWTIDE_REPLICA", "{}", "LOWTIDE_REPLICA: replica: is a list"),
        ("LOWTIDE_SERVR__PORT", "1", "LOWTIDE_SERVR__PORT: servr: there is no such section"),
        ("LOWTIDE_SERVER__PROT", "1", "LOWTIDE_SERVER__PROT: server.prot: there is no such key"),
        ("LOWTIDE_SERVER__HOST", "0.0.0.0", "LOWTIDE_SERVER__HOST: server.host: '0.0.0.0' is"),
    ],
)
def test_a_bad_variable_is_named(name: str, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        config.load(None, {name: text})


def test_one_entry_of_a_list_cannot_be_changed_by_a_variable(tmp_path: Path) -> None:
    file = write(tmp_path / "l.toml", "[[replica]]\nurl = 'http://h'\nmodels = ['m']\n")
    with pytest.raises(ConfigError, match=r"LOWTIDE_REPLICA__0__API_KEY.*whole list"):
        config.load(file, {"LOWTIDE_REPLICA__0__API_KEY": "k"})


def test_the_values_of_secret_keys_are_not_told(tmp_path: Path) -> None:
    text = f"""
[server]
database_url = ["{SECRET}"]
upload_secret = ["{SECRET}"]
blob_url = ["{SECRET}"]
[[replica]]
url = "ftp://me:{SECRET}@h/v1"
models = ["m"]
api_key = ["{SECRET}"]
headers = ["{SECRET}"]
"""
    with pytest.raises(ConfigError) as refused:
        config.load(write(tmp_path / "l.toml", text), {})
    assert "6 mistakes" in str(refused.value)
    assert SECRET not in str(refused.value)


def test_the_text_form_of_settings_hides_their_secrets() -> None:
    settings = config.Settings(
        server=config.ServerSettings(
            database_url=f"postgresql://u:{SECRET}@h/d", upload_secret=SECRET * 3
        ),
        replica=(config.ReplicaSettings(url="http://h", models=("m",), api_key=SECRET),),
    )
    assert SECRET not in repr(settings)
    assert "port=8000" in repr(settings)


def test_the_file_of_the_system_is_read_where_there_is_no_local_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    system = write(tmp_path / "system.toml", "")
    monkeypatch.setattr("lowtide.config.settings.SYSTEM_FILE", system)
    assert config.settings_file(None) is None
    assert config.settings_file(None, system=True) == system
    write(tmp_path / "lowtide.toml", "")
    assert config.settings_file(None, system=True) == Path("lowtide.toml")
    assert config.settings_file(Path("other.toml"), system=True) == Path("other.toml")


def test_a_folder_in_place_of_the_settings_file_is_called_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder, not a settings file"):
        config.load(tmp_path, {})


def test_the_lines_of_keys_are_found_past_values_of_several_lines() -> None:
    text = """\
a = 1
[s]
text = '''
[no]
no = 1
'''
list = [ "]", # ]
  "x = 1",
]
"quoted" = {x = 1}
[[l]]
[l.sub]
k = 1
[[l]]
k = "["
j = 2
"""
    assert key_lines(text) == {
        ("a",): 1,
        ("s",): 2,
        ("s", "text"): 3,
        ("s", "list"): 7,
        ("s", "quoted"): 10,
        ("l", 0): 11,
        ("l", 0, "sub"): 12,
        ("l", 0, "sub", "k"): 13,
        ("l", 1): 14,
        ("l", 1, "k"): 15,
        ("l", 1, "j"): 16,
    }


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ("api_key = 'k'\napi_key_env = 'K'", "api_key_env: goes not with api_key"),
        ("api_key_file = 'k'\napi_key_env = 'K'", "api_key_env: goes not with api_key_file"),
        ("ca_file = 'ca.pem'\nverify_tls = false", "ca_file: goes not with verify_tls"),
        ("ca_file = 'ca.pem'", "ca_file: the url begins with http://, which has no certificate"),
        ("proxy = 'proxy:3128'", "proxy: must be an address that begins with http://"),
        ("extra_body = { model = 'x' }", "extra_body: 'model' is the request's own"),
        ("extra_body = 'x'", "extra_body: must be a table, not 'x'"),
        ("query = { a = 1 }", "query: must be a table, each value text"),
    ],
)
def test_keys_of_a_replica_that_do_not_go_together_are_refused(
    tmp_path: Path, keys: str, words: str
) -> None:
    text = f"[[replica]]\nurl = 'http://h'\nmodels = ['m']\n{keys}\n"
    with pytest.raises(ConfigError, match=re.escape(f"[[replica]] number 1: {words}")):
        config.load(write(tmp_path / "l.toml", text), {})


def test_numbers_in_the_extra_body_are_numbers_for_the_engine(tmp_path: Path) -> None:
    text = "[[replica]]\nurl = 'http://h'\nmodels = ['m']\n"
    text += "extra_body = { top_p = 0.5, nested = { list = [0.25] } }\n"
    (replica,) = config.load(write(tmp_path / "l.toml", text), {}).replica
    assert json.dumps(dict(replica.extra_body)) == '{"top_p": 0.5, "nested": {"list": [0.25]}}'
