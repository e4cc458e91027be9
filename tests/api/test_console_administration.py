"""The console's pages of usage, administration and webhooks, as a browser without JavaScript."""

import re
from dataclasses import replace
from decimal import Decimal
from html import unescape

import pytest
from api_server import Answer
from console_client import csrf_in, get, post, sign_in
from tenant_env import EVERYTHING, Env, Tenant

from lowtide.api.console.formats import dollars
from lowtide.core.webhooks.schedule import Attempt

HOSTILE = "<script>alert(1)</script>"
PUBLIC = "https://93.184.216.34/hooks"
"""A public address by its number, which nobody calls here."""


def page_of(tenant: Tenant, cookie: str, path: str) -> str:
    answer = get(tenant.env.http_api, path, cookie)
    assert answer.status == 200, answer.body
    return unescape(answer.body.decode())


def submit(tenant: Tenant, cookie: str, page: str, path: str, **fields: str) -> Answer:
    """A form of that page, which must be on it."""
    shown = get(tenant.env.http_api, page, cookie)
    assert f'action="{path}"' in shown.body.decode()
    return post(tenant.env.http_api, path, cookie, csrf=csrf_in(shown), **fields)


# -- Usage -----------------------------------------------------------------------------------------


def test_the_usage_on_the_page_is_that_of_the_api(env: Env) -> None:
    tenant = env.tenant()
    env.ended_batch(tenant, requests=5)
    told = tenant.ask("GET", "/v1/usage?group_by=day,model").json
    page = page_of(tenant, sign_in(tenant), "/console/usage")
    total = told["total"]
    for amount in (total["amount"], total["live_amount"], total["saved"]):
        assert dollars(amount) in page
    assert f"{total['total_tokens']:,}" in page
    assert told["data"][0]["day"] in page
    assert "by day (utc)" in page.lower()
    assert "enqueued tokens per model" in page


def test_the_usage_as_csv_is_that_of_the_api(env: Env) -> None:
    tenant = env.tenant()
    env.ended_batch(tenant)
    cookie = sign_in(tenant)
    page = page_of(tenant, cookie, "/console/usage")
    (link,) = re.findall(r'href="(/console/usage/csv\?[^"]+)"', page)
    csv = get(env.http_api, link, cookie)
    assert csv.headers["content-type"].startswith("text/csv")
    asked = link.partition("?")[2]
    assert csv.body == tenant.ask("GET", f"/v1/usage?{asked}").body


def test_only_an_administrator_chooses_whose_usage_is_shown(env: Env) -> None:
    owner, other = env.tenant("owner"), env.tenant("other")
    env.ended_batch(owner)
    path = f"/console/usage?organization_id={owner.organization_id}"
    assert get(env.http_api, path, sign_in(other)).status == 403
    admin = env.tenant("office", EVERYTHING)
    page = page_of(admin, sign_in(admin), path)
    assert owner.project_id in page
    assert "every organization" in page
    assert "Nothing was charged" in page_of(admin, sign_in(admin), "/console/usage")


@pytest.mark.parametrize("query", ["since=soon", "since=2026-01-02&until=2026-01-01"])
def test_a_span_that_makes_no_sense_is_explained(env: Env, query: str) -> None:
    answer = get(env.http_api, f"/console/usage?{query}", sign_in(env.tenant()))
    assert answer.status == 400
    assert "since" in answer.body.decode()


# -- Administration --------------------------------------------------------------------------------


def test_an_organization_a_project_and_a_key_are_made_and_the_key_works(env: Env) -> None:
    admin = env.tenant("office", EVERYTHING)
    cookie = sign_in(admin)
    made = submit(
        admin, cookie, "/console/admin", "/console/admin/organizations", name=HOSTILE
    ).headers["location"]
    assert HOSTILE not in get(env.http_api, made, cookie).body.decode()
    project = submit(admin, cookie, made, f"{made}/projects", name="evals").headers["location"]
    answer = submit(
        admin, cookie, project, f"{project}/keys", name="ci", scope_read="on", expires="2999-01-01"
    )
    assert (answer.status, answer.headers["cache-control"]) == (200, "no-store")
    found = re.search(r'class="secret">([^<]+)<', answer.body.decode())
    assert found
    bearer = {"authorization": f"Bearer {found[1]}"}
    who = env.http_api.ask("GET", "/v1/whoami", None, bearer).json
    assert (who["project_name"], who["scopes"]) == ("evals", ["read"])
    again = page_of(admin, cookie, project)
    assert found[1] not in again
    key_id = who["api_key_id"]
    revoked = submit(admin, cookie, project, f"{project}/keys/{key_id}/revoke")
    assert revoked.headers["location"] == project
    assert env.http_api.ask("GET", "/v1/whoami", None, bearer).status == 401
    assert "revoked" in page_of(admin, cookie, project)


def test_limits_and_cap_are_changed_and_taken_back(env: Env) -> None:
    admin, tenant = env.tenant("office", EVERYTHING), env.tenant("acme")
    cookie = sign_in(admin)
    page = f"/console/admin/organizations/{tenant.organization_id}"
    submit(admin, cookie, page, page, batches_per_hour="7", spend_cap="12.50")
    told = admin.ask("GET", f"/v1/admin/organizations/{tenant.organization_id}").json
    assert (told["limits"]["batches_per_hour"], told["spend_cap"]) == (7, "12.50")
    assert 'name="batches_per_hour" type="number" min="0" value="7"' in page_of(admin, cookie, page)
    submit(admin, cookie, page, page, batches_per_hour="", spend_cap="")
    told = admin.ask("GET", f"/v1/admin/organizations/{tenant.organization_id}").json
    assert (told["limits"]["batches_per_hour"], told["spend_cap"]) == (None, None)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"batches_per_hour": "many"}, "batches_per_hour must be a whole number"),
        ({"weight": "0"}, "limits.weight must be from 1"),
        ({"spend_cap": "a lot"}, "The cap must be dollars"),
        ({"spend_cap": "NaN"}, "spend_cap must be dollars"),
    ],
)
def test_a_limit_that_makes_no_sense_is_explained_on_the_page(
    env: Env, fields: dict[str, str], reason: str
) -> None:
    admin = env.tenant("office", EVERYTHING)
    page = f"/console/admin/organizations/{admin.organization_id}"
    answer = submit(admin, sign_in(admin), page, page, **fields)
    assert answer.status == 400
    assert reason in unescape(answer.body.decode())


def test_an_organization_whose_cap_is_spent_tells_since_when_its_batches_wait(env: Env) -> None:
    tenant = env.tenant(scopes=EVERYTHING)
    tenant.change(spend_cap=Decimal("0.000001"))
    here = f"/console/admin/organizations/{tenant.organization_id}"
    cookie = sign_in(tenant)
    assert "Its batches are paused" not in page_of(tenant, cookie, here)
    batch = env.running_batch(tenant)
    env.http_api.run(tenant.worker.lease(batch.id, ["m"]))
    env.http_api.run(tenant.worker.settle(batch.id, ok=[1]))
    told = tenant.ask("GET", f"/v1/admin/organizations/{tenant.organization_id}").json
    (reason, *_) = tenant.ask("GET", f"/v1/batches/{batch.id}").json["waiting_reasons"]
    assert (reason["kind"], reason["since"]) == ("paused", told["paused_at"])
    assert "Its batches are paused since <time" in page_of(tenant, cookie, here)
    assert "spent since <time" in page_of(tenant, cookie, "/console/admin")


def test_a_key_without_a_scope_or_with_an_end_in_the_past_is_refused(env: Env) -> None:
    admin = env.tenant("office", EVERYTHING)
    cookie, page = sign_in(admin), f"/console/admin/projects/{admin.project_id}"
    for fields in (
        {"name": "k"},
        {"name": "k", "scope_read": "on", "expires": "2001-01-01"},
        {"name": "k", "scope_read": "on", "expires": "never"},
        {"name": "", "scope_read": "on"},
    ):
        answer = submit(admin, cookie, page, f"{page}/keys", **fields)
        assert answer.status == 400, fields
        assert 'class="secret"' not in answer.body.decode()
    keys = admin.ask("GET", f"/v1/admin/keys?project_id={admin.project_id}").json["data"]
    assert len(keys) == 1


def test_without_the_scope_there_is_no_administration(env: Env) -> None:
    tenant = env.tenant()
    cookie = sign_in(tenant)
    home = get(env.http_api, "/", cookie)
    assert "/console/admin" not in home.body.decode()
    paths = (
        "/console/admin",
        f"/console/admin/organizations/{tenant.organization_id}",
        f"/console/admin/projects/{tenant.project_id}",
        "/console/administration",
    )
    for path in paths:
        assert get(env.http_api, path, cookie).status == (404 if path.endswith("ration") else 403)
    csrf = csrf_in(home)
    keys = f"/console/admin/projects/{tenant.project_id}/keys"
    for path in ("/console/admin/organizations", keys):
        assert post(env.http_api, path, cookie, csrf=csrf, name="x").status == 403
    live = f"/console/live?of=/console/admin/projects/{tenant.project_id}"
    assert b"data:" not in get(env.http_api, live, cookie).body


def test_a_form_from_elsewhere_changes_nothing(env: Env) -> None:
    admin = env.tenant("office", EVERYTHING)
    cookie, before = sign_in(admin), admin.ask("GET", "/v1/admin/organizations").json
    refused = post(env.http_api, "/console/admin/organizations", cookie, name="x", csrf="0" * 64)
    assert refused.status == 403
    assert admin.ask("GET", "/v1/admin/organizations").json == before


def test_an_administrator_without_the_scope_read_begins_at_its_own_page(env: Env) -> None:
    admin = env.tenant("office", ("admin",))
    csrf = csrf_in(get(env.http_api, "/console/sign-in"))
    answer = post(env.http_api, "/console/sign-in", key=admin.key, next="/", csrf=csrf)
    assert answer.headers["location"] == "/console/admin"
    cookie = answer.headers["set-cookie"].partition(";")[0]
    page = page_of(admin, cookie, "/console/admin")
    assert "/console/usage" in page
    assert "New batch" not in page
    assert get(env.http_api, "/", cookie).status == 403


# -- Webhooks --------------------------------------------------------------------------------------


def made_webhook(tenant: Tenant) -> str:
    webhook_id: str = tenant.ask("POST", "/v1/webhooks", {"url": PUBLIC}).json["id"]
    return webhook_id


def test_a_webhook_is_made_disabled_and_deleted(env: Env) -> None:
    tenant = env.tenant()
    cookie, pages = sign_in(tenant), "/console/webhooks"
    assert "No webhook yet" in page_of(tenant, cookie, pages)
    fields = {"url": PUBLIC, "name": HOSTILE, "on_batch.failed": "on"}
    answer = submit(tenant, cookie, pages, pages, **fields)
    found = re.search(r'class="secret">(whsec_[^<]+)<', answer.body.decode())
    assert found
    assert answer.headers["cache-control"] == "no-store"
    assert HOSTILE not in answer.body.decode()
    (told,) = tenant.ask("GET", "/v1/webhooks").json["data"]
    assert (told["events"], told["name"]) == (["batch.failed"], HOSTILE)
    page = f"{pages}/{told['id']}"
    assert found[1] not in page_of(tenant, cookie, page)
    submit(tenant, cookie, page, f"{page}/enable", enabled="no")
    assert not tenant.ask("GET", f"/v1/webhooks/{told['id']}").json["enabled"]
    rotated = submit(tenant, cookie, page, f"{page}/rotate_secret").body.decode()
    assert 'class="secret">whsec_' in rotated
    submit(tenant, cookie, page, f"{page}/delete")
    assert tenant.ask("GET", "/v1/webhooks").json["data"] == []


def test_an_address_that_may_not_be_called_is_refused_on_the_page(env: Env) -> None:
    tenant, pages = env.tenant(), "/console/webhooks"
    answer = submit(tenant, sign_in(tenant), pages, pages, url="file:///")
    assert answer.status == 400
    assert 'role="alert"' in answer.body.decode()


def test_deliveries_are_shown_and_replayed(env: Env) -> None:
    tenant = env.tenant()
    webhook_id = made_webhook(tenant)
    batch = env.ended_batch(tenant)
    cookie, page = sign_in(tenant), f"/console/webhooks/{webhook_id}"
    shown = page_of(tenant, cookie, page)
    assert batch.id in shown
    assert "pending" in shown
    outbox, now, run = env.http_api.store.outbox, env.http_api.clock.now(), env.http_api.run
    (claimed,) = run(outbox.claim("w", now, 60.0, free=1, most=1))
    run(outbox.record(claimed, Attempt(503), now))
    shown = page_of(tenant, cookie, page)
    assert shown.count("503") == 1, "what was answered is told once"
    assert shown.count('class="state state-failed">failing</span>') == 1
    assert 'data-label="Attempts">1</td>' in shown
    assert "No delivery is failed" in page_of(tenant, cookie, f"{page}?state=failed")
    answer = submit(tenant, cookie, page, f"{page}/replay")
    assert "0 deliveries are sent again" in answer.body.decode()
    refused = submit(tenant, cookie, page, f"{page}/replay", event_id="../../etc/passwd")
    assert refused.status == 404
    assert "No delivery of the event" in refused.body.decode()


def test_a_key_of_scope_read_sees_webhooks_without_buttons(env: Env) -> None:
    owner = env.tenant("acme")
    webhook_id = made_webhook(owner)
    services, run = env.http_api.services, env.http_api.run
    made = run(services.tenants.create_key(owner.project_id, "reader", scopes=("read",)))
    cookie = sign_in(replace(owner, key_id=made.key.id, key=made.credential))
    for path in ("/console/webhooks", f"/console/webhooks/{webhook_id}"):
        page = page_of(owner, cookie, path)
        assert PUBLIC in page
        assert re.findall(r'method="post" action="([^"]+)"', page) == ["/console/sign-out"]
        csrf = csrf_in(get(env.http_api, path, cookie))
    for action in ("test", "delete", "replay", "rotate_secret", "enable"):
        path = f"/console/webhooks/{webhook_id}/{action}"
        assert post(env.http_api, path, cookie, csrf=csrf).status == 403
    other = sign_in(env.tenant("b"))
    assert get(env.http_api, f"/console/webhooks/{webhook_id}", other).status == 404
