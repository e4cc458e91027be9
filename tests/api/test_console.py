"""The console as a browser without JavaScript sees it: pages, sessions, and what is refused."""

import re
from dataclasses import replace
from datetime import datetime, timedelta
from html import unescape
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
import pytest
from api_server import ApiServer, open_api_server
from console_client import FORM, HTML, csrf_in, get, post, sign_in
from tenant_env import EVERYTHING, Env, line

from lowtide import limits
from lowtide.api.console import page_looks
from lowtide.api.console.rendering import render
from lowtide.config import ServerSettings, Settings
from lowtide.core.reporting.worker_report import WorkerReport
from testkit.patience import PATIENCE_S

HOSTILE = "<script>alert(1)</script>\"'\u202etxt.exe\x1b[31m"


# -- Pages -----------------------------------------------------------------------------------------


def test_a_browser_gets_a_page_at_the_root_and_a_program_an_error(http_api: ApiServer) -> None:
    page = get(http_api, "/")
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "No batch yet" in page.body.decode()
    assert http_api.ask("GET", "/").error["code"] == "not_found"


@pytest.mark.parametrize(
    ("path", "tab"),
    [
        ("/", "Batches"),
        ("/console/new", "New batch"),
        ("/console/engines", "Engines"),
        ("/console/week", "Engines"),
        ("/console/usage", "Usage"),
        ("/console/webhooks/project", "Webhooks"),
        ("/console/admin/projects/proj_default", "Administration"),
    ],
)
def test_the_tab_of_a_page_is_marked_as_current(http_api: ApiServer, path: str, tab: str) -> None:
    text = get(http_api, path).body.decode()
    pages = text[text.index('aria-label="Pages"') : text.index("</nav>")]
    assert re.findall(r'aria-current="page">([^<]*)<', pages) == [tab]


def test_every_page_forbids_foreign_content_and_inline_code(http_api: ApiServer) -> None:
    for path in ("/", "/console/engines", "/console/sign-in", "/console/static/console.js", "/no"):
        answer = get(http_api, path)
        if path != "/no":
            assert answer.headers["content-security-policy"].startswith("default-src 'self';")
            assert "unsafe" not in answer.headers["content-security-policy"]
        text = answer.body.decode()
        assert not re.search(r"\sstyle=|\son\w+=|<style|javascript:", text), path
        assert not re.search(r"(src|href)=\"(https?:)?//", text), path


def test_what_others_wrote_is_shown_as_text(env: Env) -> None:
    tenant = env.tenant()
    made = tenant.create(line("1"), metadata={"name": HOSTILE, HOSTILE[:60]: HOSTILE})
    cookie = sign_in(tenant)
    for path in ("/", f"/console/batches/{made.json['id']}"):
        text = get(env.http_api, path, cookie).body.decode()
        assert "<script>alert" not in text
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
        assert "\u202e" not in text
        assert "\\u202etxt.exe\\u001b[31m" in text


def test_the_page_of_a_batch_tells_all_that_holds_it_and_the_list_the_gravest(env: Env) -> None:
    now = env.http_api.clock.now()
    report = WorkerReport(worker_id="w", seen_at=now, ttl_s=3600.0)
    env.http_api.run(env.http_api.store.worker_reports.write(report, forget_before=now))
    tenant = env.tenant()
    path = f"batches/{tenant.create(line('1')).json['id']}"
    env.validate()
    tenant.ask("POST", f"/v1/{path}/pause")
    told = tenant.ask("GET", f"/v1/{path}").json
    paused, unserved = told["waiting_reasons"]
    assert (paused["kind"], paused["reason"], paused["remedy"]) == ("paused", told["reason"], None)
    assert (unserved["kind"], unserved["reason"]) == ("model", "No replica serves the model m.")
    assert unserved["remedy"].startswith("It goes on by itself")
    job = tenant.ask("GET", f"/together/v1/{path}").json
    since = datetime.fromisoformat(job["waiting_reasons"][0].pop("since"))
    assert int(since.timestamp()) == told["waiting_reasons"][0].pop("since")
    assert int((env.http_api.clock.now() - since).total_seconds()) < PATIENCE_S
    assert job["waiting_reasons"] == told["waiting_reasons"]
    cookie = sign_in(tenant)
    page = get(env.http_api, f"/console/{path}", cookie).body.decode()
    assert page.index("Why it waits") < page.index("Paused: ") < page.index("No replica serves")
    assert page.index("Paused: ") < page.index("<small>Since <time") < page.index("No replica")
    assert "<small>It goes on by itself" in page
    listed = get(env.http_api, "/", cookie).body.decode()
    assert "Paused: " in listed and "No replica serves" not in listed


def test_a_page_that_there_is_not_says_so_and_leads_back(http_api: ApiServer) -> None:
    for path in ("/console/nothing", "/console/batches/batch_none"):
        page = get(http_api, path)
        assert page.status == 404
        assert "All batches" in page.body.decode()
    assert http_api.ask("GET", "/console/nothing").error["code"] == "not_found"


def test_pages_name_their_addresses_below_the_path_prefix(tmp_path: Path) -> None:
    settings = Settings(server=ServerSettings(data_dir=tmp_path, path_prefix="/batch"))
    with open_api_server(tmp_path, settings) as http_api:
        page = get(http_api, "/batch/")
        linked = re.findall(r'(?:href|src|action)="(/[^"]*)"', page.body.decode())
        assert linked
        assert all(each.startswith("/batch/") for each in linked)
        for each in linked:
            assert http_api.ask("GET", each, None, HTML).status in (200, 303), each


def test_results_are_shown_beside_their_requests_as_text(env: Env) -> None:
    tenant = env.tenant()
    batch = env.ended_batch(tenant)
    cookie = sign_in(tenant)
    path = f"/console/batches/{batch.id}/lines"
    page = get(env.http_api, path, cookie).body.decode()
    assert "r-1" in page
    assert "r-3" not in page
    assert "r-3" in get(env.http_api, f"{path}?kind=errors", cookie).body.decode()
    assert "r-2" in get(env.http_api, f"{path}?custom_id=r-2", cookie).body.decode()
    missing = unescape(get(env.http_api, f"{path}?custom_id=r-9", cookie).body.decode())
    assert "Not found" in missing
    assert f'href="{path}?kind=errors&custom_id=r-9"' in missing, "it may have failed"
    shown = get(env.http_api, path, cookie).body.decode()
    (file_id,) = set(re.findall(r'href="/console/files/([^"]+)">Download them all', shown))
    assert get(env.http_api, f"/console/files/{file_id}", cookie).body.count(b"\n") > 0
    assert get(env.http_api, f"{path}?first=-1", cookie).status == 400


# -- Sessions --------------------------------------------------------------------------------------


def test_a_page_sends_to_the_sign_in_page_and_back(env: Env) -> None:
    tenant = env.tenant()
    away = get(env.http_api, "/console/engines")
    assert away.status == 303
    assert away.headers["location"] == f"/console/sign-in?next={quote('/console/engines', '')}"
    page = get(env.http_api, away.headers["location"])
    fields = {"key": tenant.key, "next": "/console/engines", "csrf": csrf_in(page)}
    back = post(env.http_api, "/console/sign-in", **fields)
    assert back.headers["location"] == "/console/engines"
    told = back.headers["set-cookie"].lower()
    assert "httponly" in told
    assert "samesite=strict" in told
    assert "path=/" in told
    assert "secure" not in told
    assert tenant.key.partition("-")[2].partition("-")[2] not in told


@pytest.mark.parametrize("asked", ["//evil.test/", "https://evil.test/", "/\\evil.test", ""])
def test_signing_in_never_leads_to_another_host(env: Env, asked: str) -> None:
    tenant = env.tenant()
    csrf = csrf_in(get(env.http_api, f"/console/sign-in?next={quote(asked, '')}"))
    answer = post(env.http_api, "/console/sign-in", key=tenant.key, next=asked, csrf=csrf)
    assert answer.headers["location"] == "/"


def test_the_cookie_is_secure_behind_https(env: Env) -> None:
    tenant = env.tenant()
    csrf = csrf_in(get(env.http_api, "/console/sign-in"))
    body = urlencode({"key": tenant.key, "csrf": csrf}).encode()
    headers = HTML | FORM | {"x-forwarded-proto": "https"}
    answer = env.http_api.ask("POST", "/console/sign-in", body, headers)
    assert "secure" in answer.headers["set-cookie"].lower()


def test_a_wrong_key_is_told_on_the_page_and_begins_no_session(env: Env) -> None:
    csrf = csrf_in(get(env.http_api, "/console/sign-in"))
    answer = post(env.http_api, "/console/sign-in", key="lt-a-b", next="/", csrf=csrf)
    assert answer.status == 401
    assert "set-cookie" not in answer.headers
    assert "The API key is not valid" in answer.body.decode()


def test_a_session_ends_with_its_key_with_its_time_and_when_it_is_forged(env: Env) -> None:
    tenant = env.tenant()
    cookie = sign_in(tenant)
    assert get(env.http_api, "/", cookie).status == 200
    name, _, token = cookie.partition("=")
    for forged in (
        token[:-1] + ("0" if token[-1] != "0" else "1"),
        "x",
        "",
        "..",
        f"a.1.b.{token}",
    ):
        assert get(env.http_api, "/", f"{name}={forged}").status == 303
    env.http_api.clock.shift = timedelta(seconds=limits.CONSOLE_SESSION_S)
    assert get(env.http_api, "/", cookie).status == 303
    env.http_api.clock.shift = timedelta()
    assert get(env.http_api, "/", cookie).status == 200
    env.http_api.run(env.http_api.services.tenants.revoke_key(tenant.key_id))
    assert get(env.http_api, "/", cookie).status == 303


def test_signing_out_takes_the_cookie_away(env: Env) -> None:
    cookie = sign_in(env.tenant())
    csrf = csrf_in(get(env.http_api, "/", cookie))
    answer = post(env.http_api, "/console/sign-out", cookie, csrf=csrf)
    assert answer.headers["location"] == "/console/sign-in"
    assert "max-age=0" in answer.headers["set-cookie"].lower()


def test_a_session_is_for_pages_and_never_for_the_api(env: Env) -> None:
    cookie = sign_in(env.tenant())
    assert env.http_api.ask("GET", "/v1/batches", None, {"cookie": cookie}).status == 401


# -- Who may do what -------------------------------------------------------------------------------


def test_another_tenants_batch_and_files_are_unknown(env: Env) -> None:
    tenant, other = env.tenant("a"), env.tenant("b")
    made = tenant.create(line("1")).json
    cookie = sign_in(other)
    assert made["id"] not in get(env.http_api, "/", cookie).body.decode()
    for path in (f"batches/{made['id']}", f"files/{made['input_file_id']}"):
        assert get(env.http_api, f"/console/{path}", cookie).status == 404
    csrf = csrf_in(get(env.http_api, "/", cookie))
    answer = post(env.http_api, f"/console/batches/{made['id']}/cancel", cookie, csrf=csrf)
    assert answer.status == 404


def test_a_batch_is_cancelled_from_its_page(env: Env) -> None:
    tenant = env.tenant()
    made = tenant.create(line("1")).json
    cookie = sign_in(tenant)
    page = get(env.http_api, f"/console/batches/{made['id']}", cookie)
    action = f"/console/batches/{made['id']}/cancel"
    assert f'action="{action}"' in page.body.decode()
    for wrong in ("", "0" * 64, csrf_in(get(env.http_api, "/", sign_in(tenant)))):
        assert post(env.http_api, action, cookie, csrf=wrong).status == 403
    answer = post(env.http_api, action, cookie, csrf=csrf_in(page))
    assert answer.status == 303
    assert tenant.ask("GET", f"/v1/batches/{made['id']}").json["status"] == "cancelling"


def test_a_key_that_may_read_sees_no_button_and_is_refused(env: Env) -> None:
    tenant = env.tenant()
    made = tenant.create(line("1")).json
    keys = env.http_api.services.tenants
    key = env.http_api.run(keys.create_key(tenant.project_id, "reader", scopes=("read",)))
    cookie = sign_in(replace(tenant, key=key.credential))
    page = get(env.http_api, f"/console/batches/{made['id']}", cookie).body.decode()
    assert made["id"] in page
    assert "/cancel" not in page
    csrf = csrf_in(get(env.http_api, "/", cookie))
    answer = post(env.http_api, f"/console/batches/{made['id']}/cancel", cookie, csrf=csrf)
    assert answer.status == 403
    assert get(env.http_api, "/console/engines", cookie).status == 403
    assert (
        get(env.http_api, "/console/engines", sign_in(env.tenant(scopes=EVERYTHING))).status == 200
    )


def test_files_are_downloaded_and_never_shown(env: Env) -> None:
    tenant = env.tenant()
    content = line("1")
    file_id = tenant.upload(content).json["id"]
    answer = get(env.http_api, f"/console/files/{file_id}", sign_in(tenant))
    assert answer.body == content
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["content-type"] == "application/octet-stream"


# -- What stays up to date -------------------------------------------------------------------------


def test_a_stream_sends_the_parts_of_a_page(http_api: ApiServer) -> None:
    connection = HTTPConnection("127.0.0.1", http_api.port, timeout=PATIENCE_S)
    try:
        connection.request("GET", "/console/live?of=/", headers={"accept": "text/event-stream"})
        response = connection.getresponse()
        assert response.getheader("content-type") == "text/event-stream; charset=utf-8"
        lines = [response.readline() for _ in range(3)]
        fleet, batches = (msgspec.json.decode(lines[at].removeprefix(b"data: ")) for at in (0, 2))
        assert (fleet["id"], batches["id"]) == ("fleet", "batches")
        assert "No batch yet" in batches["html"]
    finally:
        connection.close()


def test_a_look_that_two_people_share_has_the_token_of_each(
    env: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered: list[str] = []

    def noted(template: str, context: dict[str, Any]) -> str:
        rendered.append(template)
        return render(template, context)

    monkeypatch.setattr(page_looks, "render", noted)
    monkeypatch.setattr(limits, "CONSOLE_LOOK_SHARED_S", PATIENCE_S)
    tenant = env.tenant()
    path = f"/console/batches/{tenant.create(line('1')).json['id']}"
    cookies = sign_in(tenant), sign_in(tenant)
    shown = [csrf_in(get(env.http_api, path, cookie)) for cookie in cookies]
    assert shown[0] != shown[1]
    asked = f"/console/live?of={quote(path)}&once=yes"
    told = [env.http_api.ask("GET", asked, None, {"cookie": cookie}).body for cookie in cookies]
    assert len(rendered) == len(set(rendered))
    for csrf, events in zip(shown, told, strict=True):
        found = re.findall(rb'name=\\"csrf\\" value=\\"([0-9a-f]{64})', events)
        assert set(found) == {csrf.encode()}


def test_a_stream_needs_a_session_and_a_page(env: Env) -> None:
    assert env.http_api.ask("GET", "/console/live?of=/").error["code"] == "missing_api_key"
    cookie = sign_in(env.tenant())
    answer = env.http_api.ask("GET", "/console/live?of=/console/nothing", None, {"cookie": cookie})
    assert answer.error["code"] == "not_found"
