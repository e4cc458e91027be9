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
from batch_env import CHAT, Bench, open_bench

from lowtide import limits
from lowtide.core.files.file import File
from testkit.patience import PATIENCE_S

TOGETHER = {"user-agent": "Together/Python 3.1.1"}
TOGETHER_1X = {"x-together-client-user-agent": "{}", "user-agent": "python-requests/2.32"}


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    with open_bench(tmp_path, monkeypatch) as running:
        yield running


def wish(file: File, **fields: Any) -> dict[str, Any]:
    return {"input_file_id": file.id, "endpoint": CHAT, **fields}


def ids_of(bench: Bench) -> list[str]:
    return [batch["id"] for batch in bench.door.ask("GET", "/v1/batches").json["data"]]


@pytest.mark.parametrize(("purpose", "status"), [("batch", 200), ("batch-api", 201)])
def test_the_shared_mount_answers_a_create_for_both_sdks(
    bench: Bench, purpose: str, status: int
) -> None:
    answer = bench.post(wish(bench.upload(purpose=purpose)))
    assert answer.status == status
    assert answer.json["id"] == answer.json["job"]["id"]
    assert (answer.json["status"], answer.json["job"]["status"]) == ("validating", "VALIDATING")
    openai.types.Batch.model_validate(answer.json, strict=True)


def test_a_fixed_mount_answers_in_its_own_shape_whoever_asks(bench: Bench) -> None:
    file = bench.upload(purpose="batch-api")
    flat = bench.post(wish(file), "/openai/v1/batches", **TOGETHER)
    assert flat.status == 200
    assert "job" not in flat.json
    nested = bench.post(wish(file), "/together/v1/batches")
    assert nested.status == 201
    assert set(nested.json) == {"job"}
    batch_id = nested.json["job"]["id"]
    for mount, status in (("/openai/v1", "validating"), ("/together/v1", "VALIDATING")):
        assert bench.door.ask("GET", f"{mount}/batches/{batch_id}").json["status"] == status
    assert isinstance(bench.door.ask("GET", "/together/v1/batches").json, list)
    assert bench.door.ask("GET", "/openai/v1/batches", None, TOGETHER).json["object"] == "list"


def test_a_batch_is_shown_as_it_was_created_and_a_list_as_the_client_reads_it(
    bench: Bench,
) -> None:
    batch_id = bench.post(wish(bench.upload(purpose="batch-api")), **TOGETHER).json["id"]
    for headers in ({}, TOGETHER):
        one = bench.door.ask("GET", f"/v1/batches/{batch_id}", None, headers).json
        assert one["status"] == "VALIDATING"
        cancelled = bench.door.ask("POST", f"/v1/batches/{batch_id}/cancel", None, headers).json
        assert cancelled["status"] in ("IN_PROGRESS", "VALIDATING")
        batch_id = bench.post(wish(bench.upload(purpose="batch-api"))).json["id"]
    for headers in (TOGETHER, TOGETHER_1X):
        listed = bench.door.ask("GET", "/v1/batches", None, headers).json
        assert {job["status"] for job in listed} == {"VALIDATING", "IN_PROGRESS"}
    listed = bench.door.ask("GET", "/v1/batches").json
    assert {batch["status"] for batch in listed["data"]} == {"validating", "cancelling"}
    assert (listed["has_more"], listed["first_id"]) == (False, batch_id)


def test_fields_of_other_vendors_are_taken_and_passed_over(bench: Bench) -> None:
    answer = bench.post(wish(bench.upload(), completion_window=None, webhook={"a": [1]}, x=2))
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
def test_a_field_of_the_wrong_type_is_named(
    bench: Bench, fields: dict[str, Any], param: str
) -> None:
    answer = bench.post(wish(bench.upload()) | fields)
    assert (answer.status, answer.error["param"]) == (400, param)
    assert answer.error["type"] == "invalid_request_error"


@pytest.mark.parametrize("body", [b"{", b"[]", b'"x"', b"\xff{}", b""])
def test_a_body_that_is_no_object_is_refused_in_the_envelope(bench: Bench, body: bytes) -> None:
    answer = bench.door.ask("POST", "/v1/batches", body)
    assert answer.status == 400
    assert answer.error["message"]


@pytest.mark.parametrize("limit", ["0", "101", "-1", "x", "1.5", "9" * 40, "²"])
def test_a_page_size_out_of_bounds_is_refused(bench: Bench, limit: str) -> None:
    path = "/v1/batches?limit=" + limit.replace("²", "%C2%B2")
    answer = bench.door.ask("GET", path)
    assert (answer.status, answer.error["param"]) == (400, "limit")


RETRY = {"x-stainless-retry-count": "1"}


def test_a_client_that_gave_up_and_asks_again_has_one_batch(bench: Bench) -> None:
    body = msgspec.json.encode(wish(bench.upload()))
    bench.door.run(_arm(bench, 1))
    gone = http.client.HTTPConnection("127.0.0.1", bench.door.port, timeout=PATIENCE_S)
    gone.request("POST", "/v1/batches", body)
    bench.door.run(bench.batches.stored.wait())
    gone.close()  # its time-out came before the answer
    again = bench.door.ask("POST", "/v1/batches", body, RETRY)
    assert ids_of(bench) == [again.json["id"]]
    assert again.headers["lowtide-existing-batch"] == "true"
    bench.door.run(_release(bench))


def test_an_answer_that_nobody_heard_does_not_count(bench: Bench) -> None:
    body = msgspec.json.encode(wish(bench.upload()))
    bench.door.run(_arm(bench, 1))
    gone = http.client.HTTPConnection("127.0.0.1", bench.door.port, timeout=PATIENCE_S)
    gone.request("POST", "/v1/batches", body)
    bench.door.run(bench.batches.stored.wait())
    gone.close()
    bench.door.ask("GET", "/health")  # the server has seen the end of the other connection by now
    bench.door.run(_release(bench))
    again = bench.door.ask("POST", "/v1/batches", body, RETRY)
    assert ids_of(bench) == [again.json["id"]]
    assert again.headers["lowtide-existing-batch"] == "true"


def test_two_deliberate_creates_of_the_same_are_two_batches(bench: Bench) -> None:
    body = wish(bench.upload())
    first, second = bench.post(body), bench.post(body)
    assert ids_of(bench) == [second.json["id"], first.json["id"]]
    assert "lowtide-existing-batch" not in second.headers


def test_identical_creates_at_the_same_moment_are_batches_of_their_own(bench: Bench) -> None:
    body = msgspec.json.encode(wish(bench.upload()))
    bench.door.run(_arm(bench, 1))
    first = http.client.HTTPConnection("127.0.0.1", bench.door.port, timeout=30)
    first.request("POST", "/v1/batches", body)
    bench.door.run(bench.batches.stored.wait())
    second = bench.door.ask("POST", "/v1/batches", body).json["id"]
    bench.door.run(_release(bench))
    answered = json.loads(first.getresponse().read())["id"]
    first.close()
    assert sorted(ids_of(bench)) == sorted([second, answered])
    assert second != answered


def test_a_declared_retry_is_one_batch_even_when_the_first_was_just_answered(
    bench: Bench,
) -> None:
    body = wish(bench.upload())
    first = bench.post(body).json["id"]
    assert bench.post(body, **RETRY).json["id"] == first
    assert bench.post(body, **{"x-stainless-retry-count": "0"}).json["id"] != first


def test_a_declared_retry_after_a_cancelled_run_is_a_new_batch(bench: Bench) -> None:
    body = wish(bench.upload())
    first = bench.post(body).json["id"]
    bench.door.ask("POST", f"/v1/batches/{first}/cancel")
    assert bench.post(body, **RETRY).json["id"] != first


@pytest.mark.parametrize("purpose", ["batch", "batch-api"])
def test_result_ids_appear_when_the_batch_has_ended_and_as_partial_ones_before(
    bench: Bench, purpose: str
) -> None:
    batch_id = bench.post(wish(bench.upload(3, purpose))).json["id"]
    bench.plan()
    ids = {"output": f"file-out-{batch_id[6:]}", "error": f"file-err-{batch_id[6:]}"}

    def shown(**headers: str) -> dict[str, dict[str, Any]]:
        batch = bench.door.ask("GET", f"/v1/batches/{batch_id}", None, headers).json
        return {
            prefix: {kind: batch[f"{prefix}{kind}_file_id"] for kind in ids}
            for prefix in ("", "partial_")
        }

    nothing = {"output": None, "error": None}
    assert shown() == {"": nothing, "partial_": nothing}
    bench.settle(batch_id, ok=[1], bad=[2])
    assert shown() == {"": nothing, "partial_": ids}
    early = {"user-agent": "BatchOpenAI/Python 2.54.0"}
    assert shown(**early) == {"": ids, "partial_": ids}
    bench.settle(batch_id, ok=[3])
    assert shown() == {"": nothing, "partial_": ids}  # finalizing: not whole yet
    bench.assemble()
    assert shown() == shown(**early) == {"": ids, "partial_": nothing}


def test_a_list_shows_result_ids_by_the_same_rule(bench: Bench) -> None:
    batch_id = bench.post(wish(bench.upload(2))).json["id"]
    bench.plan()
    bench.settle(batch_id, ok=[1])
    for agent, early in (("OpenAI/Python", False), ("BatchOpenAI/Python", True)):
        (one,) = bench.door.ask("GET", "/v1/batches", None, {"user-agent": agent}).json["data"]
        assert (one["output_file_id"] is not None) is early
        assert one["partial_output_file_id"] is not None


def test_results_are_read_line_by_line_while_the_batch_runs(bench: Bench) -> None:
    batch_id = bench.post(wish(bench.upload(5))).json["id"]
    bench.plan()
    bench.settle(batch_id, ok=[4, 2])
    file_id = bench.door.ask("GET", f"/v1/batches/{batch_id}").json["partial_output_file_id"]
    seen, offset, incomplete = [], 0, "true"
    for step in range(3):
        path = f"/v1/files/{file_id}/content" + (f"?offset={offset}" if offset else "")
        answer = bench.door.ask("GET", path)
        seen += [json.loads(line)["custom_id"] for line in answer.body.splitlines()]
        offset, incomplete = int(answer.headers["x-last-line"]), answer.headers["x-incomplete"]
        assert int(answer.headers["content-length"]) == len(answer.body)
        assert incomplete == ("true" if step < 2 else "false")
        if step == 0:
            bench.settle(batch_id, ok=[5])
        elif step == 1:
            bench.settle(batch_id, ok=[1, 3])
            bench.assemble()
    assert seen == ["r-4", "r-2", "r-5", "r-1", "r-3"]
    bench.door.clock.shift += timedelta(seconds=limits.SEGMENTS_KEEP_S + 1)
    answer = bench.door.ask("GET", f"/v1/files/{file_id}/content?offset=2")
    assert (answer.status, answer.error["code"]) == (410, "offset_expired")
    whole = bench.door.ask("GET", f"/v1/files/{file_id}/content").body
    assert [json.loads(line)["custom_id"] for line in whole.splitlines()] == [
        f"r-{line}" for line in range(1, 6)
    ]


async def _arm(bench: Bench, count: int) -> None:
    bench.batches.arm(count)


async def _release(bench: Bench) -> None:
    bench.batches.release.set()
