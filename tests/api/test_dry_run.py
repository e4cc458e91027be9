"""The estimate before submission: the real validation, priced; nothing is created or kept."""

from decimal import Decimal
from typing import Any

import pytest
from tenant_env import CHAT, Env, Tenant, line

from lowtide.core.accounts.catalogue import Catalogue, ModelEntry


@pytest.fixture
def tenant(env: Env) -> Tenant:
    return env.tenant()


def dry_run(tenant: Tenant, content: bytes, **fields: Any) -> dict[str, Any]:
    answer = tenant.create(content, dry_run=True, **fields)
    assert answer.status == 200, answer.body
    reported: dict[str, Any] = answer.json
    assert reported["object"] == "batch.estimate"
    return reported


def test_an_estimate_has_tokens_and_both_prices_and_creates_nothing(
    env: Env, tenant: Tenant
) -> None:
    content = line(1, max_tokens=100) + line(2, max_completion_tokens=50) + line(3)
    reported = dry_run(tenant, content)
    (model,) = reported["models"]
    assert (reported["requests"], model["requests"], model["model"]) == (3, 3, "m")
    assert model["output_tokens_max"] == 150
    live = (model["input_tokens"] * Decimal(1) + 150 * Decimal(2)) / 10**6
    assert Decimal(model["live_amount"]) == live
    assert Decimal(model["amount"]) == Decimal(model["saved"]) == live / 2
    assert reported["totals"] == {key: model[key] for key in reported["totals"]}
    assert (reported["errors"], reported["warnings"], reported["would_exceed"]) == (None, None, [])
    assert tenant.ask("GET", "/v1/batches").json["data"] == []

    created = tenant.create(content)
    env.validate()
    shares = env.http_api.run(env.http_api.store.batches.models(created.json["id"]))
    assert shares["m"].input_tokens == model["input_tokens"]


def test_a_prompt_beyond_the_context_is_a_warning_of_estimate_and_batch(
    env: Env, tenant: Tenant
) -> None:
    before = Catalogue(list(env.catalogue.entries.values()))  # of all tests of this module
    env.catalogue.adopt(Catalogue([ModelEntry(id="m", context_length=100)]))
    words = [{"role": "user", "content": "many words " * 200}]
    content = line(1) + line(2, messages=words)
    try:
        (warning,) = dry_run(tenant, content)["warnings"]["data"]
    finally:
        env.catalogue.adopt(before)
    assert (warning["code"], warning["line"], warning["param"]) == (
        "context_exceeded",
        2,
        "body.messages",
    )
    assert "context of m, 100 tokens" in warning["message"]


def test_a_bad_file_is_told_as_the_batch_would_be(env: Env, tenant: Tenant) -> None:
    content = line(1) + b"not json\n" + line(1) + line(2, model="nope")
    reported = dry_run(tenant, content)
    assert (reported["requests"], reported["models"]) == (0, [])
    created = tenant.create(content)
    env.validate()
    failed = tenant.ask("GET", f"/v1/batches/{created.json['id']}").json
    assert reported["errors"] == failed["errors"]
    assert [error["line"] for error in reported["errors"]["data"]] == [2, 3, 4]
    assert reported["errors_total"] == 3


def test_every_limit_that_would_be_passed_is_named(env: Env, tenant: Tenant) -> None:
    tenant.change(
        spend_cap=Decimal("0.0001"),
        enqueued_tokens_per_model=5,
        batches_per_hour=0,
        unfinished_batches=0,
    )
    reported = dry_run(tenant, line(max_tokens=1000))
    exceeded = {limit["limit"]: limit for limit in reported["would_exceed"]}
    assert {name: limit["code"] for name, limit in exceeded.items()} == {
        "enqueued_tokens_per_model": "token_limit_exceeded",
        "spend_cap": "spend_cap_exceeded",
        "batches_per_hour": "rate_limit_exceeded",
        "unfinished_batches": "rate_limit_exceeded",
    }
    assert exceeded["spend_cap"]["allowed"] == "0.0001"
    assert exceeded["spend_cap"]["used"] == "0.00"
    assert exceeded["spend_cap"]["asked"] == reported["totals"]["amount"]
    assert exceeded["enqueued_tokens_per_model"]["allowed"] == 5
    assert exceeded["enqueued_tokens_per_model"]["model"] == "m"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"endpoint": "/v1/nope"}, "invalid_value"),
        ({"completion_window": "1s"}, "invalid_request"),
        ({"dry_run": "yes"}, "invalid_request"),
    ],
)
def test_a_dry_run_is_refused_as_the_create_would_be(
    tenant: Tenant, fields: dict[str, Any], code: str
) -> None:
    answer = tenant.create(line(), **{"dry_run": True, **fields})
    assert (answer.status, answer.error["code"]) == (400, code)


def test_a_dry_run_of_a_deleted_file_is_refused(tenant: Tenant) -> None:
    file_id = tenant.upload(line()).json["id"]
    tenant.ask("DELETE", f"/v1/files/{file_id}")
    body = {"input_file_id": file_id, "endpoint": CHAT, "dry_run": True}
    assert tenant.ask("POST", "/v1/batches", body).status == 404


def test_dry_run_false_is_a_create(tenant: Tenant) -> None:
    assert tenant.create(line(), dry_run=False).json["object"] == "batch"
