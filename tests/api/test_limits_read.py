"""Limits that can be read: `GET /v1/limits`, whoami, and `lowtide limits`."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from structlog.testing import capture_logs
from tenant_env import Env, Tenant, line

from lowtide.cli.app import main


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


def test_whoami_tells_the_limits_too(env: Env) -> None:
    tenant = env.tenant()
    assert (
        tenant.ask("GET", "/v1/whoami").json["limits"]
        == tenant.ask("GET", "/v1/limits").json["data"]
    )


def test_the_command_shows_what_the_server_tells(
    env: Env, capsys: pytest.CaptureFixture[str]
) -> None:
    tenant = env.tenant()
    named = ["--server", env.http_api.url, "--api-key", tenant.key]
    with capture_logs():  # the server is in this process, and would write between the lines
        assert main(["limits", *named, "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == tenant.ask("GET", "/v1/limits").json
        assert main(["limits", *named]) == 0
    shown = capsys.readouterr().out
    assert "enqueued_tokens_per_model" in shown and "as batches end" in shown
