"""Limits and caps in the HTTP API: each with a default, an override, and the clients' own code."""

from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import msgspec
import openai
import pytest
from api_server import Answer
from tenant_env import CHAT, Env, Tenant, line, open_house

from lowtide import limits
from lowtide.config import LimitSettings
from lowtide.core.reporting.worker_report import ReplicaReport, WorkerReport


def failed_with(env: Env, tenant: Tenant, created: Answer) -> tuple[str, str]:
    """Code and message of the batch after validation."""
    assert created.status == 200, created.body
    env.validate()
    batch = tenant.ask("GET", f"/v1/batches/{created.json['id']}").json
    assert batch["status"] == "failed", batch
    (error,) = batch["errors"]["data"]
    return error["code"], error["message"]


def test_batches_per_hour_are_refused_with_the_seconds_to_wait(env: Env) -> None:
    tenant = env.tenant()
    tenant.change(batches_per_hour=2)
    clock = env.http_api.clock
    assert tenant.create(line()).status == 200
    clock.shift = timedelta(seconds=30)
    assert tenant.create(line()).status == 200
    clock.shift = timedelta(minutes=30)
    refused = tenant.create(line())
    assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
    assert refused.error["type"] == "rate_limit_error"
    assert tenant.organization_id in refused.error["message"]
    assert refused.headers["retry-after"] == "60"  # the SDKs wait no longer by themselves
    clock.shift = timedelta(seconds=3600 - 20)
    wait_s = int(tenant.create(line()).headers["retry-after"])
    assert 1 <= wait_s <= 21
    clock.shift += timedelta(seconds=wait_s)
    assert tenant.create(line()).status == 200
    assert tenant.create(line()).status == 429


def test_unfinished_batches_are_bounded_until_one_has_ended(env: Env) -> None:
    tenant, other = env.tenant(), env.tenant()
    tenant.change(unfinished_batches=2)
    first = tenant.create(line()).json["id"]
    assert tenant.create(line()).status == 200
    refused = tenant.create(line())
    assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
    assert refused.headers["retry-after"] == "60"
    for words in (tenant.organization_id, "2 batches", "unfinished_batches", "cancel"):
        assert words in refused.error["message"]
    assert other.create(line()).status == 200
    tenant.ask("POST", f"/v1/batches/{first}/cancel")
    env.assemble()
    assert tenant.create(line()).status == 200


def test_background_responses_count_as_unfinished_batches(env: Env) -> None:
    tenant = env.tenant()
    tenant.change(unfinished_batches=1)
    call = {"model": "m", "input": "Hi", "background": True}
    assert tenant.ask("POST", "/v1/responses", call).status == 200
    before = env.http_api.blobs_on_disk()
    refused = tenant.ask("POST", "/v1/responses", call)
    assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
    assert refused.headers["retry-after"] == "60"
    assert env.http_api.blobs_on_disk() == before
    assert tenant.create(line()).status == 429


def test_calls_that_are_not_interactive_have_a_rate_for_each_organization(env: Env) -> None:
    tenant, other = env.tenant(), env.tenant()
    same = env.tenant(organization_id=tenant.organization_id)
    tenant.change(control_calls_per_minute=3)
    calls = [tenant.ask("GET", "/v1/whoami"), same.ask("GET", "/v1/files")]
    calls += [tenant.ask("GET", "/v1/batches"), tenant.upload(line())]
    assert [call.status for call in calls] == [200, 200, 200, 429]
    refused = calls[-1]
    assert refused.error["code"] == "rate_limit_exceeded"
    for words in (tenant.organization_id, "3 per minute", "control_calls_per_minute", "again in"):
        assert words in refused.error["message"]
    wait_s = int(refused.headers["retry-after"])
    assert 1 <= wait_s <= 20
    assert other.ask("GET", "/v1/batches").status == 200
    live = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    assert tenant.ask("POST", CHAT, live).status != 429, "interactive calls have their own"
    assert env.http_api.ask("GET", "/health").status == 200
    env.http_api.clock.shift += timedelta(seconds=wait_s)
    assert tenant.ask("GET", "/v1/whoami").status == 200


def test_a_long_list_counts_as_more_than_one_call(env: Env) -> None:
    tenant = env.tenant()
    tenant.change(control_calls_per_minute=5)
    env.http_api.run(keep_files(env, tenant, 2 * limits.CONTROL_ROWS_PER_CALL))
    shown = [tenant.ask("GET", "/v1/files?limit=50").status for _ in range(2)]
    assert shown == [200, 200], "one call each"
    whole = tenant.ask("GET", "/v1/files")
    assert (whole.status, len(whole.json["data"])) == (200, 200)
    refused = tenant.ask("GET", "/v1/whoami")
    assert refused.status == 429, "three of five were left, and this one took them"
    assert 1 <= int(refused.headers["retry-after"]) <= 12


def test_a_download_without_a_free_place_is_told_so_and_when_to_try_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DOWNLOADS_MAX", 0)
    with open_house(tmp_path) as env:
        tenant = env.tenant()
        file_id = tenant.upload(line()).json["id"]
        refused = tenant.ask("GET", f"/v1/files/{file_id}/content")
    assert (refused.status, refused.error["code"]) == (429, "rate_limit_exceeded")
    assert tenant.organization_id in refused.error["message"]
    assert refused.headers["retry-after"] == str(limits.DOWNLOADS_RETRY_AFTER_S)


def test_a_download_gives_its_place_back_however_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DOWNLOADS_MAX", 8)
    with open_house(tmp_path) as env:
        tenant = env.tenant()
        path = f"/v1/files/{tenant.upload(line()).json['id']}/content"
        answers = [
            tenant.ask(method, asked, **{"range": "bytes=0-1"} if number % 2 else {}).status
            for number in range(10)
            for method, asked in (("GET", path), ("HEAD", path), ("GET", "/v1/files/no/content"))
        ]
    assert set(answers) == {200, 206, 404}


async def keep_files(env: Env, tenant: Tenant, count: int) -> None:
    """As that many uploads leave them."""
    first = await tenant.worker.upload(1, model="m")
    for number in range(1, count):
        twin = msgspec.structs.replace(first, id=f"file-twin{number}")
        await env.http_api.store.files.add(twin)


def test_the_rate_of_one_organization_is_not_that_of_another(tmp_path: Path) -> None:
    with open_house(tmp_path, LimitSettings(batches_per_hour=1)) as env:
        first, second = env.tenant(), env.tenant()
        same = env.tenant(organization_id=first.organization_id)
        generous = env.tenant()
        generous.change(batches_per_hour=2)
        assert first.create(line()).status == 200
        assert first.create(line()).status == 429
        assert same.create(line()).status == 429
        assert second.create(line()).status == 200
        assert [generous.create(line()).status for _ in range(3)] == [200, 200, 429]


def test_a_repeated_create_is_answered_although_the_limit_is_reached(env: Env) -> None:
    tenant = env.tenant()
    tenant.change(batches_per_hour=1)
    file_id = tenant.upload(line()).json["id"]
    asked = {"input_file_id": file_id, "endpoint": CHAT}
    first = tenant.ask("POST", "/v1/batches", asked)
    again = tenant.ask("POST", "/v1/batches", asked, x_stainless_retry_count="1")
    assert again.json["id"] == first.json["id"]
    other = tenant.ask("POST", "/v1/batches", {**asked, "metadata": {"a": "b"}})
    assert other.status == 429


def test_an_sdk_raises_its_rate_limit_error(env: Env) -> None:
    tenant = env.tenant()
    tenant.change(batches_per_hour=0)
    file_id = tenant.upload(line()).json["id"]
    with (
        openai.OpenAI(
            api_key=tenant.key, base_url=f"{env.http_api.url}/v1", max_retries=0
        ) as client,
        pytest.raises(openai.RateLimitError) as refused,
    ):
        client.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window="24h")
    assert refused.value.code == "rate_limit_exceeded"


@pytest.mark.parametrize("way", ["form", "put"])
def test_a_file_above_the_organizations_bound_is_refused(env: Env, way: str) -> None:
    tenant = env.tenant()
    tenant.change(file_bytes=1000)
    assert send(tenant, way, b"x" * 1000).status == 200
    refused = send(tenant, way, b"x" * 1001)
    assert (refused.status, refused.error["code"]) == (413, "file_too_large")
    assert "1000 bytes" in refused.error["message"]


@pytest.mark.parametrize("way", ["form", "put"])
def test_stored_bytes_are_bounded_and_freed_by_a_deletion(env: Env, way: str) -> None:
    tenant = env.tenant()
    tenant.change(stored_bytes=1500)
    first = send(tenant, way, b"x" * 1000)
    assert first.status == 200
    before = env.http_api.blobs_on_disk()
    refused = send(tenant, way, b"x" * 501)
    assert (refused.status, refused.error["code"]) == (413, "storage_limit_exceeded")
    assert "1500 bytes, of which 1000 are in use" in refused.error["message"]
    assert env.http_api.blobs_on_disk() == before
    assert tenant.ask("DELETE", f"/v1/files/{first.json['id']}").status == 200
    assert send(tenant, way, b"x" * 1500).status == 200


def test_requests_per_batch_are_bounded_by_the_organization(env: Env) -> None:
    tenant = env.tenant()
    tenant.change(requests_per_batch=2)
    two = tenant.create(line(1) + line(2))
    env.validate()
    assert tenant.ask("GET", f"/v1/batches/{two.json['id']}").json["status"] == "in_progress"
    created = tenant.create(line(1) + line(2) + line(3))
    code, message = failed_with(env, tenant, created)
    assert code == "too_many_tasks"
    assert "more than 2 requests" in message


def test_enqueued_tokens_name_limit_used_and_asked(env: Env) -> None:
    tenant = env.tenant()
    first = tenant.create(line(text="word " * 100))
    env.validate()
    assert tenant.ask("GET", f"/v1/batches/{first.json['id']}").json["status"] == "in_progress"
    shares = env.http_api.run(env.http_api.store.batches.models(first.json["id"]))
    used = shares["m"].input_tokens
    tenant.change(enqueued_tokens_per_model=used + 10)
    code, message = failed_with(env, tenant, tenant.create(line(text="word " * 100)))
    assert code == "token_limit_exceeded"
    assert message.startswith("Enqueued token limit reached for m")
    assert f"Limit: {used + 10:,}" in message
    assert f"{used:,} are enqueued" in message
    assert f"about {used:,} more" in message


def test_a_batch_whose_estimate_passes_the_cap_fails_with_the_figures(env: Env) -> None:
    tenant = env.tenant()
    tenant.change(spend_cap=Decimal("0.0001"))
    code, message = failed_with(env, tenant, tenant.create(line(max_tokens=1000)))
    assert code == "spend_cap_exceeded"
    assert "Cap: $0.0001 a month; $0.00 is spent and this batch is estimated at $0.001" in message
    fits = tenant.create(line(max_tokens=10))
    env.validate()
    assert tenant.ask("GET", f"/v1/batches/{fits.json['id']}").json["status"] == "in_progress"


def test_an_organization_at_its_cap_cannot_create_batches(env: Env) -> None:
    tenant = env.tenant()
    env.ended_batch(tenant)
    spent = Decimal(tenant.ask("GET", "/v1/usage").json["total"]["amount"])
    assert spent > 0
    tenant.change(spend_cap=spent)
    refused = tenant.create(line())
    assert (refused.status, refused.error["code"]) == (402, "spend_cap_exceeded")
    assert f"${spent}" in refused.error["message"]
    tenant.change(spend_cap=spent + 1)
    assert tenant.create(line()).status == 200


def a_worker_lives(env: Env) -> None:
    """It has reported that it serves the model."""
    now = env.http_api.clock.now()
    replica = ReplicaReport(name="r", models=("m",))
    report = WorkerReport(worker_id="w", seen_at=now, ttl_s=3600.0, replicas=(replica,))
    env.http_api.run(env.http_api.store.worker_reports.write(report, forget_before=now))


def test_a_batch_that_reaches_the_cap_while_running_says_why_it_waits(env: Env) -> None:
    tenant = env.tenant()
    tenant.change(spend_cap=Decimal("0.000001"))
    a_worker_lives(env)
    batch = env.running_batch(tenant, requests=300)
    run, path = env.http_api.run, f"/v1/batches/{batch.id}"
    run(env.http_api.store.work.claim_chunks("w", ["m"], 1, env.http_api.clock.now(), 60))
    run(tenant.worker.lease(batch.id, ["m"]))
    line_of_second_chunk = limits.CHUNK_REQUESTS_MAX + 1
    run(tenant.worker.settle(batch.id, ok=[line_of_second_chunk]))
    reported = tenant.ask("GET", path).json
    assert reported["status"] == "in_progress"
    assert "has spent what its cap allows" in reported["reason"]
    tenant.change(spend_cap=Decimal(5))
    assert tenant.ask("GET", path).json["reason"] is None


def test_requests_in_flight_wait_with_their_reason(env: Env) -> None:
    tenant = env.tenant()
    tenant.change(requests_in_flight=1)
    a_worker_lives(env)
    batch = env.running_batch(tenant, requests=limits.CHUNK_REQUESTS_MAX + 1)
    store, now = env.http_api.store, env.http_api.clock.now()
    leased = env.http_api.run(store.work.claim_chunks("w", ["m"], 9, now, 60))
    assert len(leased) == 1
    reason = tenant.ask("GET", f"/v1/batches/{batch.id}").json["reason"]
    assert reason == "Queued: the organization may have 1 requests at engines at one time."


def send(tenant: Tenant, way: str, content: bytes) -> Answer:
    """By a form, or by announcing and then sending to the signed address."""
    if way == "form":
        return tenant.upload(content)
    announced = tenant.ask(
        "POST",
        "/v1/files",
        b"purpose=batch-api&file_name=a.jsonl",
        content_type="application/x-www-form-urlencoded",
    )
    address = announced.headers["location"].removeprefix(tenant.env.http_api.url)
    return tenant.env.http_api.ask("PUT", address, content)
