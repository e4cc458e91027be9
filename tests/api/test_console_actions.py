"""The buttons of a batch's page, as a browser without JavaScript presses them."""

import re
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from pathlib import Path
from urllib.parse import quote

import msgspec
import pytest
from api_server import Answer
from console_client import csrf_in, get, post, sign_in
from tenant_env import Env, Tenant, line, open_house

from lowtide import limits


@pytest.fixture
def env(tmp_path: Path) -> Iterator[Env]:
    with open_house(tmp_path) as running:
        yield running


def page_of(tenant: Tenant, cookie: str, batch_id: str) -> str:
    answer = get(tenant.env.http_api, f"/console/batches/{batch_id}", cookie)
    assert answer.status == 200
    return unescape(answer.body.decode())


def press(tenant: Tenant, cookie: str, batch_id: str, action: str, **fields: str) -> Answer:
    """The button of that action, which must be on the page."""
    page = get(tenant.env.http_api, f"/console/batches/{batch_id}", cookie)
    path = f"/console/batches/{batch_id}/{action}"
    assert f'action="{path}"' in page.body.decode()
    return post(tenant.env.http_api, path, cookie, csrf=csrf_in(page), **fields)


def shown(tenant: Tenant, batch_id: str) -> dict[str, object]:
    found: dict[str, object] = tenant.ask("GET", f"/v1/batches/{batch_id}").json
    return found


def new_id_in(answer: Answer) -> str:
    assert answer.status == 303
    return answer.headers["location"].rpartition("/")[2]


def fails_by_itself(tenant: Tenant, line_number: int) -> None:
    """Makes that line fail for a reason that passes: by default an engine refuses it."""
    error = {"code": "engine_timeout", "message": "The engine gave no answer in time."}
    number = f"r-{line_number}"
    body = {"id": f"x-{line_number}", "custom_id": number, "response": None, "error": error}
    tenant.worker.outputs[line_number] = msgspec.json.encode(body) + b"\n"


def test_failures_are_shown_in_groups_with_a_link_to_a_line_of_each(env: Env) -> None:
    tenant = env.tenant()
    batch = env.ended_batch(tenant)
    (group,) = tenant.ask("GET", f"/v1/batches/{batch.id}/errors").json["data"]
    page = page_of(tenant, sign_in(tenant), batch.id)
    assert "What failed" in page
    assert f"<code>{group['code']}</code>" in page
    assert group["message"] in page
    link = f"/console/batches/{batch.id}/lines?kind=errors&custom_id={quote('r-3')}"
    assert f'href="{link}"' in page
    assert "r-3" in get(env.http_api, link, sign_in(tenant)).body.decode()


def test_a_retry_from_the_page_leads_to_the_new_batch_and_both_are_linked(env: Env) -> None:
    tenant = env.tenant()
    batch, cookie = env.ended_batch(tenant), sign_in(tenant)
    retry_id = new_id_in(press(tenant, cookie, batch.id, "retry", only="failed"))
    assert shown(tenant, retry_id)["retry_of"] == batch.id
    assert f'href="/console/batches/{batch.id}"' in page_of(tenant, cookie, retry_id)
    first = page_of(tenant, cookie, batch.id)
    assert f'href="/console/batches/{retry_id}"' in first
    assert "a further retry is possible when that one has ended" in first
    assert "/retry" not in first
    tree = tenant.ask("GET", f"/v1/batches/{retry_id}/retries").json
    assert [each["id"] for each in tree["data"]] == [batch.id, retry_id]


def test_a_group_of_failures_is_retried_by_itself(env: Env) -> None:
    tenant = env.tenant()
    fails_by_itself(tenant, 3)
    batch, cookie = env.ended_batch(tenant), sign_in(tenant)
    (group,) = tenant.ask("GET", f"/v1/batches/{batch.id}/errors").json["data"]
    page = page_of(tenant, cookie, batch.id)
    assert f'name="group" value="{group["id"]}"' in page
    refused = press(tenant, cookie, batch.id, "retry", group="none is this")
    assert refused.status == 409
    new_id_in(press(tenant, cookie, batch.id, "retry", group=group["id"]))


def test_lines_that_an_engine_refuses_again_have_the_reason_instead_of_a_retry(env: Env) -> None:
    tenant = env.tenant()
    batch = env.running_batch(tenant, 2)
    message = "This model's maximum context length is 4096 tokens."
    refusal = {"error": {"message": message, "code": 400}}
    body = {"id": "x-1", "custom_id": "r-1", "response": {"status_code": 400, "body": refusal}}
    tenant.worker.outputs[1] = msgspec.json.encode(body) + b"\n"
    run = env.http_api.run
    run(tenant.worker.lease(batch.id, ["m"]))
    run(tenant.worker.settle(batch.id, ok=[2], bad=[1]))
    env.assemble()
    page = page_of(tenant, sign_in(tenant), batch.id)
    assert "maximum context length is # tokens." in page
    assert f"for example: {message}" in page
    assert "A retry would be refused again" in page
    assert 'name="group"' not in page


def test_lines_of_a_running_batch_are_found_and_say_when_their_requests_are_shown(
    env: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant = env.tenant()
    batch, cookie, run = env.running_batch(tenant), sign_in(tenant), env.http_api.run
    run(tenant.worker.lease(batch.id, ["m"]))
    run(tenant.worker.settle(batch.id, ok=[1, 2]))
    path = f"/console/batches/{batch.id}/lines?custom_id=r-2"
    found = unescape(get(env.http_api, path, cookie).body.decode())
    assert "disabled" not in found
    assert ('aria-label="r-2"' in found, 'aria-label="r-1"' in found) == (True, False)
    assert "The request is shown once the batch has ended." in found
    monkeypatch.setattr(limits, "FIND_BYTES_MAX", 1)
    refused = unescape(get(env.http_api, path, cookie).body.decode())
    assert "found by its custom_id once the batch has ended" in refused
    assert 'aria-label="r-1"' in refused


def test_a_retry_of_one_batch_asks_first_where_it_concerns_many_lines(
    env: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant = env.tenant()
    fails_by_itself(tenant, 3)
    batch, cookie = env.ended_batch(tenant), sign_in(tenant)
    assert "lines again, charged" not in page_of(tenant, cookie, batch.id)
    monkeypatch.setattr(limits, "CONSOLE_RETRY_ASKS_LINES", 1)
    question = 'data-question="Run up to 1 line again, charged as a new batch?"'
    assert page_of(tenant, cookie, batch.id).count(question) == 2  # all of them, and its group


def test_a_retry_that_cannot_be_done_is_explained_on_the_page(env: Env) -> None:
    tenant = env.tenant()
    batch, cookie = env.ended_batch(tenant), sign_in(tenant)
    stale = csrf_in(get(env.http_api, f"/console/batches/{batch.id}", cookie))
    retry_id = new_id_in(press(tenant, cookie, batch.id, "retry"))
    path = f"/console/batches/{batch.id}/retry"
    again = post(env.http_api, path, cookie, csrf=stale)
    assert again.status == 409
    text = unescape(again.body.decode())
    assert 'role="alert"' in text
    assert f"Batch '{retry_id}' retries lines of batch '{batch.id}' and has not ended" in text
    assert "What failed" in text
    assert f'data-live="/console/live?of=/console/batches/{batch.id}"' in text


def test_a_batch_that_failed_in_validation_says_why_it_has_no_retry(env: Env) -> None:
    tenant = env.tenant()
    batch_id = tenant.create(b"{}\n").json["id"]
    env.validate()
    assert shown(tenant, batch_id)["status"] == "failed"
    page = page_of(tenant, sign_in(tenant), batch_id)
    assert "cannot be retried: mend the file" in page
    assert "/retry" not in page


def test_a_batch_that_a_limit_refused_is_not_told_to_mend_its_file(env: Env) -> None:
    tenant = env.tenant()
    tenant.change(enqueued_tokens_per_model=1)
    batch_id = tenant.create(line()).json["id"]
    env.validate()
    assert shown(tenant, batch_id)["status"] == "failed"
    cookie = sign_in(tenant)
    page = page_of(tenant, cookie, batch_id)
    assert "Why it failed" in page
    assert "nothing is wrong with its file" in page
    assert "wrong with the input" not in page
    assert "end the file" not in page
    again = f"/console/new/{shown(tenant, batch_id)['input_file_id']}"
    assert f'href="{again}"' in page
    assert get(env.http_api, again, cookie).status == 200
    listed = unescape(get(env.http_api, "/", cookie).body.decode())
    assert "Enqueued token limit reached for m" in listed
    assert "none was run" in listed
    refused = tenant.ask("POST", f"/v1/batches/{batch_id}/retry", {})
    assert "Nothing is wrong with its file" in refused.json["error"]["message"]


def test_the_list_says_of_a_bad_file_which_line_is_wrong_and_how_many_more(env: Env) -> None:
    tenant = env.tenant()
    tenant.create(b"{}\n{}\n")
    env.validate()
    listed = unescape(get(env.http_api, "/", sign_in(tenant)).body.decode())
    assert re.search(r"Line 1: .*And \d more\.", listed)


def test_a_batch_is_paused_changed_and_resumed_from_its_page(env: Env) -> None:
    tenant = env.tenant()
    batch, cookie = env.running_batch(tenant), sign_in(tenant)
    assert press(tenant, cookie, batch.id, "pause").status == 303
    assert shown(tenant, batch.id)["holds"] == ["user"]
    page = page_of(tenant, cookie, batch.id)
    assert "/pause" not in page
    assert "state-paused" in page
    assert "state-paused" in get(env.http_api, "/", cookie).body.decode()
    assert press(tenant, cookie, batch.id, "resume").status == 303
    assert shown(tenant, batch.id)["holds"] == []
    asked = {"name": "night <1>", "priority": "3", "completion_window": "36h"}
    assert press(tenant, cookie, batch.id, "change", **asked).status == 303
    found = shown(tenant, batch.id)
    assert (found["priority"], found["completion_window"]) == (3, "36h")
    assert found["metadata"] == {"name": "night <1>"}
    press(tenant, cookie, batch.id, "change", name="", priority="3")
    assert shown(tenant, batch.id)["metadata"] == {}


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"priority": "soon"}, "priority must be a whole number, not 'soon'"),
        ({"priority": "1000001"}, "priority must be from"),
        ({"completion_window": "tomorrow"}, "completion_window"),
    ],
)
def test_a_change_that_makes_no_sense_is_explained_on_the_page(
    env: Env, asked: dict[str, str], told: str
) -> None:
    tenant = env.tenant()
    batch, cookie = env.running_batch(tenant), sign_in(tenant)
    answer = press(tenant, cookie, batch.id, "change", **asked)
    assert answer.status == 400
    assert told in unescape(answer.body.decode())
    assert batch.id in answer.body.decode()


def test_a_batch_that_has_ended_meanwhile_is_shown_with_the_refusal(env: Env) -> None:
    tenant = env.tenant()
    batch, cookie = env.ended_batch(tenant), sign_in(tenant)
    csrf = csrf_in(get(env.http_api, "/", cookie))
    answer = post(env.http_api, f"/console/batches/{batch.id}/pause", cookie, csrf=csrf)
    assert answer.status == 409
    assert "cannot be paused any more" in answer.body.decode()


def test_no_action_works_without_the_scope_the_token_or_the_batch(env: Env) -> None:
    tenant, other = env.tenant("a"), env.tenant("b")
    batch, cookie = env.ended_batch(tenant), sign_in(tenant)
    made = env.http_api.services.tenants.create_key(tenant.project_id, "reader", scopes=("read",))
    reader = sign_in(replace(tenant, key=env.http_api.run(made).credential))
    theirs = sign_in(other)
    text = page_of(tenant, reader, batch.id)
    for action in ("cancel", "retry", "pause", "resume", "change", "delete"):
        path = f"/console/batches/{batch.id}/{action}"
        assert path not in text
        assert post(env.http_api, path, cookie, csrf="0" * 64).status == 403
        for whose, status in ((reader, 403), (theirs, 404)):
            csrf = csrf_in(get(env.http_api, "/", whose))
            assert post(env.http_api, path, whose, csrf=csrf).status == status
    assert tenant.ask("GET", f"/v1/batches/{batch.id}/retries").json["last_id"] == batch.id


def test_an_ended_batch_is_deleted_from_its_page_and_one_that_runs_is_not(env: Env) -> None:
    tenant = env.tenant()
    batch, running, cookie = env.ended_batch(tenant), env.running_batch(tenant), sign_in(tenant)
    page = page_of(tenant, cookie, batch.id)
    assert re.search(r'/delete" data-question="Delete this batch and its results\?', page)
    answer = press(tenant, cookie, batch.id, "delete")
    assert (answer.status, answer.headers["location"]) == (303, "/")
    assert tenant.ask("GET", f"/v1/batches/{batch.id}").status == 404
    assert "/delete" not in page_of(tenant, cookie, running.id)
    csrf = csrf_in(get(env.http_api, "/", cookie))
    refused = post(env.http_api, f"/console/batches/{running.id}/delete", cookie, csrf=csrf)
    assert refused.status == 409
    assert "can be deleted once it has ended" in unescape(refused.body.decode())
