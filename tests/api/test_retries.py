"""A retry over HTTP: what it covers, when it is refused, and results joined over the tree."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest
from api_server import Answer
from batch_env import CHAT, Env, open_bench

from lowtide.core.batches.batch import BatchError


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Env]:
    with open_bench(tmp_path, monkeypatch) as running:
        yield running


def create(env: Env, lines: int = 6, purpose: str = "batch") -> str:
    body = {"input_file_id": env.upload(lines, purpose).id, "endpoint": CHAT}
    return str(env.post(body).json["id"])


def ended(env: Env, *, ok: list[int], bad: list[int], lines: int = 6) -> str:
    """A batch whose other lines were cancelled."""
    batch_id = create(env, lines)
    env.plan()
    env.settle(batch_id, ok=ok, bad=bad)
    finish(env, batch_id, left=lines - len(ok) - len(bad))
    return batch_id


def finish(env: Env, batch_id: str, *, left: int) -> None:
    if left:
        env.post({}, f"/v1/batches/{batch_id}/cancel")
        env.http_api.run(env.worker.let_go(batch_id))
    env.assemble()


def retry(env: Env, batch_id: str, **asked: Any) -> Answer:
    answer: Answer = env.post(asked, f"/v1/batches/{batch_id}/retry")
    return answer


def results(env: Env, batch_id: str, *, with_retries: bool = True) -> list[dict[str, Any]]:
    flag = str(with_retries).lower()
    answer = env.http_api.ask("GET", f"/v1/batches/{batch_id}/results?with_retries={flag}")
    assert answer.status == 200, answer.body
    return [json.loads(line) for line in answer.body.splitlines()]


def is_success(line: dict[str, Any]) -> bool:
    return bool(line["response"] and line["response"]["status_code"] == 200)


def test_a_retry_runs_the_lines_without_success_and_no_other(env: Env) -> None:
    first = ended(env, ok=[1, 2], bad=[4, 6])
    made = retry(env, first)
    assert made.status == 200, made.body
    batch = made.json
    assert (batch["retry_of"], batch["status"]) == (first, "validating")
    assert (
        batch["input_file_id"]
        == env.http_api.ask("GET", f"/v1/batches/{first}").json["input_file_id"]
    )
    env.plan()
    env.settle(batch["id"], ok=[3, 4], bad=[5, 6])
    env.assemble()
    ended_retry = env.http_api.ask("GET", f"/v1/batches/{batch['id']}").json
    assert ended_retry["request_counts"] == {"total": 4, "completed": 2, "failed": 2}
    again = retry(env, batch["id"]).json
    env.plan()
    env.settle(again["id"], ok=[5, 6])
    env.assemble()
    lines = results(env, first)
    assert [line["custom_id"] for line in lines] == [f"r-{n}" for n in range(1, 7)]
    assert all(map(is_success, lines))
    assert results(env, again["id"]) == lines, "whichever batch of the tree is named"
    refused = retry(env, first)
    assert (refused.status, refused.error["code"]) == (409, "nothing_to_retry")
    assert "Every line" in refused.error["message"]


def test_results_without_retries_are_those_of_the_batch_in_input_order(env: Env) -> None:
    first = ended(env, ok=[6, 2, 1], bad=[4])
    lines = results(env, first, with_retries=False)
    assert [line["custom_id"] for line in lines] == [f"r-{n}" for n in range(1, 7)]
    assert [is_success(line) for line in lines] == [True, True, False, False, False, True]


def test_while_a_retry_runs_the_joined_results_say_that_more_may_come(env: Env) -> None:
    first = ended(env, ok=[1], bad=[2, 3], lines=3)
    path = f"/v1/batches/{first}/results?with_retries=true"
    assert env.http_api.ask("GET", path).headers["x-incomplete"] == "false"
    retry(env, first)
    answer = env.http_api.ask("GET", path)
    assert answer.headers["x-incomplete"] == "true"
    assert answer.body.count(b"\n") == 3


@pytest.mark.parametrize(
    ("only", "lines"),
    [("failed", [4, 6]), ("cancelled", [3, 5]), ("all_unsuccessful", [3, 4, 5, 6])],
)
def test_only_says_which_failures_are_meant(env: Env, only: str, lines: list[int]) -> None:
    first = ended(env, ok=[1, 2], bad=[4, 6])
    batch_id = retry(env, first, only=only).json["id"]
    env.plan()
    env.settle(batch_id, ok=lines)
    env.assemble()
    found = env.http_api.ask("GET", f"/v1/batches/{batch_id}").json
    assert (found["status"], found["request_counts"]["completed"]) == ("completed", len(lines))


def test_codes_are_those_that_the_errors_page_tells(env: Env) -> None:
    first = ended(env, ok=[1, 2], bad=[4, 6])
    groups = env.http_api.ask("GET", f"/v1/batches/{first}/errors").json
    assert groups["total"] == 4
    by_code = {group["code"]: group["count"] for group in groups["data"]}
    assert by_code == {"400": 2, "batch_cancelled": 2}
    examples = next(g for g in groups["data"] if g["code"] == "400")["examples"]
    assert examples == [
        {"line": 4, "custom_id": "r-4", "message": "no"},
        {"line": 6, "custom_id": "r-6", "message": "no"},
    ]
    refused = retry(env, first, codes=["429"])
    assert (refused.status, refused.error["code"]) == (409, "nothing_to_retry")
    assert "400: 2, batch_cancelled: 2" in refused.error["message"]
    batch_id = retry(env, first, codes=["400"]).json["id"]
    env.plan()
    env.settle(batch_id, ok=[4, 6])


def test_a_retry_of_a_group_runs_its_lines_and_no_other_with_that_code(env: Env) -> None:
    env.worker.refusals |= {
        3: "too long by 12 tokens",
        4: "no such image",
        5: "too long by 7 tokens",
    }
    first = ended(env, ok=[1, 2], bad=[3, 4, 5, 6])
    groups = env.http_api.ask("GET", f"/v1/batches/{first}/errors").json["data"]
    assert {group["code"] for group in groups} == {"400"}
    by_message = {group["message"]: group for group in groups}
    long = by_message["too long by # tokens"]
    assert (long["count"], len(by_message)) == (2, 3)
    refused = retry(env, first, groups=[long["id"]], codes=["429"])
    assert refused.error["code"] == "nothing_to_retry", "both must hold"
    batch_id = retry(env, first, groups=[long["id"]]).json["id"]
    env.plan()
    env.worker.refusals |= {5: "no such image"}
    env.settle(batch_id, ok=[3], bad=[5])
    finish(env, batch_id, left=0)
    # A line belongs to the group of its last failure: line 5 is of another one now.
    refused = retry(env, first, groups=[long["id"]])
    assert refused.error["code"] == "nothing_to_retry"
    batch_id = retry(env, first, groups=[by_message["no such image"]["id"]]).json["id"]
    env.plan()
    env.settle(batch_id, ok=[4, 5])
    finish(env, batch_id, left=0)
    assert [is_success(line) for line in results(env, first)] == [True] * 5 + [False]


def test_errors_are_grouped_while_the_batch_runs(env: Env) -> None:
    batch_id = create(env)
    path = f"/v1/batches/{batch_id}/errors"
    assert env.http_api.ask("GET", path).json == {"object": "list", "data": [], "total": 0}
    env.plan()
    env.settle(batch_id, bad=[1, 2])
    (group,) = env.http_api.ask("GET", path).json["data"]
    assert (group["code"], group["message"], group["count"]) == ("400", "no", 2)


def test_one_retry_of_a_tree_runs_at_a_time_and_the_refusal_names_it(env: Env) -> None:
    first = ended(env, ok=[1], bad=[2, 3], lines=3)
    running = retry(env, first).json["id"]
    for batch_id in (first, running):
        refused = retry(env, batch_id)
        assert refused.status == 409
        code = "retry_unfinished" if batch_id == first else "batch_not_ended"
        assert refused.error["code"] == code
        assert running in refused.error["message"]


def test_a_batch_that_runs_cannot_be_retried(env: Env) -> None:
    batch_id = create(env)
    assert retry(env, batch_id).error["code"] == "batch_not_ended"
    env.plan()
    refused = retry(env, batch_id)
    assert (refused.status, refused.error["code"]) == (409, "batch_not_ended")


def test_a_batch_that_failed_validation_says_why_it_cannot_be_retried(env: Env) -> None:
    batch_id = create(env)
    env.reject([BatchError("invalid_json_line", "This line is no JSON.", 2)], 1)
    refused = retry(env, batch_id)
    assert (refused.status, refused.error["code"]) == (409, "batch_failed")
    assert "line 2: This line is no JSON." in refused.error["message"]


def test_without_its_input_a_batch_says_so(env: Env) -> None:
    first = ended(env, ok=[1], bad=[2, 3], lines=3)
    file_id = env.http_api.ask("GET", f"/v1/batches/{first}").json["input_file_id"]
    env.http_api.ask("DELETE", f"/v1/files/{file_id}")
    refused = retry(env, first)
    assert (refused.status, refused.error["code"]) == (409, "input_gone")
    assert file_id in refused.error["message"]


def test_joined_results_without_a_file_say_which_one_is_gone(env: Env) -> None:
    first = ended(env, ok=[1], bad=[2, 3], lines=3)
    file_id = env.http_api.ask("GET", f"/v1/batches/{first}").json["error_file_id"]
    env.http_api.ask("DELETE", f"/v1/files/{file_id}")
    answer = env.http_api.ask("GET", f"/v1/batches/{first}/results")
    assert (answer.status, answer.error["code"]) == (410, "results_gone")
    assert file_id in answer.error["message"]
    assert retry(env, first).status == 200, "which lines failed is kept apart from the file"


@pytest.mark.parametrize(
    ("asked", "code", "param"),
    [
        ({"only": "some"}, "invalid_value", "only"),
        ({"model": "nobody's"}, "model_not_found", "model"),
        ({"completion_window": "soon"}, "invalid_request", "completion_window"),
        ({"priority": 10**9}, "invalid_request", "priority"),
        ({"codes": 7}, "invalid_request", "codes"),
        ({"groups": ["x"] * 101}, "invalid_request", "groups"),
    ],
)
def test_values_that_make_no_sense_are_named(
    env: Env, asked: dict[str, Any], code: str, param: str
) -> None:
    refused = retry(env, ended(env, ok=[1], bad=[2, 3], lines=3), **asked)
    assert (refused.error["code"], refused.error["param"]) == (code, param)


def test_a_retry_may_go_to_another_model_with_another_window_and_priority(env: Env) -> None:
    first = ended(env, ok=[1], bad=[2, 3], lines=3)
    batch = retry(
        env, first, model="m", completion_window="2h", priority=7, metadata={"k": "v"}
    ).json
    assert (batch["completion_window"], batch["priority"]) == ("2h", 7)
    assert batch["metadata"] == {"k": "v"}


def test_the_sdk_reads_a_retry_as_any_batch(env: Env) -> None:
    first = ended(env, ok=[1], bad=[2, 3], lines=3)
    with openai.OpenAI(api_key="k", base_url=f"{env.http_api.url}/v1", max_retries=0) as client:
        path = f"/batches/{first}/retry"
        batch = client.post(path, cast_to=openai.types.Batch, body={"only": "failed"})
        assert (batch.status, batch.model_extra["retry_of"]) == ("validating", first)  # type: ignore[index]


def test_a_together_batch_is_retried_in_its_own_shape(env: Env) -> None:
    batch_id = create(env, purpose="batch-api")
    env.plan()
    env.settle(batch_id, ok=[1], bad=[2, 3, 4, 5, 6])
    env.assemble()
    job = retry(env, batch_id).json
    assert (job["status"], job["retry_of"]) == ("VALIDATING", batch_id)
    assert msgspec.json.encode(job)


def test_a_retry_that_is_sent_twice_with_one_key_is_made_once(env: Env) -> None:
    first = ended(env, ok=[1], bad=[2])
    made = retry(env, first, idempotency_key="k")
    again = retry(env, first, idempotency_key="k")
    assert made.status == again.status == 200
    assert again.json["id"] == made.json["id"]
    other = retry(env, first, idempotency_key="k", only="failed")
    assert (other.status, other.error["code"]) == (409, "idempotency_key_reused")


def test_a_batch_that_ended_before_it_was_planned_is_retried_whole(env: Env) -> None:
    first = create(env, 3)
    env.post({}, f"/v1/batches/{first}/cancel")
    env.assemble()
    refused = retry(env, first, only="failed")
    assert refused.error["message"] == f"No line of batch '{first}' ran: it was cancelled before."
    again = retry(env, first, only="cancelled").json["id"]
    env.plan()
    env.settle(again, ok=[1, 3], bad=[2])
    env.assemble()
    last = retry(env, first).json["id"]
    env.plan()
    env.settle(last, ok=[2])
    env.assemble()
    assert [is_success(line) for line in results(env, first)] == [True] * 3
    assert retry(env, last).error["code"] == "nothing_to_retry"
