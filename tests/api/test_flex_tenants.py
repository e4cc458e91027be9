"""Background responses of tenants: another project's id is an unknown one, and limits hold."""

from datetime import timedelta
from pathlib import Path

import pytest
from tenant_env import CHAT, Env, open_house

from lowtide import limits

CALL = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "service_tier": "flex"}
BODY = {"model": "m", "input": "hello", "background": True}


def test_another_project_s_response_is_an_unknown_one(env: Env) -> None:
    mine, other = env.tenant("acme"), env.tenant("other")
    made = mine.ask("POST", "/v1/responses", BODY)
    assert (made.status, made.json["status"]) == (200, "queued")
    path = f"/v1/responses/{made.json['id']}"
    assert mine.ask("GET", path).json["status"] == "queued"
    for method, place in (("GET", path), ("POST", f"{path}/cancel"), ("DELETE", path)):
        refused = other.ask(method, place)
        assert (refused.status, refused.error["code"]) == (404, "response_not_found")
    assert mine.ask("GET", path).json["status"] == "queued"


def test_an_ordinary_batch_is_no_response(env: Env) -> None:
    tenant = env.tenant()
    batch = env.ended_batch(tenant)
    place = f"/v1/responses/resp_{batch.id.removeprefix('batch_')}"
    assert tenant.ask("GET", place).status == 404


def test_a_key_that_may_only_read_makes_and_cancels_none(env: Env) -> None:
    tenant = env.tenant(scopes=("submit", "read"))
    reader = env.tenant("reader", scopes=("read",), organization_id=tenant.organization_id)
    assert reader.ask("POST", "/v1/responses", BODY).status == 403
    assert reader.ask("POST", "/v1/responses/resp_1/cancel").status == 403
    assert reader.ask("GET", "/v1/responses/resp_1").status == 404


def test_single_calls_are_no_batches_of_the_hourly_limit(env: Env) -> None:
    tenant = env.tenant()
    tenant.change(batches_per_hour=0)
    assert tenant.ask("POST", "/v1/responses", BODY).status == 200


def test_an_organization_whose_calls_wait_is_told_so_and_when_to_try_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FLEX_HELD_MAX", 4)
    with open_house(tmp_path) as env:
        tenant, places = env.tenant(), env.http_api.services.flex._places
        assert places.take(tenant.organization_id, 2)
        refused = tenant.ask("POST", CHAT, CALL)
        places.take("another", 2)
        full = tenant.ask("POST", CHAT, CALL)
    assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
    assert tenant.organization_id in refused.error["message"]
    assert refused.headers["retry-after"] == str(limits.FLEX_RETRY_AFTER_S)
    assert (full.status, full.error["code"]) == (429, "resource_unavailable")
    assert full.headers["retry-after"] == str(limits.FLEX_RETRY_AFTER_S)


def test_enqueued_tokens_bound_single_calls_too(env: Env) -> None:
    tenant = env.tenant()
    tenant.change(enqueued_tokens_per_model=1)
    refused = tenant.ask("POST", "/v1/responses", BODY)
    assert (refused.status, refused.error["code"]) == (429, "resource_unavailable")
    assert refused.headers["retry-after"] == "30"


def test_the_storage_limit_bounds_single_calls_too(env: Env) -> None:
    tenant = env.tenant()
    tenant.change(stored_bytes=10)
    assert tenant.ask("POST", "/v1/responses", BODY).status == 413


def test_a_response_ends_with_the_window_of_its_batch(env: Env) -> None:
    tenant = env.tenant()
    made = tenant.ask("POST", "/v1/responses", BODY | {"instructions": "be brief"}).json
    http_api = env.http_api
    http_api.clock.shift += timedelta(hours=25)
    http_api.run(http_api.store.lifecycle.expire_due(http_api.clock.now()))
    seen = tenant.ask("GET", f"/v1/responses/{made['id']}").json
    assert (seen["status"], seen["instructions"]) == ("failed", "be brief")
    assert "completion window" in seen["error"]["message"]
    http_api.clock.shift += timedelta(days=31)
    assert tenant.ask("GET", f"/v1/responses/{made['id']}").status == 404
