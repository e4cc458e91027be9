"""What a batch cost and what a project used: the same sums everywhere, in both dialects."""

import csv
import io
from datetime import timedelta
from decimal import Decimal

import msgspec
import openai
import pytest
from console_client import get, sign_in
from tenant_env import EVERYTHING, Env, Tenant

from lowtide.api.objects.accounts import UsageObject
from testkit.manual_worker import USAGE

# Of one success of the hand worker, at 1, 0.5 and 2 dollars per million tokens, half off.
LIVE = (
    (USAGE.input_tokens - USAGE.cached_tokens) * Decimal(1)
    + USAGE.cached_tokens * Decimal("0.5")
    + USAGE.output_tokens * Decimal(2)
) / 10**6


@pytest.fixture
def tenant(env: Env) -> Tenant:
    return env.tenant()


@pytest.mark.parametrize("mount", ["/openai", "/together"])
def test_a_batch_shows_usage_and_cost_of_its_successes(
    env: Env, tenant: Tenant, mount: str
) -> None:
    batch = env.ended_batch(tenant, requests=5)
    reported = tenant.ask("GET", f"{mount}/v1/batches/{batch.id}").json
    assert reported["request_counts"] == {"total": 5, "completed": 4, "failed": 1}
    assert reported["usage"]["input_tokens"] == 4 * USAGE.input_tokens
    assert reported["usage"]["input_tokens_details"] == {"cached_tokens": 4 * USAGE.cached_tokens}
    assert reported["usage"]["total_tokens"] == 4 * USAGE.total_tokens
    assert reported["cost"] == {
        "currency": "usd",
        "amount": f"{4 * LIVE / 2:f}",
        "live_amount": f"{4 * LIVE:f}",
        "saved": f"{4 * LIVE / 2:f}",
    }
    listed = tenant.ask("GET", f"{mount}/v1/batches").json
    (in_list,) = listed if isinstance(listed, list) else listed["data"]
    assert in_list["cost"] == reported["cost"]


def test_the_costs_of_a_batch_are_told_by_model_and_shown_on_its_page(
    env: Env, tenant: Tenant
) -> None:
    file = env.http_api.run(tenant.worker.upload(4))
    asked = {"input_file_id": file.id, "endpoint": "/v1/chat/completions"}
    batch_id = tenant.ask("POST", "/v1/batches", asked).json["id"]
    assert tenant.ask("GET", f"/v1/batches/{batch_id}/costs").json["data"] == []
    env.http_api.run(tenant.worker.plan({"m": 3, "unpriced": 1}))
    env.http_api.run(tenant.worker.lease(batch_id, ["m", "unpriced"]))
    env.http_api.run(tenant.worker.settle(batch_id, ok=[1, 2, 4], bad=[3]))
    reported = tenant.ask("GET", f"/v1/batches/{batch_id}/costs").json
    found = {each["model"]: (each["requests"], each["amount"]) for each in reported["data"]}
    assert found == {"m": (2, f"{2 * LIVE / 2:f}"), "unpriced": (1, "0.00")}
    assert reported["total"]["requests"] == 3
    whole = tenant.ask("GET", f"/v1/batches/{batch_id}").json["cost"]
    assert {name: reported["total"][name] for name in whole} == whole
    page = get(env.http_api, f"/console/batches/{batch_id}", sign_in(tenant)).body.decode()
    assert "Money by model" in page
    assert '<td class="name">unpriced</td>' in page


def test_the_costs_of_a_batch_with_one_model_are_its_own(env: Env, tenant: Tenant) -> None:
    batch = env.ended_batch(tenant, requests=3)
    reported = tenant.ask("GET", f"/v1/batches/{batch.id}/costs").json
    (line,) = reported["data"]
    assert (line["model"], line["requests"]) == ("m", 2)
    assert reported["total"] == {name: line[name] for name in reported["total"]}
    refused = env.tenant("others").ask("GET", f"/v1/batches/{batch.id}/costs")
    assert (refused.status, refused.error["code"]) == (404, "batch_not_found")
    page = get(env.http_api, f"/console/batches/{batch.id}", sign_in(tenant)).body.decode()
    assert "Money by model" not in page


def test_an_sdk_carries_the_cost_along(env: Env, tenant: Tenant) -> None:
    batch = env.ended_batch(tenant)
    with openai.OpenAI(api_key=tenant.key, base_url=f"{env.http_api.url}/v1") as client:
        reported = client.batches.retrieve(batch.id)
    assert reported.usage is not None
    assert reported.usage.output_tokens == 2 * USAGE.output_tokens
    assert reported.model_extra is not None
    assert Decimal(reported.model_extra["cost"]["amount"]) == LIVE


def test_a_batch_that_has_not_begun_cost_nothing(env: Env, tenant: Tenant) -> None:
    batch = env.running_batch(tenant)
    cost = tenant.ask("GET", f"/v1/batches/{batch.id}").json["cost"]
    assert cost == {"currency": "usd", "amount": "0.00", "live_amount": "0.00", "saved": "0.00"}


def test_usage_groups_by_day_model_and_project(env: Env, tenant: Tenant) -> None:
    same = env.tenant(organization_id=tenant.organization_id)
    env.ended_batch(tenant, requests=3)
    env.ended_batch(tenant, requests=4, model="m")
    env.ended_batch(same, requests=2)
    reported = tenant.ask("GET", "/v1/usage?group_by=day,model").json
    msgspec.convert(reported, UsageObject)
    (row,) = reported["data"]
    assert row["model"] == "m"
    assert row["day"] == env.http_api.clock.now().date().isoformat()
    assert row["requests"] == reported["total"]["requests"] == 5
    assert Decimal(row["amount"]) == 5 * LIVE / 2
    assert Decimal(row["saved"]) == 5 * LIVE / 2
    assert "project_id" not in row
    assert tenant.ask("GET", "/v1/usage?group_by=").json["data"][0]["requests"] == 5

    admin = env.tenant(scopes=EVERYTHING)
    path = f"/v1/usage?group_by=project&organization_id={tenant.organization_id}"
    rows = {row["project_id"]: row["requests"] for row in admin.ask("GET", path).json["data"]}
    assert rows == {tenant.project_id: 5, same.project_id: 1}
    path = f"/v1/usage?project_id={same.project_id}"
    assert admin.ask("GET", path).json["total"]["requests"] == 1
    assert admin.ask("GET", "/v1/usage?organization_id=all").json["total"]["requests"] == 6
    assert admin.ask("GET", "/v1/usage").json["total"]["requests"] == 0


def test_usage_as_csv_has_the_same_figures(env: Env, tenant: Tenant) -> None:
    env.ended_batch(tenant)
    answer = tenant.ask("GET", "/v1/usage?format=csv&group_by=project,model,day")
    assert answer.headers["content-type"].startswith("text/csv")
    assert 'filename="usage-' in answer.headers["content-disposition"]
    (row,) = csv.DictReader(io.StringIO(answer.body.decode()))
    (same,) = tenant.ask("GET", "/v1/usage?group_by=day,model,project").json["data"]
    assert row == {key: str(value) for key, value in same.items()}
    assert row["project_id"] == tenant.project_id


def test_since_and_until_bound_the_report(env: Env, tenant: Tenant) -> None:
    env.ended_batch(tenant)
    now = env.http_api.clock.now()
    env.http_api.clock.shift = timedelta(minutes=2)
    before, after = int(now.timestamp()) - 60, int(now.timestamp()) + 60

    def requests(query: str) -> int:
        count: int = tenant.ask("GET", f"/v1/usage?{query}").json["total"]["requests"]
        return count

    assert requests(f"since={before}&until={after}") == 2
    assert requests(f"since={after}") == 0
    assert requests(f"since={before - 60}&until={before}") == 0
    assert requests(f"since={(now - timedelta(days=40)).date()}&until={after}") == 2
    iso = (now - timedelta(minutes=1)).isoformat().replace("+", "%2B")
    assert requests(f"since={iso}") == 2


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("since=yesterday", "since"),
        ("until=2026-13-01", "until"),
        ("since=2026-02-01&until=2026-01-01", "since"),
        ("since=2000-01-01", "since"),
        ("since=999999999999", "since"),
        ("group_by=day,hour", "group_by"),
        ("format=xml", "format"),
    ],
)
def test_a_report_that_makes_no_sense_names_the_parameter(
    tenant: Tenant, query: str, param: str
) -> None:
    answer = tenant.ask("GET", f"/v1/usage?{query}")
    assert (answer.status, answer.error["code"]) == (400, "invalid_request")
    assert answer.error["param"] == param


def test_a_key_with_admin_alone_sees_usage_and_no_results(env: Env) -> None:
    admin = env.tenant(scopes=("admin",))
    assert admin.ask("GET", "/v1/usage").status == 200
    assert admin.ask("GET", "/v1/files").status == 403
    submitter = env.tenant(scopes=("submit",))
    refusal = submitter.ask("GET", "/v1/usage")
    assert refusal.status == 403
    assert "'read' or 'admin'" in refusal.json["error"]["message"]
