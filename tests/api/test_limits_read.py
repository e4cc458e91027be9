"""Limits that can be read: `GET /v1/limits`, whoami, and `lowtide limits`."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from structlog.testing import capture_logs
from tenant_env import Env, Tenant, line

from lowtide.cli.app import main
from lowtide.core.accounts.rate_limit import Allowance


def limits(tenant: Tenant) -> dict[tuple[str, str | None], dict[str, Any]]:
    answer = tenant.ask("GET", "/v1/limits")
    assert answer.status == 200, answer.body
    assert answer.json["organization_id"] == tenant.organization_id
    return {(each["name"], each["model"]): each for each in answer.json["data"]}


def test_each_limit_says_what_is_used_left_and_when_it_frees(env: Env) -> None:
    tenant = env.tenant()
    tenant.change(
        Decimal(3), batches_per_hour=5, stored_bytes=100_000, enqueued_tokens_per_model=900
    )
    before = int(env.http_api.clock.now().timestamp())
    content = line()
    tenant.create(content)
    found = limits(tenant)
    hour = found["batches_per_hour", None]
    assert (hour["limit"], hour["used"], hour["left"]) == (5, 1, 4)
    assert before + 3600 <= hour["frees_at"] <= int(env.http_api.clock.now().timestamp()) + 3600
    unfinished = found["unfinished_batches", None]
    assert (unfinished["used"], unfinished["frees"]) == (1, "as batches end")
    stored = found["stored_bytes", None]
    assert (stored["used"], stored["left"]) == (len(content), 100_000 - len(content))
    money = found["spend_cap", None]
    assert (money["limit"], money["used"], money["left"]) == ("3.00", "0.00", "3.00")
    frees = datetime.fromtimestamp(money["frees_at"], UTC)
    assert (frees.day, frees.hour, frees.minute) == (1, 0, 0) and frees > datetime.now(UTC)
    assert found["requests_per_batch", None]["limit"] == 50_000
    assert found["control_calls_per_minute", None]["unit"] == "calls"
    assert ("requests_in_flight", None) not in found


def test_enqueued_tokens_are_told_by_model_and_go_as_requests_finish(env: Env) -> None:
    tenant = env.tenant()
    assert limits(tenant)["enqueued_tokens_per_model", None]["used"] == 0
    batch = env.running_batch(tenant)
    run = env.http_api.run
    (total,) = run(env.http_api.store.batches.models(batch.id)).values()
    found = limits(tenant)["enqueued_tokens_per_model", "m"]
    assert found["used"] == total.input_tokens > 0
    assert found["left"] == found["limit"] - found["used"]
    assert limits(env.tenant("other"))["enqueued_tokens_per_model", None]["used"] == 0


def test_calls_of_this_minute_are_told_and_when_all_of_them_are_back(env: Env) -> None:
    tenant = env.tenant()
    tenant.change(control_calls_per_minute=60, live_requests_per_minute=5)
    for _ in range(3):
        tenant.ask("GET", "/v1/batches")
    before = int(env.http_api.clock.now().timestamp())
    found = limits(tenant)
    calls = found["control_calls_per_minute", None]
    assert calls["used"] == 60 - calls["left"] > 0
    assert before <= calls["frees_at"] <= before + 60
    assert found["live_requests_per_minute", None]["used"] == 0
    assert found["live_requests_per_minute", None]["frees_at"] is None

    async def call() -> None:
        now_s, allowance = env.http_api.clock.monotonic(), Allowance(requests_per_minute=5)
        env.http_api.services.live.rates.admit(tenant.key_id, "m", allowance, 0, now_s)

    env.http_api.run(call())
    found = limits(tenant)
    assert ("live_requests_per_minute", None) not in found
    of_model = found["live_requests_per_minute", "m"]
    assert (of_model["limit"], of_model["used"], of_model["left"]) == (5, 1, 4)
    assert of_model["frees_at"] >= before


def test_whoami_tells_the_limits_too(env: Env) -> None:
    tenant = env.tenant()
    reported = tenant.ask("GET", "/v1/whoami").json["limits"]
    asked = tenant.ask("GET", "/v1/limits").json["data"]
    assert [each["name"] for each in reported] == [each["name"] for each in asked]
    assert "enqueued_tokens_per_model" in {each["name"] for each in reported}


def test_the_command_shows_what_the_server_tells(
    env: Env, capsys: pytest.CaptureFixture[str]
) -> None:
    tenant = env.tenant()
    named = ["--server", env.http_api.url, "--api-key", tenant.key]
    with capture_logs():  # the server is in this process, and would write between the lines
        assert main(["limits", *named, "--json"]) == 0
        reported = json.loads(capsys.readouterr().out)
        assert [each["name"] for each in reported["data"]] == [name for name, _ in limits(tenant)]
        assert main(["limits", *named]) == 0
    shown = capsys.readouterr().out
    assert "enqueued_tokens_per_model" in shown and "as batches end" in shown
