"""`lowtide webhooks` against a server: every verb, in words and as JSON."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs
from tenant_env import Env, Tenant

from lowtide.cli.app import main

URL = "https://93.184.216.34/hooks"
"""A public address by its number, which nobody calls here."""
Ask = Callable[..., tuple[int, str]]


@pytest.fixture
def tenant(env: Env) -> Tenant:
    return env.tenant()


@pytest.fixture
def ask(tenant: Tenant, capsys: pytest.CaptureFixture[str]) -> Ask:
    def run(*words: str) -> tuple[int, str]:
        place = ("--server", tenant.env.http_api.url, "--api-key", tenant.key)
        with capture_logs():  # the server is in this process, and would write between the lines
            code = main(["webhooks", *words, *place])
            tenant.env.http_api.run(asyncio.sleep(0))
        return code, capsys.readouterr().out

    return run


def asked(ask: Ask, *words: str) -> Any:
    code, out = ask(*words, "--json")
    assert code == 0, out
    return json.loads(out)


def test_a_webhook_is_made_shown_changed_and_deleted(ask: Ask, tenant: Tenant) -> None:
    code, out = ask("create", URL, "--event", "batch.failed")
    assert code == 0
    webhook_id, secret = out.splitlines()
    assert webhook_id.startswith("wh_") and secret.startswith("whsec_")
    assert asked(ask, "list")["data"] == [asked(ask, "show", webhook_id)]
    assert webhook_id in ask("list")[1] and URL in ask("show", webhook_id)[1]
    changed = asked(ask, "set", webhook_id, "--disable", "--name", "mine")
    assert (changed["enabled"], changed["name"], changed["events"]) == (
        False,
        "mine",
        ["batch.failed"],
    )
    assert "disabled" in ask("show", webhook_id)[1]
    assert asked(ask, "set", webhook_id, "--enable")["enabled"] is True
    assert asked(ask, "delete", webhook_id)["deleted"] is True
    assert asked(ask, "list")["data"] == []


def test_a_change_of_nothing_is_refused(ask: Ask) -> None:
    assert ask("set", "wh_x")[0] != 0


def test_secrets_rotate_also_that_of_the_project(ask: Ask) -> None:
    made = asked(ask, "create", URL)
    fresh = asked(ask, "rotate", made["id"], "--overlap-hours", "0")
    assert fresh["secret"] != made["secret"]
    code, out = ask("rotate", "project")
    assert (code, out[:6]) == (0, "whsec_")


def test_deliveries_are_listed_and_replayed(ask: Ask) -> None:
    made = asked(ask, "create", URL)
    assert asked(ask, "deliveries", made["id"], "--state", "failed")["data"] == []
    assert asked(ask, "deliveries", "project")["data"] == []
    assert asked(ask, "replay", made["id"]) == {"object": "webhook_replay", "replayed": 0}
    assert ask("replay", made["id"], "evt_unknown")[0] != 0


def test_an_address_that_is_refused_is_told_with_the_setting(
    ask: Ask, tenant: Tenant, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ("--server", tenant.env.http_api.url, "--api-key", tenant.key)
    assert main(["webhooks", "create", "http://10.0.0.1/", *place]) != 0
    assert "allow_networks" in " ".join(capsys.readouterr().err.split())
