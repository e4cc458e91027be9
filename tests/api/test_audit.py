"""The audit record: who did what to which id, and nothing that should not be written down."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs
from tenant_env import CHAT, EVERYTHING, Env, line

from lowtide import limits

Log = list[Any]


@pytest.fixture
def log() -> Iterator[Log]:
    with capture_logs() as captured:
        yield captured


def audits(env: Env, log: Log) -> list[dict[str, Any]]:
    """The record of a call is written when its answer has been sent, which a client may outrun."""
    env.http_api.run(asyncio.sleep(0))
    return [event for event in log if event["event"] == "audit"]


def test_what_changes_something_is_recorded_with_who_and_which(env: Env, log: Log) -> None:
    tenant = env.tenant()
    uploaded = tenant.upload(line())
    file_id = uploaded.json["id"]
    created = tenant.ask("POST", "/v1/batches", {"input_file_id": file_id, "endpoint": CHAT})
    tenant.ask("GET", "/v1/batches")
    tenant.ask("GET", f"/openai/v1/files/{file_id}/content")
    tenant.ask("POST", f"/together/v1/batches/{created.json['id']}/cancel")
    tenant.ask("DELETE", f"/v1/files/{file_id}")
    records = audits(env, log)
    assert [(each["verb"], each["subject"], each["status"]) for each in records] == [
        ("uploads.create_file", file_id, 200),
        ("batches.create", created.json["id"], 200),
        ("downloads.content", file_id, 200),
        ("batches.cancel", created.json["id"], 200),
        ("files.delete_file", file_id, 200),
    ]
    for record in records:
        assert record["key"] == tenant.key_id
        assert record["project"] == tenant.project_id
        assert record["organization"] == tenant.organization_id
        assert record["client"] == "127.0.0.1"
    assert records[0]["request_id"] == uploaded.headers["x-request-id"]


def test_refusals_are_recorded_and_say_why_in_the_log_alone(
    env: Env, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "REFUSAL_LOG_S", 0.0)
    reader = env.tenant(scopes=("read",))
    reader.ask("POST", "/v1/batches", {})
    env.http_api.ask("GET", "/v1/files")
    run, tenants = env.http_api.run, env.http_api.services.tenants
    run(tenants.revoke_key(reader.key_id))
    reader.ask("GET", "/v1/files")
    reported = [(each["verb"], each["status"], each["key"]) for each in audits(env, log)]
    assert reported == [
        ("unrouted", 403, reader.key_id),
        ("unrouted", 401, None),
        ("unrouted", 401, None),
    ]
    (why,) = [event for event in log if event["event"] == "key.refused"]
    assert (why["key"], why["why"]) == (reader.key_id, "revoked")


def test_an_administrators_look_is_recorded_too(env: Env, log: Log) -> None:
    admin = env.tenant(scopes=EVERYTHING)
    admin.ask("GET", "/v1/admin/keys")
    made = admin.ask("POST", "/v1/admin/keys", {"project_id": admin.project_id, "name": "x"})
    admin.ask("DELETE", f"/v1/admin/keys/{made.json['id']}")
    reported = [(each["verb"], each["subject"]) for each in audits(env, log)]
    assert reported == [
        ("admin.list_keys", None),
        ("admin.create_key", made.json["id"]),
        ("admin.revoke_key", made.json["id"]),
    ]


def test_no_secret_body_or_file_content_reaches_the_log(env: Env, log: Log) -> None:
    admin = env.tenant(scopes=EVERYTHING)
    tenant = env.tenant()
    made = admin.ask("POST", "/v1/admin/keys", {"project_id": admin.project_id, "name": "x"})
    prompt, odd = "the-prompt-nobody-may-read", "odd-header-value"
    created = tenant.create(
        line(text=prompt) + b"broken " + prompt.encode(), metadata={"k": prompt}
    )
    env.validate()
    env.ended_batch(tenant)
    for path in ("/v1/files", "/v1/batches", f"/v1/batches/{created.json['id']}", "/v1/nothing"):
        tenant.ask("GET", path, x_odd=odd)
    tenant.ask("POST", "/v1/batches", prompt.encode(), content_type="application/json")
    tenant.ask("POST", "/v1/files", prompt.encode(), content_type="multipart/form-data")
    wrong = f"lt-{tenant.key_id}-{'W' * 40}"
    env.http_api.ask("GET", "/v1/files", None, {"authorization": f"Bearer {wrong}"})
    env.http_api.ask("POST", "/v1/files", None, {"x-api-key": "sk-of-another-service"})
    announced = tenant.ask(
        "POST",
        "/v1/files",
        b"purpose=batch-api&file_name=a.jsonl",
        content_type="application/x-www-form-urlencoded",
    )
    address = announced.headers["location"]
    env.http_api.ask("PUT", address.removeprefix(env.http_api.url), prompt.encode())
    text = repr(log)
    assert len(audits(env, log)) >= 9
    signature = address.rpartition("signature=")[2]
    for key in (admin.key, tenant.key, made.json["key"], wrong):
        assert key not in text
        assert key.rpartition("-")[2] not in text
    for secret in (prompt, odd, "sk-of-another-service", signature):
        assert secret not in text


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/v1/files?" + "q" * limits.URL_BYTES_MAX, {}, 414),
        ("/v1/files", {"x-long": "h" * limits.REQUEST_HEADERS_BYTES_MAX}, 431),
    ],
)
def test_addresses_and_headers_are_bounded_before_a_key_is_looked_at(
    env: Env, path: str, headers: dict[str, str], status: int
) -> None:
    assert env.http_api.ask("GET", path, None, headers).status == status


def test_a_control_request_is_bounded(env: Env) -> None:
    body = b'{"metadata": "' + b"x" * limits.JSON_BODY_BYTES_MAX + b'"}'
    for path in ("/v1/batches", "/v1/admin/keys"):
        answer = env.tenant(scopes=EVERYTHING).ask("POST", path, body)
        assert (answer.status, answer.error["code"]) == (413, "request_too_large")


def test_live_calls_are_counted_and_only_refused_ones_recorded(env: Env, log: Log) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    env.tenant().ask("POST", CHAT, body)
    reader = env.tenant(scopes=("read",))
    assert reader.ask("POST", CHAT, body).status == 403
    assert [(each["status"], each["key"]) for each in audits(env, log)] == [(403, reader.key_id)]
