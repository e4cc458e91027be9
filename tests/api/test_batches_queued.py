"""Batches above the enqueued-token limit that wait: what clients, commands and pages show."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from tenant_env import Env, Tenant, line, open_house

from lowtide.cli.app import main
from lowtide.config import LimitSettings
from lowtide.core.reporting.worker_report import WorkerReport
from lowtide.loops.batches.token_queue import TokenQueueLoop


@pytest.fixture
def env(tmp_path: Path) -> Iterator[Env]:
    with open_house(tmp_path, LimitSettings(over_limit="queue")) as running:
        yield running


def created(env: Env, tenant: Tenant, **fields: Any) -> str:
    """A batch that was validated; how many tokens it asks for is the same for all."""
    batch_id: str = tenant.create(line(text="word " * 100), **fields).json["id"]
    env.validate()
    return batch_id


def tell(tenant: Tenant, batch_id: str, mount: str = "/v1") -> dict[str, Any]:
    return dict(tenant.ask("GET", f"{mount}/batches/{batch_id}").json)


def let_in(env: Env) -> list[str]:
    """One turn of the loop; what it woke."""
    woken: list[str] = []
    services = env.http_api.services
    loop = TokenQueueLoop(env.http_api.store.token_queue, services.allowance, woken.append)
    env.http_api.run(loop.tick(env.http_api.clock.now()))
    return woken


def full(env: Env) -> tuple[Tenant, str, int]:
    """A tenant with a batch that runs, and room for less than another one."""
    now = env.http_api.clock.now()
    report = WorkerReport(worker_id="w", seen_at=now, ttl_s=3600.0)
    env.http_api.run(env.http_api.store.worker_reports.write(report, forget_before=now))
    tenant = env.tenant()
    runs = created(env, tenant)
    assert tell(tenant, runs)["status"] == "in_progress"
    used: int = env.http_api.run(env.http_api.store.batches.models(runs))["m"].input_tokens
    tenant.change(enqueued_tokens_per_model=used + 10)
    return tenant, runs, used


def test_a_batch_without_room_waits_and_says_for_what_and_in_which_place(env: Env) -> None:
    tenant, _, used = full(env)
    first, second = created(env, tenant), created(env, tenant)
    for place, batch_id in enumerate((first, second), 1):
        reported = tell(tenant, batch_id)
        assert (reported["status"], reported["stage"]) == ("validating", "queuing")
        assert reported["queue_position"] == place
        assert reported["reason"].startswith(
            f"Waits for enqueued tokens of m: {used:,} are enqueued, of {used + 10:,} at most,"
        )
    assert "next one" in tell(tenant, first)["reason"]
    assert "number 2" in tell(tenant, second)["reason"]
    job = tell(tenant, second, "/together/v1")
    assert (job["status"], job["queue_position"]) == ("VALIDATING", 2)
    listed = tenant.ask("GET", "/v1/batches").json["data"]
    assert [each["queue_position"] for each in listed] == [2, 1, None]


def test_it_begins_when_there_is_room_and_by_order(env: Env) -> None:
    tenant, runs, _ = full(env)
    first, second = created(env, tenant), created(env, tenant)
    assert let_in(env) == []
    tenant.ask("POST", f"/v1/batches/{runs}/cancel")
    assert let_in(env) == ["dispatch"]
    assert tell(tenant, first)["status"] == "in_progress"
    assert tell(tenant, first)["queue_position"] is None
    assert tell(tenant, second)["queue_position"] == 1
    tenant.change()
    assert let_in(env) == ["dispatch"], "a limit that is raised lets them in as well"
    assert tell(tenant, second)["status"] == "in_progress"


def test_one_that_can_never_fit_fails_and_says_so(env: Env) -> None:
    tenant, _, used = full(env)
    waits = created(env, tenant)
    tenant.change(enqueued_tokens_per_model=used - 1)
    assert let_in(env) == ["validate"]
    env.validate()
    for batch_id in (waits, created(env, tenant)):
        reported = tell(tenant, batch_id)
        (error,) = reported["errors"]["data"]
        assert (reported["status"], error["code"]) == ("failed", "token_limit_exceeded")
        assert "alone asks for more" in error["message"]


def test_limits_say_whether_batches_wait(env: Env) -> None:
    def over(tenant: Tenant) -> set[str]:
        found = tenant.ask("GET", "/v1/limits").json["data"]
        return {each["name"] for each in found if each["over_limit"] == "queue"}

    assert over(env.tenant()) == {"enqueued_tokens_per_model"}


def test_the_command_and_the_page_show_the_place(
    env: Env, capsys: pytest.CaptureFixture[str]
) -> None:
    tenant, _, _ = full(env)
    batch_id = created(env, tenant)
    named = ["--server", env.http_api.url, "--api-key", tenant.key]
    with capture_logs():
        assert main(["batches", "list", *named]) == 0
        assert "validating, place 1" in capsys.readouterr().out
        assert main(["batches", "get", batch_id, *named]) == 0
        assert "validating (queuing)" in capsys.readouterr().out
        assert main(["batches", "get", batch_id, *named, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["queue_position"] == 1
