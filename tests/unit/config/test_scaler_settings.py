"""`[[scaler]]`: what its keys must be, and that no model has two."""

from pathlib import Path

import pytest

from lowtide import config
from lowtide.config.sources import ConfigError
from lowtide.core.replicas.scaler_asks import Bounds
from lowtide.wiring.replicas.scalers import file_name, open_scaler

KUBERNETES = "kind = 'kubernetes'\nnamespace = 'n'\ndeployment = 'd'\n"
COMMAND = "kind = 'command'\nstart = ['sh', '-c', 'exec engine --port ${PORT:-8000}']\n"
RAY = "kind = 'ray'\ndashboard = 'http://head:8265'\napplication = 'llm'\ndeployment = 'E'\n"


def load(tmp_path: Path, *scalers: str, before: str = "") -> config.Settings:
    file = tmp_path / "lowtide.toml"
    file.write_text(before + "".join(f"[[scaler]]\n{text}" for text in scalers))
    return config.load(file, {})


def test_the_three_kinds_can_be_opened(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        KUBERNETES + "models = ['a']\n",
        RAY + "models = ['b']\n",
        COMMAND + "models = ['c']\n",
    ).scaler
    assert [each.label for each in found] == [
        "kubernetes n/d", "ray http://head:8265 llm/E", "command c",
    ]  # fmt: skip
    for each in found:
        open_scaler(each, tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / "lowtide.toml"], "nothing is made by opening"


def test_its_bounds_are_within_those_of_all_models(tmp_path: Path) -> None:
    (one,) = load(
        tmp_path, KUBERNETES + "models = ['m']\n", before="[scale]\nreplicas_max = 3\n"
    ).scaler
    assert one.bounds(3) == Bounds(0, 3)
    (two,) = load(
        tmp_path, KUBERNETES + "models = ['m']\nreplicas_min = 1\nreplicas_max = 2\n"
    ).scaler
    assert two.bounds(8) == Bounds(1, 2)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (KUBERNETES, "number 1: needs the key models"),
        (KUBERNETES + "models = []", "models: must be the ids of the models"),
        (KUBERNETES + "models = ['*']", "models: must be the ids of the models"),
        ("kind = 'kubernetes'\nnamespace = 'n'\nmodels = ['m']", "deployment: must be given, for"),
        (KUBERNETES + "models = ['m']\nstart = ['x']", "start: goes not with kind"),
        (KUBERNETES.replace("'d'", "'D/x'") + "models = ['m']", "a name of Kubernetes"),
        (KUBERNETES + "models = ['m']\nreplicas_max = 9", "replicas_max: must be from 1 to 8"),
        (KUBERNETES + "models = ['m']\nreplicas_max = 2\nreplicas_min = 3", "must be from 0 to 2"),
        (RAY + "models = ['m']\napi_url = 'http://a'", "api_url: goes not with kind"),
        (RAY.replace("http://head", "http://u:p@head") + "models = ['m']", "without a user"),
        ("kind = 'command'\nmodels = ['m']", "start: must be given, for"),
        ("kind = 'command'\nmodels = ['m']\nstart = ['']", "start: must be a program"),
        (COMMAND + "models = ['m']\nstop_s = 0", "stop_s: must be above 0"),
        ("kind = 'slurm'\nmodels = ['m']", "kind: must be"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, keys: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, keys)
    assert words in str(caught.value)


def test_a_model_that_two_would_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="m is one of number 1: it would run as often again"):
        load(tmp_path, KUBERNETES + "models = ['m']\n", COMMAND + "models = ['x', 'm']\n")
    with pytest.raises(ConfigError, match="is that of number 1: list it once"):
        load(tmp_path, KUBERNETES + "models = ['m']\n", KUBERNETES + "models = ['x']\n")


def test_each_label_has_a_file_name_of_its_own() -> None:
    names = {file_name(label) for label in ("command a/b", "command a-b", "command a b")}
    assert len(names) == 3
    assert all("/" not in name and " " not in name for name in names)
