"""Webhooks over HTTP: endpoints, secrets, tests, deliveries; plain, and by the openai package."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import openai
import pytest
from api_server import ApiServer, form, open_api_server
from structlog.testing import capture_logs
from tenant_env import Env, line

from lowtide.config import ServerSettings, Settings, WebhookSettings
from lowtide.core.webhooks.endpoint import PROJECT
from lowtide.loops.webhooks.deliver import DeliverLoop

PUBLIC = "https://93.184.216.34/hooks"
"""A public address by its number, which nobody calls here."""


class Hooks:
    """A receiver written with the openai package: each call is verified before it counts."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/hooks"
        self.secret = ""
        self.status = 200
        self.events: list[Any] = []
        self.forged = 0
        self._client = openai.OpenAI(api_key="-", base_url="http://127.0.0.1:1")

    def receive(self, body: bytes, headers: Any) -> None:
        try:
            event = self._client.webhooks.unwrap(body, headers, secret=self.secret)
        except openai.InvalidWebhookSignatureError:
            self.forged += 1
        else:
            self.events.append(event)


@contextmanager
def receiving() -> Iterator[Hooks]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            hooks.receive(body, dict(self.headers.items()))
            self.send_response(hooks.status)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Not into the test's output."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        hooks = Hooks(server.server_port)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield hooks
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def hooks() -> Iterator[Hooks]:
    with receiving() as running:
        yield running


@pytest.fixture
def lenient(tmp_path: Path) -> Iterator[ApiServer]:
    """A server that may call this machine."""
    settings = Settings(
        server=ServerSettings(data_dir=tmp_path),
        webhooks=WebhookSettings(allow_networks=("127.0.0.0/8",)),
    )
    with open_api_server(tmp_path, settings) as running:
        yield running


def ask(api: ApiServer, method: str, path: str, body: Any = None) -> Any:
    answer = api.ask(method, path, None if body is None else json.dumps(body))
    assert answer.status == 200, answer.body
    return answer.json


def deliver(api: ApiServer) -> None:
    """What the loop of a worker does in one tick."""

    async def tick() -> None:
        service = api.services.webhooks
        loop = DeliverLoop("w", api.store.outbox, service._sender, api.clock, lambda: None)
        await loop.tick(api.clock.now())
        await loop.aclose(30.0)

    api.run(tick())


# ---- endpoints


def test_an_endpoint_tells_its_secret_once(http_api: ApiServer) -> None:
    made = ask(http_api, "POST", "/v1/webhooks", {"url": PUBLIC, "events": ["batch.failed"]})
    assert made["secret"].startswith("whsec_") and made["secret"] == made["signing_secret"]
    assert made["events"] == made["event_types"] == ["batch.failed"]
    assert made["enabled"] is True
    shown = ask(http_api, "GET", f"/v1/webhooks/{made['id']}")
    listed = ask(http_api, "GET", "/v1/webhooks")
    assert listed["data"] == [shown] and not listed["has_more"]
    assert made["secret"] not in json.dumps([shown, listed])
    changed = ask(http_api, "PATCH", f"/v1/webhooks/{made['id']}", {"name": "n", "enabled": False})
    assert (changed["name"], changed["enabled"], changed["url"]) == ("n", False, PUBLIC)
    assert changed["disabled_reason"] == "It was disabled by its owner."
    assert ask(http_api, "DELETE", f"/v1/webhooks/{made['id']}")["deleted"] is True
    assert http_api.ask("GET", f"/v1/webhooks/{made['id']}").error["code"] == "webhook_not_found"


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({}, "url", "Missing required parameter: 'url'."),
        ({"url": "ftp://x"}, "url", "must begin with https://"),
        ({"url": "https://u:p@x/"}, "url", "no user"),
        ({"url": "http://127.0.0.1/"}, "url", 'allow_networks = ["127.0.0.1/32"]'),
        ({"url": "http://[::1]/"}, "url", 'allow_networks = ["::1/128"]'),
        ({"url": "http://169.254.169.254/latest"}, "url", "169.254.169.254/32"),
        ({"url": "http://localhost:1/"}, "url", "allow_networks"),
        ({"url": PUBLIC, "events": ["batch.done"]}, "events", "Invalid value: 'batch.done'."),
        ({"url": PUBLIC, "events": "batch.failed"}, "events", "Expected `array"),
        ({"url": PUBLIC, "name": "x" * 201}, "name", "at most 200"),
    ],
)
def test_an_endpoint_that_cannot_be_is_refused_with_the_field_at_fault(
    http_api: ApiServer, body: Any, param: str, words: str
) -> None:
    answer = http_api.ask("POST", "/v1/webhooks", json.dumps(body))
    assert answer.status == 400
    assert answer.error["param"] == param
    assert words in answer.error["message"]


def test_the_event_types_of_openai_are_named_when_another_is_asked_for(
    http_api: ApiServer,
) -> None:
    body = {"url": PUBLIC, "events": ["batch.done"]}
    error = http_api.ask("POST", "/v1/webhooks", json.dumps(body)).error
    assert (error["code"], error["message"]) == (
        "invalid_value",
        "Invalid value: 'batch.done'. Supported values are: 'batch.completed', 'batch.failed',"
        " 'batch.expired', and 'batch.cancelled'.",
    )


def test_a_change_to_an_address_that_is_refused_changes_nothing(http_api: ApiServer) -> None:
    made = ask(http_api, "POST", "/v1/webhooks", {"url": PUBLIC})
    body = json.dumps({"url": "http://10.0.0.1/", "name": "x"})
    answer = http_api.ask("PATCH", f"/v1/webhooks/{made['id']}", body)
    assert (answer.status, answer.error["param"]) == (400, "url")
    assert ask(http_api, "GET", f"/v1/webhooks/{made['id']}")["name"] == ""


# ---- deliveries, as a receiver with the openai package sees them


def test_the_end_of_a_batch_reaches_a_receiver_that_verifies_it(
    lenient: ApiServer, hooks: Hooks, tmp_path: Path
) -> None:
    made = ask(lenient, "POST", "/v1/webhooks", {"url": hooks.url})
    hooks.secret = made["secret"]
    batch_id = failed_batch(lenient)
    deliver(lenient)
    (event,) = hooks.events
    assert (event.type, event.data.id, event.object) == ("batch.failed", batch_id, "event")
    assert event.id == f"evt_{batch_id.partition('_')[2]}"
    (delivery,) = ask(lenient, "GET", f"/v1/webhooks/{made['id']}/deliveries")["data"]
    assert (delivery["event_id"], delivery["state"]) == (event.id, "delivered")
    assert (delivery["status_code"], delivery["attempts"]) == (200, 1)


def test_a_failed_delivery_is_listed_with_its_reason_and_can_be_replayed(
    lenient: ApiServer, hooks: Hooks
) -> None:
    made = ask(lenient, "POST", "/v1/webhooks", {"url": hooks.url})
    hooks.secret, hooks.status = made["secret"], 503
    failed_batch(lenient)
    deliver(lenient)
    path = f"/v1/webhooks/{made['id']}"
    (delivery,) = ask(lenient, "GET", f"{path}/deliveries?state=pending")["data"]
    assert (delivery["error"], delivery["status_code"]) == ("answered 503", 503)
    assert delivery["next_attempt_at"] - delivery["attempted_at"] == 5
    hooks.status = 200
    assert ask(lenient, "POST", f"{path}/replay", {"event_id": delivery["event_id"]}) == {
        "object": "webhook_replay",
        "replayed": 1,
    }
    deliver(lenient)
    assert len({event.id for event in hooks.events}) == 1 and len(hooks.events) == 2
    assert ask(lenient, "POST", f"{path}/replay") == {"object": "webhook_replay", "replayed": 0}
    body = json.dumps({"event_id": "evt_x"})
    unknown = lenient.ask("POST", f"{path}/replay", body)
    assert (unknown.status, unknown.error["code"]) == (404, "delivery_not_found")
    cursor = lenient.ask("GET", f"{path}/deliveries?after=evt_x")
    assert (cursor.status, cursor.error["param"]) == (400, "after")


def test_a_batch_names_an_endpoint_or_an_address_of_its_own(
    lenient: ApiServer, hooks: Hooks
) -> None:
    batch = {"input_file_id": upload(lenient), "endpoint": "/v1/chat/completions"}
    refused = lenient.ask("POST", "/v1/batches", json.dumps(batch | {"webhook": hooks.url}))
    assert (refused.status, refused.error["param"]) == (400, "webhook")
    assert "lowtide webhooks rotate project" in refused.error["message"]
    unknown = lenient.ask("POST", "/v1/batches", json.dumps(batch | {"webhook": "wh_none"}))
    assert (unknown.status, unknown.error["param"]) == (400, "webhook")
    hooks.secret = ask(lenient, "POST", f"/v1/webhooks/{PROJECT}/rotate_secret")["secret"]
    made = failed_batch(lenient, webhook=hooks.url)
    other = failed_batch(lenient)
    deliver(lenient)
    assert [event.data.id for event in hooks.events] == [made] != [other]
    (delivery,) = ask(lenient, "GET", f"/v1/webhooks/{PROJECT}/deliveries")["data"]
    assert (delivery["url"], delivery["batch_id"]) == (hooks.url, made)
    assert ask(lenient, "GET", f"/v1/batches/{made}")["webhook"] == hooks.url
    assert ask(lenient, "GET", f"/v1/batches/{other}")["webhook"] is None
    quiet = ask(lenient, "POST", "/v1/webhooks", {"url": hooks.url, "events": []})
    hooks.secret = quiet["secret"]
    named = failed_batch(lenient, webhook=quiet["id"])
    assert ask(lenient, "GET", f"/v1/batches/{named}")["webhook"] == quiet["id"]
    deliver(lenient)
    assert [event.data.id for event in hooks.events] == [made, named]


def test_a_batch_shows_its_address_without_what_may_be_a_secret(lenient: ApiServer) -> None:
    ask(lenient, "POST", f"/v1/webhooks/{PROJECT}/rotate_secret")
    made = failed_batch(lenient, webhook="http://127.0.0.1:1/hook?token=abc")
    for mount in ("/openai/v1", "/together/v1"):
        shown = ask(lenient, "GET", f"{mount}/batches/{made}")
        assert shown["webhook"] == "http://127.0.0.1:1/hook?token=***"


def test_a_dry_run_refuses_the_webhook_that_a_create_would(http_api: ApiServer) -> None:
    body = {"input_file_id": upload(http_api), "webhook": "http://10.0.0.1/", "dry_run": True}
    answer = http_api.ask("POST", "/v1/batches", json.dumps(body))
    assert (answer.status, answer.error["param"]) == (400, "webhook")


def test_a_rotation_signs_with_both_secrets_for_as_long_as_it_says(
    lenient: ApiServer, hooks: Hooks
) -> None:
    made = ask(lenient, "POST", "/v1/webhooks", {"url": hooks.url})
    path = f"/v1/webhooks/{made['id']}"
    fresh = ask(lenient, "POST", f"{path}/rotate_secret")["secret"]
    for hooks.secret in (made["secret"], fresh):
        ask(lenient, "POST", f"{path}/test", {"event_type": "batch.expired"})
    assert len(hooks.events) == 2
    last = ask(lenient, "POST", f"{path}/rotate_secret", {"overlap_seconds": 0})["secret"]
    for hooks.secret in (made["secret"], fresh, last):
        ask(lenient, "POST", f"{path}/test")
    assert (len(hooks.events), hooks.forged) == (4, 1)
    bad = lenient.ask("POST", f"{path}/rotate_secret", json.dumps({"overlap_seconds": -1}))
    assert (bad.status, bad.error["param"]) == (400, "overlap_seconds")


def test_a_test_that_gets_no_answer_says_why(lenient: ApiServer) -> None:
    made = ask(lenient, "POST", "/v1/webhooks", {"url": "http://127.0.0.1:1/"})
    answer = lenient.ask("POST", f"/v1/webhooks/{made['id']}/test")
    assert (answer.status, answer.error["code"]) == (422, "webhook_unreachable")


def test_the_openai_package_manages_endpoints_as_it_does_at_openai(
    lenient: ApiServer, hooks: Hooks
) -> None:
    client = openai.OpenAI(api_key="-", base_url=f"{lenient.url}/v1", max_retries=0)
    webhooks = client.webhooks
    made = webhooks.create(event_types=["batch.completed"], name="mine", url=hooks.url)
    hooks.secret = made.signing_secret
    assert (made.object, made.event_types) == ("webhook_endpoint", ["batch.completed"])
    assert webhooks.retrieve(made.id).name == "mine"
    assert webhooks.update(made.id, event_types=["batch.failed"]).event_types == ["batch.failed"]
    assert [each.id for each in webhooks.list()] == [made.id]
    tested = webhooks.test(made.id, event_type="batch.completed")
    assert (tested.success, tested.status_code) == (True, 200)
    rotated = webhooks.rotate_secret(made.id, keep_old_secret_active_for_24_hours=False)
    webhooks.test(made.id, event_type="batch.completed")
    hooks.secret = rotated.signing_secret
    webhooks.test(made.id, event_type="batch.completed")
    assert (len(hooks.events), hooks.forged) == (2, 1)
    assert webhooks.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        webhooks.retrieve(made.id)


# ---- who may


def test_scopes_hold_for_webhooks(env: Env) -> None:
    owner = env.tenant("acme")
    reader = env.tenant("reader", ("read",))
    admin = env.tenant("admin", ("admin",))
    made = owner.ask("POST", "/v1/webhooks", {"url": PUBLIC}).json
    assert reader.ask("POST", "/v1/webhooks", {"url": PUBLIC}).status == 403
    assert reader.ask("GET", "/v1/webhooks").json["data"] == []
    assert admin.ask("GET", "/v1/webhooks").status == 403
    assert env.http_api.ask("GET", "/v1/webhooks").status == 401
    assert owner.ask("GET", f"/v1/webhooks/{made['id']}").status == 200


def test_the_endpoint_of_another_tenant_is_an_unknown_one_for_a_batch(env: Env) -> None:
    owner, other = env.tenant("owner"), env.tenant("other")
    made = owner.ask("POST", "/v1/webhooks", {"url": PUBLIC}).json
    asked = other.create(line(), webhook=made["id"])
    unknown = other.create(line(), webhook="wh_unknown")
    assert asked.status == unknown.status == 400
    assert asked.body.replace(made["id"].encode(), b"wh_unknown") == unknown.body


def test_an_audit_record_names_the_endpoint_that_was_made(env: Env) -> None:
    with capture_logs() as log:
        made = env.tenant("acme").ask("POST", "/v1/webhooks", {"url": PUBLIC}).json
        env.http_api.run(asyncio.sleep(0))
    (record,) = [each for each in log if each["event"] == "audit"]
    assert (record["verb"], record["subject"]) == ("webhooks.create", made["id"])
    assert made["secret"] not in str(record)


# ---- how


def upload(api: ApiServer, content: bytes = b"not json\n") -> str:
    body, kind = form([("purpose", None, b"batch"), ("file", "in.jsonl", content)])
    return str(api.ask("POST", "/v1/files", body, {"content-type": kind}).json["id"])


def failed_batch(api: ApiServer, **fields: Any) -> str:
    """A batch whose file is refused: the id, once it has ended."""
    body = {"input_file_id": upload(api), "endpoint": "/v1/chat/completions", **fields}
    batch_id = str(ask(api, "POST", "/v1/batches", body)["id"])

    async def reject() -> None:
        lease = await api.store.lifecycle.claim_validation("w", api.clock.now(), 30.0)
        assert lease is not None and lease.batch.id == batch_id
        assert await api.store.lifecycle.reject(lease, [], 0, api.clock.now())

    api.run(reject())
    return batch_id
