"""Filtered lists of batches: over HTTP, and by what a person types into the console's box."""

from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any
from urllib.parse import quote

import pytest
from console_client import get, sign_in
from tenant_env import Env, Tenant, line

from lowtide import limits
from lowtide.api.console.batches.filter_box import read_filter
from lowtide.core.batches.batch_filter import BatchFilter
from lowtide.core.errors import LowtideError

NOW = datetime(2026, 11, 29, tzinfo=UTC)


@pytest.mark.parametrize(
    ("typed", "asked"),
    [
        ("", {}),
        ("state:running", {"statuses": ("in_progress",), "is_held": False}),
        ("state:in_progress", {"statuses": ("in_progress",)}),
        ("state:paused error:timeout", {"is_held": True, "error_code": "timeout"}),
        ("state:finalizing", {"statuses": ("finalizing", "expiring")}),
        ("model:qwen evals  night", {"model": "qwen", "text": "evals night"}),
        ("created:>2d", {"created_before": NOW - timedelta(days=2)}),
        ("created:<12h text:x:y", {"created_after": NOW - timedelta(hours=12), "text": "x:y"}),
        ("at 10:30 :z", {"text": "at 10:30 :z"}),
    ],
)
def test_a_typed_filter_says_what_is_asked_for(typed: str, asked: dict[str, Any]) -> None:
    assert read_filter(typed, NOW) == BatchFilter(**asked)


@pytest.mark.parametrize(
    "typed",
    ["state:well", "created:2d", "created:>2w", "created:>99999d", "failed:>0", "x" * 513],
)
def test_a_filter_that_cannot_be_read_says_why(typed: str) -> None:
    with pytest.raises(LowtideError, match="The filter cannot be read"):
        read_filter(typed, NOW)


def test_a_key_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(LowtideError) as refused:
        read_filter("model:qwen colour:red", NOW)
    assert "there is no colour:, only state:, model:, created:, error:, text:" in str(refused.value)


def listed(tenant: Tenant, query: str) -> list[str]:
    return [each["id"] for each in tenant.ask("GET", f"/v1/batches?{query}").json["data"]]


def test_a_list_is_filtered_over_http(env: Env) -> None:
    tenant = env.tenant()
    ended = env.ended_batch(tenant)
    named = tenant.create(line(), metadata={"name": "Night run"}).json
    assert listed(tenant, "status=completed") == [ended.id]
    assert listed(tenant, "text=night%20RUN") == [named["id"]]
    assert listed(tenant, "text=in.jsonl&status=validating") == [named["id"]]
    assert listed(tenant, "model=m") == [ended.id]
    assert listed(tenant, f"created_before={named['created_at'] + 60}") == [named["id"], ended.id]
    assert listed(tenant, f"created_after={named['created_at'] + 60}") == []
    assert listed(env.tenant("other"), "text=night") == []


def test_paused_batches_and_those_with_a_code_of_failure_are_found(env: Env) -> None:
    tenant = env.tenant()
    failed = env.ended_batch(tenant)
    (group,) = tenant.ask("GET", f"/v1/batches/{failed.id}/errors").json["data"]
    held, free = (tenant.create(line(), metadata={"n": n}).json["id"] for n in ("1", "2"))
    tenant.ask("POST", f"/v1/batches/{held}/pause", b"{}")
    assert listed(tenant, "held=true") == [held]
    assert listed(tenant, "held=false") == [free, failed.id]
    assert listed(tenant, f"error_code={group['code']}") == [failed.id]
    assert listed(env.tenant("other"), f"error_code={group['code']}") == []
    assert listed(tenant, "error_code=no_such_code") == []
    page = get(env.http_api, "/?q=state:paused", sign_in(tenant)).body.decode()
    assert held in page
    assert free not in page
    assert "in.jsonl" in page  # a batch without a name is called by its input file
    assert held not in get(env.http_api, "/?q=state:running", sign_in(tenant)).body.decode()


@pytest.mark.parametrize("query", ["status=well", "created_after=soon", "created_after=-1"])
def test_a_filter_that_makes_no_sense_is_refused(env: Env, query: str) -> None:
    answer = env.tenant().ask("GET", f"/v1/batches?{query}")
    assert (answer.status, answer.error["code"]) == (400, "invalid_request")


def test_the_filter_is_in_the_address_and_stays_there_from_page_to_page(
    env: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CONSOLE_BATCHES_PAGE", 1)
    tenant = env.tenant()
    first = tenant.create(line(), metadata={"name": "night & day 1"}).json["id"]
    tenant.create(line(), metadata={"name": "another"})
    last = tenant.create(line(), metadata={"name": "night & day 2"}).json["id"]
    cookie, typed = sign_in(tenant), quote("night & day", "")
    page = unescape(get(env.http_api, f"/?q={typed}", cookie).body.decode())
    assert 'value="night & day"' in page
    assert last in page
    assert first not in page
    older = f"/?q=night%20%26%20day&after={last}"
    assert f'href="{older}"' in page
    page = get(env.http_api, older, cookie).body.decode()
    assert first in page
    assert "another" not in page


def test_the_box_explains_what_it_cannot_read_and_that_nothing_is_found(env: Env) -> None:
    tenant = env.tenant()
    cookie = sign_in(tenant)
    tenant.create(line())
    page = get(env.http_api, "/?q=state:well", cookie)
    assert page.status == 200
    assert "The filter cannot be read" in page.body.decode()
    assert "No batch is like that" not in page.body.decode(), "nothing was looked for"
    for query in ("", "?q=state:well", "?q=zzz"):
        help_is_there = "What the filter understands</summary>"
        assert help_is_there in get(env.http_api, f"/{query}", cookie).body.decode()
    assert "No batch is like that" in get(env.http_api, "/?q=zzz", cookie).body.decode()
