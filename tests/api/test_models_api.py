"""Models and whoami, through the SDKs and on the wire."""

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
import together
from batch_env import Env, open_bench

TOGETHER = {"user-agent": "Together/Python 2.42.0"}


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Env]:
    with open_bench(tmp_path, monkeypatch) as running:
        yield running


def test_openai_lists_and_retrieves_models(env: Env) -> None:
    with openai.OpenAI(api_key="k", base_url=f"{env.http_api.url}/v1") as client:
        assert [model.id for model in client.models.list()] == ["org/m-1", "test-model"]
        assert client.models.retrieve("org/m-1").owned_by == "org"
        assert client.models.retrieve("m").id == "org/m-1"
        with pytest.raises(openai.NotFoundError, match="No model named 'nope/x'"):
            client.models.retrieve("nope/x")


@pytest.mark.parametrize("name", ["org/m-1", "org%2Fm-1"])
def test_a_model_with_a_slash_is_found_raw_and_quoted(env: Env, name: str) -> None:
    assert env.http_api.ask("GET", f"/v1/models/{name}").json["id"] == "org/m-1"


def test_together_before_3_reads_a_bare_array_with_prices(env: Env) -> None:
    models = env.http_api.ask("GET", "/v1/models", None, TOGETHER).json
    assert isinstance(models, list)
    assert models[0]["pricing"]["input"] == 0.88
    assert models[0]["context_length"] == 4096
    assert all(set(model["pricing"]) >= {"hourly", "input", "output"} for model in models)
    one = env.http_api.ask("GET", "/v1/models/org/m-1", None, TOGETHER).json
    assert one["pricing"]["input"] == 0.88


def test_together_3_lists_the_models_of_its_project(env: Env) -> None:
    with together.Together(
        api_key="k", base_url=env.http_api.url, project_id="proj_default"
    ) as client:
        models = list(client.models.list())
    assert [model.name for model in models] == ["org/m-1", "test-model"]
    assert models[0].weights.context_length == "4096"
    assert models[0].organization_id == "org_default"
    together.types.Model.model_validate(models[0].to_dict())


@pytest.mark.parametrize("path", ["/v1/whoami", "/v3/whoami", "/whoami", "/v1/v3/whoami"])
def test_every_generation_of_the_cli_learns_who_it_is(env: Env, path: str) -> None:
    reported = env.http_api.ask("GET", path).json
    assert reported["project_id"] == reported["project"]["id"] == "proj_default"
    assert reported["organization_id"] == reported["organization"]["id"] == "org_default"
    assert reported["api_key_id"] == reported["api_key"]["id"]
    assert reported["project_slug"] == reported["project"]["slug"] == "default"
    assert reported["user_id"]
