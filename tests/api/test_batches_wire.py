"""Batches as they look on the wire: who gets which shape, and what a repetition comes to."""

import http.client
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import openai.types
import pytest
from batch_env import CHAT, Env, open_bench

from lowtide import limits
from lowtide.core.files.file import File
from testkit.patience import PATIENCE_S

TOGETHER = {"user-agent": "Together/Python 3.1.1"}
TOGETHER_1X = {"x-together-client-user-agent": "{}", "user-agent": "python-requests/2.32"}


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Env]:
    with open_bench(tmp_path, monkeypatch) as running:
        yield running


def intention(file: File, **fields: Any) -> dict[str, Any]:
    return {"input_file_id": file.id, "endpoint": CHAT, **fields}


def ids_of(env: Env) -> list[str]:
    return [batch["id"] for batch in env.http_api.ask("GET", "/v1/batches").json["data"]]


@pytest.mark.parametrize(("purpose", "status"), [("batch", 200), ("batch-api", 201)])
def test_the_shared_mount_answers_a_create_for_both_sdks(
    env: Env, purpose: str, status: int
) -> None:
    answer = env.post(intention(env.upload(purpose=purpose)))
    assert answer.status == status
    assert answer.json["id"] == answer.json["job"]["id"]
    assert (answer.json["status"], answer.json["job"]["status"]) == ("validating", "VALIDATING")
    openai.types.Batch.model_validate(answer.json, strict=True)


def test_a_fixed_mount_answers_in_its_own_shape_whoever_asks(env: Env) -> None:
    file = env.upload(purpose="batch-api")
    flat = env.post(intention(file), "/openai/v1/batches", **TOGETHER)
    assert flat.status == 200
    assert "job" not in flat.json
    nested = env.post(intention(file), "/together/v1/batches")
    assert nested.status == 201
    assert set(nested.json) == {"job"}
    batch_id = nested.json["job"]["id"]
    for mount, status in (("/openai/v1", "validating"), ("/together/v1", "VALIDATING")):
        assert env.http_api.ask("GET", f"{mount}/batches/{batch_id}").json["status"] == status
    assert isinstance(env.http_api.ask("GET", "/together/v1/batches").json, list)
    assert env.http_api.ask("GET", "/openai/v1/batches", None, TOGETHER).json["object"] == "list"


def test_a_batch_is_shown_as_it_was_created_and_a_list_as_the_client_reads_it(
    env: Env,
) -> None:
    batch_id = env.post(intention(env.upload(purpose="batch-api")), **TOGETHER).json["id"]
    for headers in ({}, TOGETHER):
        one = env.http_api.ask("GET", f"/v1/batches/{batch_id}", None, headers).json
        assert one["status"] == "VALIDATING"
        cancelled = env.http_api.ask("POST", f"/v1/batches/{batch_id}/cancel", None, headers).json
        assert cancelled["status"] in ("IN_PROGRESS", "VALIDATING")
        batch_id = env.post(intention(env.upload(purpose="batch-api"))).json["id"]
    for headers in (TOGETHER, TOGETHER_1X):
        listed = env.http_api.ask("GET", "/v1/batches", None, headers).json
        assert {job["status"] for job in listed} == {"VALIDATING", "IN_PROGRESS"}
    listed = env.http_api.ask("GET", "/v1/batches").json
    assert {batch["status"] for batch in listed["data"]} == {"validating", "cancelling"}
    assert (listed["has_more"], listed["first_id"]) == (False, batch_id)


def test_fields_of_other_vendors_are_taken_and_passed_over(env: Env) -> None:
    answer = env.post(intention(env.upload(), completion_window=None, hook={"a": [1]}, x=2))
    assert answer.status == 200


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input_file_id": 7}, "input_file_id"),
        ({"endpoint": ["a"]}, "endpoint"),
        ({"completion_window": 24}, "completion_window"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"metadata": []}, "metadata"),
        ({"priority": "high"}, "priority"),
        ({"priority": 10**30}, "priority"),
        ({"output_expires_after": {"anchor": "created_at"}}, "output_expires_after"),
        (
            {"output_expires_after": {"anchor": "created_at", "seconds": "1"}},
            "output_expires_after",
        ),
    ],
)
def test_a_field_of_the_wrong_type_is_named(env: Env, fields: dict[str, Any], param: str) -> None:
    answer = env.post(intention(env.upload()) | fields)
    assert (answer.status, answer.error["param"]) == (400, param)
    assert answer.error["type"] == "invalid_request_error"


@pytest.mark.parametrize("body", [b"{", b"[]", b'"x"', b"\xff{}", b""])
def test_a_body_that_is_no_object_is_refused_in_the_envelope(env: Env, body: bytes) -> None:
    answer = env.http_api.ask("POST", "/v1/batches", body)
    assert answer.status == 400
    assert answer.error["message"]


@pytest.mark.parametrize("limit", ["0", "101", "-1", "x", "1.5", "9" * 40, "²"])
def test_a_page_size_out_of_bounds_is_refused(env: Env, limit: str) -> None:
    path = "/v1/batches?limit=" + limit.replace("²", "%C2%B2")
    answer = env.http_api.ask("GET", path)
    assert (answer.status, answer.error["param"]) == (400, "limit")


RETRY = {"x-stainless-retry-count": "1"}


def test_a_client_that_gave_up_and_asks_again_has_one_batch(env: Env) -> None:
    body = msgspec.json.encode(intention(env.upload()))
    env.http_api.run(_arm(env, 1))
    gone = http.client.HTTPConnection("127.0.0.1", env.http_api.port, timeout=PATIENCE_S)
    gone.request("POST", "/v1/batches", body)
    env.http_api.run(env.batches.stored.wait())
    gone.close()  # its time-out came before the answer
    again = env.http_api.ask("POST", "/v1/batches", body, RETRY)
    assert ids_of(env) == [again.json["id"]]
    assert again.headers["lowtide-existing-batch"] == "true"
    env.http_api.run(_release(env))


def test_an_answer_that_nobody_heard_does_not_count(env: Env) -> None:
    body = msgspec.json.encode(intention(env.upload()))
    env.http_api.run(_arm(env, 1))
    gone = http.client.HTTPConnection("127.0.0.1", env.http_api.port, timeout=PATIENCE_S)
    gone.request("POST", "/v1/batches", body)
    env.http_api.run(env.batches.stored.wait())
    gone.close()
    env.http_api.ask("GET", "/health")  # the server has seen the end of the other connection by now
    env.http_api.run(_release(env))
    again = env.http_api.ask("POST", "/v1/batches", body, RETRY)
    assert ids_of(env) == [again.json["id"]]
    assert again.headers["lowtide-existing-batch"] == "true"


def test_two_deliberate_creates_of_the_same_are_two_batches(env: Env) -> None:
    body = intention(env.upload())
    first, second = env.post(body), env.post(body)
    assert ids_of(env) == [second.json["id"], first.json["id"]]
    assert "lowtide-existing-batch" not in second.headers


def test_identical_creates_at_the_same_moment_are_batches_of_their_own(env: Env) -> None:
    body = msgspec.json.encode(intention(env.upload()))
    env.http_api.run(_arm(env, 1))
    first = http.client.HTTPConnection("127.0.0.1", env.http_api.port, timeout=30)
    first.request("POST", "/v1/batches", body)
    env.http_api.run(env.batches.stored.wait())
    second = env.http_api.ask("POST", "/v1/batches", body).json["id"]
    env.http_api.run(_release(env))
    answered = json.loads(first.getresponse().read())["id"]
    first.close()
    assert sorted(ids_of(env)) == sorted([second, answered])
    assert second != answered


def test_a_declared_retry_is_one_batch_even_when_the_first_was_just_answered(
    env: Env,
) -> None:
    body = intention(env.upload())
    first = env.post(body).json["id"]
    assert env.post(body, **RETRY).json["id"] == first
    assert env.post(body, **{"x-stainless-retry-count": "0"}).json["id"] != first


def test_a_declared_retry_after_a_cancelled_run_is_a_new_batch(env: Env) -> None:
    body = intention(env.upload())
    first = env.post(body).json["id"]
    env.http_api.ask("POST", f"/v1/batches/{first}/cancel")
    assert env.post(body, **RETRY).json["id"] != first


@pytest.mark.parametrize("purpose", ["batch", "batch-api"])
def test_result_ids_appear_when_the_batch_has_ended_and_as_partial_ones_before(
    env: Env, purpose: str
) -> None:
    batch_id = env.post(intention(env.upload(3, purpose))).json["id"]
    env.plan()
    ids = {"output": f"file-out-{batch_id[6:]}", "error": f"file-err-{batch_id[6:]}"}

    def shown(**headers: str) -> dict[str, dict[str, Any]]:
        batch = env.http_api.ask("GET", f"/v1/batches/{batch_id}", None, headers).json
        return {
            prefix: {kind: batch[f"{prefix}{kind}_file_id"] for kind in ids}
            for prefix in ("", "partial_")
        }

    nothing = {"output": None, "error": None}
    assert shown() == {"": nothing, "partial_": nothing}
    env.settle(batch_id, ok=[1], bad=[2])
    assert shown() == {"": nothing, "partial_": ids}
    early = {"user-agent": "BatchOpenAI/Python 2.54.0"}
    assert shown(**early) == {"": ids, "partial_": ids}
    env.settle(batch_id, ok=[3])
    assert shown() == {"": nothing, "partial_": ids}  # finalizing: not whole yet
    env.assemble()
    assert shown() == shown(**early) == {"": ids, "partial_": nothing}


def test_a_list_shows_result_ids_by_the_same_rule(env: Env) -> None:
    batch_id = env.post(intention(env.upload(2))).json["id"]
    env.plan()
    env.settle(batch_id, ok=[1])
    for agent, early in (("OpenAI/Python", False), ("BatchOpenAI/Python", True)):
        (one,) = env.http_api.ask("GET", "/v1/batches", None, {"user-agent": agent}).json["data"]
        assert (one["output_file_id"] is not None) is early
        assert one["partial_output_file_id"] is not None


def test_results_are_read_line_by_line_while_the_batch_runs(env: Env) -> None:
    batch_id = env.post(intention(env.upload(5))).json["id"]
    env.plan()
    env.settle(batch_id, ok=[4, 2])
    file_id = env.http_api.ask("GET", f"/v1/batches/{batch_id}").json["partial_output_file_id"]
    seen, offset, incomplete = [], 0, "true"
    for step in range(3):
        path = f"/v1/files/{file_id}/content" + (f"?offset={offset}" if offset else "")
        answer = env.http_api.ask("GET", path)
        seen += [json.loads(line)["custom_id"] for line in answer.body.splitlines()]
        offset, incomplete = int(answer.headers["x-last-line"]), answer.headers["x-incomplete"]
        assert int(answer.headers["content-length"]) == len(answer.body)
        assert incomplete == ("true" if step < 2 else "false")
        if step == 0:
            env.settle(batch_id, ok=[5])
        elif step == 1:
            env.settle(batch_id, ok=[1, 3])
            env.assemble()
    assert seen == ["r-4", "r-2", "r-5", "r-1", "r-3"]
    env.http_api.clock.shift += timedelta(seconds=limits.SEGMENTS_KEEP_S + 1)
    answer = env.http_api.ask("GET", f"/v1/files/{file_id}/content?offset=2")
    assert (answer.status, answer.error["code"]) == (410, "offset_expired")
    whole = env.http_api.ask("GET", f"/v1/files/{file_id}/content").body
    assert [json.loads(line)["custom_id"] for line in whole.splitlines()] == [
        f"r-{line}" for line in range(1, 6)
    ]


async def _arm(env: Env, count: int) -> None:
    env.batches.arm(count)


async def _release(env: Env) -> None:
    env.batches.release.set()
