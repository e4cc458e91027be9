"""Pause, resume and change over HTTP, and a model for all lines."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import openai
import pytest
from batch_env import CATALOGUE, CHAT, Env, open_bench

from lowtide import limits
from lowtide.blobs.url import open_blobs
from lowtide.core.validation.planner import Planner
from lowtide.loops.batches.validate import ValidateLoop


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Env]:
    with open_bench(tmp_path, monkeypatch) as running:
        yield running


def create(env: Env, lines: int = 3, purpose: str = "batch", **more: Any) -> str:
    body = {"input_file_id": env.upload(lines, purpose).id, "endpoint": CHAT, **more}
    return str(env.post(body).json["id"])


def seen(env: Env, batch_id: str) -> dict[str, Any]:
    found: dict[str, Any] = env.http_api.ask("GET", f"/v1/batches/{batch_id}").json
    return found


def test_a_paused_batch_is_in_progress_for_every_sdk_and_says_why_it_waits(env: Env) -> None:
    batch_id = create(env)
    env.plan()
    for _ in range(2):
        answer = env.post({}, f"/v1/batches/{batch_id}/pause")
        assert (answer.status, answer.json["holds"]) == (200, ["user"])
    batch = seen(env, batch_id)
    assert batch["status"] == "in_progress"
    assert batch["reason"].startswith("Paused: it goes on with")
    with openai.OpenAI(api_key="k", base_url=f"{env.http_api.url}/v1", max_retries=0) as client:
        assert client.batches.retrieve(batch_id).status == "in_progress"
        paused = client.post(f"/batches/{batch_id}/resume", cast_to=openai.types.Batch)
        assert paused.status == "in_progress"
    assert seen(env, batch_id)["holds"] == []


def test_an_operators_hold_is_not_lifted_by_a_user_nor_the_other_way_round(env: Env) -> None:
    batch_id = create(env)
    env.plan()
    held = env.post({"in_flight": "abort"}, f"/v1/admin/batches/{batch_id}/pause")
    assert held.json == {"id": batch_id, "holds": ["operator"]}
    env.post({}, f"/v1/batches/{batch_id}/pause")
    assert env.post({}, f"/v1/batches/{batch_id}/resume").json["holds"] == ["operator"]
    reason = seen(env, batch_id)["reason"]
    assert reason == "Paused by the operator of this server, who alone can let it go on."
    env.post({}, f"/v1/batches/{batch_id}/pause")
    released = env.post({}, f"/v1/admin/batches/{batch_id}/resume")
    assert released.json["holds"] == ["user"]


def test_a_batch_can_be_paused_before_it_is_validated(env: Env) -> None:
    batch_id = create(env)
    assert env.post({}, f"/v1/batches/{batch_id}/pause").json["status"] == "validating"
    env.plan()
    batch = seen(env, batch_id)
    assert (batch["status"], batch["holds"]) == ("in_progress", ["user"])


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_a_batch_that_ended_is_neither_paused_nor_resumed(env: Env, verb: str) -> None:
    batch_id = create(env)
    env.plan()
    env.settle(batch_id, ok=[1, 2, 3])
    env.assemble()
    answer = env.post({}, f"/v1/batches/{batch_id}/{verb}")
    assert (answer.status, answer.error["code"]) == (409, "batch_ended")


def patch(env: Env, batch_id: str, **change: Any) -> Any:
    return env.http_api.ask("PATCH", f"/v1/batches/{batch_id}", msgspec.json.encode(change))


def test_priority_window_and_metadata_change_while_the_batch_runs(env: Env) -> None:
    batch_id = create(env, metadata={"a": "b"})
    before = seen(env, batch_id)
    after = patch(env, batch_id, priority=7, completion_window="48h").json
    assert (after["priority"], after["completion_window"]) == (7, "2d")
    assert after["expires_at"] == before["created_at"] + 2 * 86400
    assert after["metadata"] == {"a": "b"}
    env.plan()
    after = patch(env, batch_id, metadata={}, completion_window="1h").json
    assert (after["metadata"], after["priority"], after["completion_window"]) == ({}, 7, "1h")
    again = patch(env, batch_id, metadata={}, completion_window="1h").json
    assert again == after


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"priority": 10**9}, "priority"),
        ({"completion_window": "1m"}, "completion_window"),
        ({"metadata": {"k": "v" * 600}}, "metadata.k"),
        ({"endpoint": "/v1/x"}, "endpoint"),
    ],
)
def test_a_change_that_makes_no_sense_changes_nothing(
    env: Env, change: dict[str, Any], param: str | None
) -> None:
    batch_id = create(env)
    before = seen(env, batch_id)
    refused = patch(env, batch_id, **change)
    assert (refused.status, refused.error["param"]) == (400, param)
    assert seen(env, batch_id)["priority"] == before["priority"]


def test_a_mistyped_field_of_a_change_is_refused_in_words_that_clients_know(env: Env) -> None:
    error = patch(env, create(env), urgency=5).error
    assert (error["code"], error["param"]) == ("unknown_parameter", "urgency")
    assert error["message"] == "Unknown parameter: 'urgency'."


# ---- another model for all lines


@pytest.mark.parametrize("name", ["model", "model_id"])
def test_a_model_at_create_takes_all_lines_and_says_how_many_named_another(
    env: Env, name: str
) -> None:
    batch_id = create(env, **{name: "m"})
    validate(env)
    batch = seen(env, batch_id)
    assert (batch["status"], batch["model"]) == ("in_progress", "org/m-1")
    (warning,) = batch["warnings"]["data"]
    assert (warning["code"], warning["message"][:20]) == (
        "model_overridden",
        "3 lines name another",
    )


def validate(env: Env) -> None:
    """As the server would, where it has a worker."""
    http_api = env.http_api
    loop = ValidateLoop(
        "v",
        http_api.store.lifecycle,
        open_blobs("file", http_api.folder / "blobs"),
        http_api.clock,
        Planner(CATALOGUE, lambda: SimpleNamespace(line_bytes=limits.MIB, media_rule=None)),
        http_api.services.allowance,
        lambda _: None,
    )
    http_api.run(loop.tick(http_api.clock.now()))


def test_a_dry_run_prices_the_model_that_the_lines_would_run_on(env: Env) -> None:
    body = {"input_file_id": env.upload().id, "endpoint": CHAT, "model": "m", "dry_run": True}
    estimate = env.post(body).json
    assert [each["model"] for each in estimate["models"]] == ["org/m-1"]


def test_a_model_that_is_not_there_is_refused_at_once(env: Env) -> None:
    body = {"input_file_id": env.upload().id, "endpoint": CHAT, "model": "nobody's"}
    refused = env.post(body)
    assert (refused.status, refused.error["code"]) == (404, "model_not_found")
    assert refused.error["param"] == "model"
