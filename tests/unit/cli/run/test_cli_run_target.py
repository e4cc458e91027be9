"""Who answers a run: which model is asked where, and what an engine's list of models says of it."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from prompt import Run

from lowtide.cli.run import run_target
from lowtide.cli.run.run_target import RunTarget, check_target, resolve_backend, served_models
from lowtide.cli.terminal.command_errors import CommandError
from lowtide.config import ReplicaSettings, Settings

URL = "http://127.0.0.1:9001/v1"


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the engine answers when it is asked for its models; the last one counts."""
    answers: list[Any] = []
    monkeypatch.setattr(run_target.httpx, "get", lambda *_, **__: answers[-1])
    return answers


def target(**given: Any) -> RunTarget:
    names = ("model", "url", "server", "window", "config_file", "api_key")
    return RunTarget(**(dict.fromkeys(names) | given))


def lists(*names: str) -> httpx.Response:
    return httpx.Response(200, json={"data": [{"id": name} for name in names]})


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        (lists("a", "b"), ("a", "b")),
        (httpx.Response(200, json=[{"id": "a"}]), ("a",)),  # as Together has it
        (httpx.Response(200, json={"data": [{"name": "a"}, 3]}), ()),
        (httpx.Response(200, json=7), ()),
        (httpx.Response(200, text="hello"), ()),
        (httpx.Response(401, json={"data": [{"id": "a"}]}), ()),
    ],
)
def test_an_engine_s_list_of_models_is_read_where_it_has_one(
    answer: httpx.Response, names: tuple[str, ...], listed: list[Any]
) -> None:
    listed.append(answer)
    assert served_models(URL, None) == names


@pytest.mark.parametrize("error", [httpx.ConnectError("no"), httpx.InvalidURL("no")])
def test_an_engine_that_cannot_be_asked_has_no_list(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(run_target.httpx, "get", refuse)
    assert served_models(URL, None) == ()


@pytest.mark.parametrize("names", [("a",), ("llama3",), ("llama3:latest", "a")])
def test_names_that_the_engine_lists_are_sent_to_it(
    names: tuple[str, ...], listed: list[Any]
) -> None:
    listed.append(lists("a", "llama3:latest"))
    backend = resolve_backend(target(url=URL), Settings(), None, names)
    assert backend.settings.replica == (ReplicaSettings(url=URL, models=names),)
    assert backend.embedded is None


def test_other_names_are_refused_and_a_model_that_was_asked_for_is_warned_of(
    listed: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    listed.append(lists("a"))
    with pytest.raises(CommandError, match="does not list x, y; it lists a"):
        resolve_backend(target(url=URL), Settings(), None, ("a", "x", "y"))
    backend = resolve_backend(target(url=URL, model="x"), Settings(), None, ("x",))
    assert "does not list x" in capsys.readouterr().err
    assert backend.settings.replica[0].models == ("x",)
    assert backend.embedded is None


def test_a_model_is_loaded_here_only_where_nothing_else_answers() -> None:
    assert target(model="demo").is_embedded
    assert target(model="demo").override is None
    for given in ({"url": URL}, {"server": "http://a.example"}):
        assert not target(model="m", **given).is_embedded
        assert target(model="m", **given).override == "m"
    assert check_target(target(server="http://a.example", model="m"), Settings()) is not None


@pytest.mark.parametrize(
    ("models", "said"), [('["a", "b"]', "Give --model: a, b"), ('["*"]', "Give --model NAME")]
)
def test_a_table_needs_a_model_by_name_where_there_are_several(
    models: str, said: str, run_main: Run, tmp_path: Path
) -> None:
    (tmp_path / "lowtide.toml").write_text(f'[[replica]]\nurl = "{URL}"\nmodels = {models}\n')
    (tmp_path / "t.csv").write_text("a\n1\n")
    ended = run_main("run", "t.csv", "-o", "o.csv", "--prompt", "{{ a }}")
    assert ended.code == 2
    assert said in ended.err
    assert not (tmp_path / "o.csv.lowtide").exists()
