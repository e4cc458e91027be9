"""Idempotency keys over HTTP: batches, retries and uploads are made once."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import openai
import pytest
from api_server import Answer, ApiServer, form
from tenant_env import CHAT, Env, line

from lowtide import limits

CONTENT = b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{"model":"m"}}\n'


def upload(
    api: ApiServer, content: bytes = CONTENT, key: str = "", name: str = "in.jsonl"
) -> Answer:
    body, kind = form([("purpose", None, b"batch"), ("file", name, content)])
    headers = {"content-type": kind} | ({"idempotency-key": key} if key else {})
    return api.ask("POST", "/v1/files", body, headers)


def create(api: ApiServer, body: dict[str, Any], key: str = "", **headers: str) -> Answer:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if key:
        sent["Idempotency-Key"] = key
    return api.ask("POST", "/v1/batches", json.dumps(body), sent)


@pytest.fixture
def batch(http_api: ApiServer) -> dict[str, Any]:
    return {"input_file_id": upload(http_api).json["id"], "endpoint": CHAT}


def test_the_same_key_and_request_get_the_same_batch_for_a_day(
    http_api: ApiServer, batch: dict[str, Any]
) -> None:
    first = create(http_api, batch, "k")
    again = create(http_api, batch, "k")
    assert again.json["id"] == first.json["id"]
    assert again.headers["lowtide-existing-batch"] == "true"
    assert "lowtide-existing-batch" not in first.headers
    assert create(http_api, batch).json["id"] != first.json["id"]
    http_api.clock.shift += timedelta(seconds=limits.IDEMPOTENCY_KEY_KEEP_S)
    assert create(http_api, batch, "k").json["id"] != first.json["id"]


def test_the_key_may_stand_in_the_body(http_api: ApiServer, batch: dict[str, Any]) -> None:
    first = create(http_api, batch | {"idempotency_key": "k"})
    assert create(http_api, batch, "k").json["id"] == first.json["id"]
    both = create(http_api, batch | {"idempotency_key": "k"}, "other")
    assert (both.status, both.error["param"]) == (400, "idempotency_key")


def test_another_request_under_the_same_key_is_a_conflict_that_no_sdk_repeats(
    http_api: ApiServer, batch: dict[str, Any]
) -> None:
    create(http_api, batch, "k")
    for other in ({"priority": 1}, {"metadata": {"a": "b"}}, {"completion_window": "25h"}):
        refused = create(http_api, batch | other, "k")
        assert (refused.status, refused.error["code"]) == (409, "idempotency_key_reused")
        assert refused.headers["x-should-retry"] == "false"
    assert len(http_api.ask("GET", "/v1/batches").json["data"]) == 1


def test_metadata_in_another_order_is_the_same_request(
    http_api: ApiServer, batch: dict[str, Any]
) -> None:
    first = create(http_api, batch | {"metadata": {"a": "1", "b": "2"}}, "k")
    again = create(http_api, batch | {"metadata": {"b": "2", "a": "1"}}, "k")
    assert first.json["id"] == again.json["id"]


def test_a_repetition_is_answered_although_its_input_is_gone(
    http_api: ApiServer, batch: dict[str, Any]
) -> None:
    first = create(http_api, batch, "k")
    http_api.ask("DELETE", f"/v1/files/{batch['input_file_id']}")
    assert create(http_api, batch, "k").json["id"] == first.json["id"]


def test_a_key_decides_alone_where_the_sdk_says_that_it_repeats(
    http_api: ApiServer, batch: dict[str, Any]
) -> None:
    first = create(http_api, batch)
    other = create(http_api, batch, "k", x_stainless_retry_count="1")
    assert other.json["id"] != first.json["id"]
    again = create(http_api, batch, "k", x_stainless_retry_count="2")
    assert again.json["id"] == other.json["id"]


@pytest.mark.parametrize("key", ["a b", "x" * 256, "\t"])
def test_a_key_that_can_be_none_is_refused(
    http_api: ApiServer, batch: dict[str, Any], key: str
) -> None:
    refused = create(http_api, batch | {"idempotency_key": key})
    assert (refused.status, refused.error["param"]) == (400, "idempotency_key")
    if key.strip():
        early = upload(http_api, key=key)
        assert (early.status, early.error["param"]) == (400, "idempotency_key")


def test_the_openai_package_makes_one_batch_with_a_key(
    http_api: ApiServer, batch: dict[str, Any]
) -> None:
    client = openai.OpenAI(api_key="-", base_url=f"{http_api.url}/v1")
    ids = {
        client.batches.create(
            input_file_id=batch["input_file_id"],
            endpoint=CHAT,
            completion_window="24h",
            extra_headers={"Idempotency-Key": "k"},
        ).id
        for _ in range(3)
    }
    assert len(ids) == 1


def test_keys_of_another_organization_are_its_own(env: Env) -> None:
    ids = {
        tenant.create(line(), idempotency_key="k").json["id"]
        for tenant in (env.tenant("one"), env.tenant("two"))
    }
    assert len(ids) == 2


# ---- uploads


def test_an_upload_is_kept_once_by_name_purpose_and_content(http_api: ApiServer) -> None:
    first = upload(http_api, key="k")
    again = upload(http_api, key="k")
    assert again.json == first.json
    assert len(http_api.blobs_on_disk()) == 1
    for other in (
        upload(http_api, CONTENT + b"\n", "k"),
        upload(http_api, CONTENT, "k", "other.jsonl"),
    ):
        assert (other.status, other.error["code"]) == (409, "idempotency_key_reused")
    assert len(http_api.blobs_on_disk()) == 1
    assert upload(http_api).json["id"] != first.json["id"]


def test_uploads_with_one_key_at_one_instant_make_one_file(http_api: ApiServer) -> None:
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda _: upload(http_api, key="k"), range(4)))
    assert len({answer.json["id"] for answer in answers}) == 1
    assert len(http_api.blobs_on_disk()) == 1


def test_a_key_of_a_batch_is_no_key_of_a_file(http_api: ApiServer, batch: dict[str, Any]) -> None:
    create(http_api, batch, "k")
    assert upload(http_api, key="k").error["code"] == "idempotency_key_reused"


def test_no_limit_refuses_an_upload_that_was_accepted_and_nothing_is_stored_for_it(
    env: Env,
) -> None:
    tenant = env.tenant()
    tenant.change(stored_bytes=len(CONTENT))
    body, kind = form([("purpose", None, b"batch"), ("file", "in.jsonl", CONTENT)])
    for _ in range(2):
        answer = tenant.ask("POST", "/v1/files", body, content_type=kind, idempotency_key="k")
        assert answer.status == 200, answer.body
    assert len(env.http_api.blobs_on_disk()) == 1
    assert tenant.upload(CONTENT).error["code"] == "storage_limit_exceeded"


def test_an_announced_upload_is_one_file_and_its_bytes_may_be_sent_again(
    http_api: ApiServer,
) -> None:
    def announce(name: str = "in.jsonl") -> Answer:
        query = f"purpose=batch-api&file_name={name}"
        return http_api.ask("POST", f"/v1/files?{query}", headers={"Idempotency-Key": "k"})

    first, second = announce(), announce()
    assert first.headers["x-together-file-id"] == second.headers["x-together-file-id"]
    for answer in (first, announce(), second):
        address = answer.headers["location"].removeprefix(http_api.url)
        assert http_api.ask("PUT", address, CONTENT).status == 200
    other = http_api.ask("PUT", address, CONTENT + b"\n")
    assert (other.status, other.error["code"]) == (403, "upload_invalid")
    assert len(http_api.blobs_on_disk()) == 1
    assert announce("other.jsonl").error["code"] == "idempotency_key_reused"


@pytest.mark.parametrize("vendor", ["openai", "together"])
def test_an_upload_in_parts_is_begun_once(http_api: ApiServer, vendor: str) -> None:
    path, field, fields = {
        "openai": ("/v1/uploads", "id", {"bytes": 9, "filename": "x", "mime_type": "t"}),
        "together": (
            "/v1/files/multipart/initiate",
            "upload_id",
            {"file_size": 9, "file_name": "x", "num_parts": 1},
        ),
    }[vendor]

    def begin(**more: Any) -> Answer:
        asked = json.dumps(fields | {"purpose": "batch"} | more)
        return http_api.ask("POST", path, asked, {"Idempotency-Key": "k"})

    first = begin().json[field]
    assert begin().json[field] == first
    other = begin(purpose="batch-api")
    assert (other.status, other.error["code"]) == (409, "idempotency_key_reused")
    upload = http_api.run(http_api.services.parts.get("proj_default", first))
    http_api.run(http_api.services.parts.cancel("proj_default", upload.id))
    assert begin().json[field] != first
