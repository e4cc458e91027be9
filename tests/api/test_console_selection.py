"""One button on many batches: those chosen in the console's list, or all that match its filter."""

import re
from html import unescape
from urllib.parse import urlencode

import pytest
from api_server import Answer
from console_client import FORM, HTML, csrf_in, get, post, sign_in
from tenant_env import Env, Tenant, line

from lowtide import limits
from testkit.statements import statements


def press(
    tenant: Tenant, cookie: str, act: str, *batch_ids: str, query: str = "", **more: str
) -> Answer:
    """A button above the list, which must be on the page; each batch must be offered there."""
    page = get(tenant.env.http_api, f"/{query}", cookie)
    text = page.body.decode()
    assert f'name="act" value="{act}"' in text
    for each in batch_ids:
        assert f'name="batch" value="{each}"' in text
    chosen = "&".join(f"batch={each}" for each in batch_ids)
    fields = {"csrf": csrf_in(page), "act": act, **more}
    body = "&".join([*(f"{name}={value}" for name, value in fields.items()), chosen])
    return tenant.env.http_api.ask(
        "POST",
        f"/console/batches{query}",
        body.encode(),
        {
            "accept": "text/html",
            "content-type": "application/x-www-form-urlencoded",
            "cookie": cookie,
        },
    )


def created(tenant: Tenant, number: int) -> list[str]:
    return [tenant.create(line(), metadata={"n": str(each)}).json["id"] for each in range(number)]


def state(tenant: Tenant, batch_id: str) -> str:
    told = tenant.ask("GET", f"/v1/batches/{batch_id}").json
    return "paused" if told.get("holds") else told["status"]


def text_of(answer: Answer) -> str:
    return unescape(answer.body.decode())


def test_the_chosen_batches_are_paused_and_the_others_are_not(env: Env) -> None:
    tenant = env.tenant()
    first, second, third = created(tenant, 3)
    cookie = sign_in(tenant)
    assert "2 batches paused." in text_of(press(tenant, cookie, "pause", first, third))
    assert [state(tenant, each) for each in (first, second, third)] == [
        "paused", "validating", "paused",
    ]  # fmt: skip
    assert "1 batch resumed." in text_of(press(tenant, cookie, "resume", first))
    assert state(tenant, first) == "validating"


def test_what_is_refused_is_told_with_the_reason_and_the_rest_is_done(env: Env) -> None:
    tenant = env.tenant()
    ended = env.ended_batch(tenant).id
    (running,) = created(tenant, 1)
    answer = press(tenant, sign_in(tenant), "cancel", ended, running)
    told = text_of(answer)
    assert answer.status == 200
    assert "1 batch cancelled, 1 not:" in told
    assert ended in told
    assert state(tenant, running) == "cancelling"


def test_all_that_match_the_filter_are_acted_on_and_no_other(env: Env) -> None:
    tenant = env.tenant()
    ended = env.ended_batch(tenant).id
    running = created(tenant, 2)
    answer = press(tenant, sign_in(tenant), "pause", query="?q=state:validating", all="yes")
    assert "2 batches paused." in text_of(answer)
    assert [state(tenant, each) for each in (ended, *running)] == ["completed", "paused", "paused"]
    answer = press(tenant, sign_in(tenant), "delete", query="?q=state:completed", all="yes")
    assert "1 batch deleted." in text_of(answer)
    assert tenant.ask("GET", f"/v1/batches/{ended}").status == 404


def sure(tenant: Tenant, cookie: str, question: Answer, **more: str) -> str:
    """Answers the question with yes, as its form does; what is told then."""
    text = question.body.decode()
    form = text[text.index('id="retry-question"') : text.index("Leave them as they are")]
    hidden = re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', form)
    body = urlencode([*hidden, *more.items()]).encode()
    headers = {**HTML, **FORM, "cookie": cookie}
    return text_of(tenant.env.http_api.ask("POST", "/console/batches", body, headers))


def retries_of(tenant: Tenant) -> list[str]:
    listed = tenant.ask("GET", "/v1/batches").json["data"]
    return sorted(each["retry_of"] for each in listed if each.get("retry_of"))


def cancelled(tenant: Tenant) -> str:
    """A batch of four lines that was cancelled before any of them ran."""
    batch = tenant.env.running_batch(tenant, 4)
    tenant.ask("POST", f"/v1/batches/{batch.id}/cancel")
    tenant.env.assemble()
    assert state(tenant, batch.id) == "cancelled"
    return batch.id


def test_a_retry_of_several_batches_asks_first_how_many_lines_run_again(env: Env) -> None:
    tenant = env.tenant()
    ended = [env.ended_batch(tenant).id for _ in range(2)]
    cookie = sign_in(tenant)
    question = press(tenant, cookie, "retry", *ended)
    assert "Retry 2 lines of 2 batches?" in text_of(question)
    assert retries_of(tenant) == []
    told = sure(tenant, cookie, question)
    assert "2 batches retried." in told
    assert retries_of(tenant) == sorted(ended)
    report = told[told.index("2 batches retried.") : told.index('id="selection"')]
    assert report.count("<a href") == 2
    assert ended[0] not in report


def test_the_question_about_many_batches_reads_them_in_as_many_statements_as_one(env: Env) -> None:
    tenant = env.tenant()
    ended = [env.ended_batch(tenant).id for _ in range(4)]
    cookie, counts = sign_in(tenant), []
    for chosen in (ended[:1], ended):
        with statements() as asked:
            question = press(tenant, cookie, "retry", *chosen)
        assert f"Retry {len(chosen)} line" in text_of(question)
        counts.append(len([each for each in asked if re.search("FROM (batches|files)", each)]))
    assert counts[0] == counts[1]


def test_what_a_retry_would_run_is_told_to_programs_too(env: Env) -> None:
    tenant = env.tenant()
    ended = env.ended_batch(tenant).id
    path = f"/v1/batches/{ended}/retry"
    assert tenant.ask("GET", path).json["lines"] == 1
    assert tenant.ask("GET", f"{path}?only=cancelled").status == 409
    tenant.ask("POST", path, {})
    assert tenant.ask("GET", path).json["error"]["code"] == "retry_unfinished"
    assert len(retries_of(tenant)) == 1


def test_a_batch_and_its_ended_retry_are_counted_and_run_once(env: Env) -> None:
    tenant = env.tenant()
    first, cookie = env.ended_batch(tenant).id, sign_in(tenant)
    tenant.ask("POST", f"/v1/batches/{first}/retry", {})
    (running,) = (
        each["id"] for each in tenant.ask("GET", "/v1/batches").json["data"] if each["retry_of"]
    )
    assert "Nothing to retry in 2 batches" in text_of(
        press(tenant, cookie, "retry", first, running)
    )
    tenant.ask("POST", f"/v1/batches/{running}/cancel")
    env.assemble()
    question = press(tenant, cookie, "retry", all="yes")
    assert "Retry 1 line of 1 cancelled batch?" in text_of(question)
    assert "1 batch retried." in sure(tenant, cookie, question)


def test_cancelled_batches_run_again_only_where_that_is_said(env: Env) -> None:
    tenant = env.tenant()
    ended, unwanted = env.ended_batch(tenant).id, cancelled(tenant)
    cookie = sign_in(tenant)
    question = press(tenant, cookie, "retry", all="yes")
    assert "Retry 1 line of 1 batch?" in text_of(question)
    assert "4 lines of 1 batch that somebody cancelled" in text_of(question)
    sure(tenant, cookie, question)
    assert retries_of(tenant) == [ended]
    question = press(tenant, cookie, "retry", all="yes")
    assert "Retry 4 lines of 1 cancelled batch?" in text_of(question)
    sure(tenant, cookie, question)
    assert retries_of(tenant) == sorted([ended, unwanted])


def test_of_both_kinds_the_cancelled_run_too_once_their_box_is_ticked(env: Env) -> None:
    tenant = env.tenant()
    both = [env.ended_batch(tenant).id, cancelled(tenant)]
    cookie = sign_in(tenant)
    question = press(tenant, cookie, "retry", *both)
    assert "2 batches retried." in sure(tenant, cookie, question, with_cancelled="yes")
    assert retries_of(tenant) == sorted(both)


def test_one_button_acts_on_a_bounded_number(env: Env, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CONSOLE_ACTIONS_MAX", 2)
    monkeypatch.setattr(limits, "CONSOLE_REFUSALS_SHOWN", 1)
    tenant = env.tenant()
    oldest, *newest = created(tenant, 3)
    told = text_of(press(tenant, sign_in(tenant), "pause", all="yes"))
    assert "2 batches paused. These were the newest 2: there are more." in told
    assert [state(tenant, each) for each in (oldest, *newest)] == ["validating", "paused", "paused"]
    told = text_of(press(tenant, sign_in(tenant), "delete", all="yes"))
    assert "0 batches deleted, 2 not:" in told
    assert told.count("<br>") == 1


@pytest.mark.parametrize(
    ("act", "reason"), [("pause", "Choose batches first"), ("launch", "no such button")]
)
def test_a_selection_that_says_nothing_is_explained(env: Env, act: str, reason: str) -> None:
    tenant = env.tenant()
    created(tenant, 1)
    cookie = sign_in(tenant)
    csrf = csrf_in(get(env.http_api, "/", cookie))
    answer = post(env.http_api, "/console/batches", cookie, act=act, csrf=csrf)
    assert answer.status == 400
    assert reason in text_of(answer)


def test_batches_of_others_and_forms_from_elsewhere_change_nothing(env: Env) -> None:
    owner, other = env.tenant("owner"), env.tenant("other")
    (batch_id,) = created(owner, 1)
    created(other, 1)
    cookie = sign_in(other)
    csrf = csrf_in(get(env.http_api, "/", cookie))
    answer = post(env.http_api, "/console/batches", cookie, act="cancel", batch=batch_id, csrf=csrf)
    assert "0 batches cancelled, 1 not:" in text_of(answer)
    refused = post(env.http_api, "/console/batches", cookie, act="cancel", all="yes", csrf="0" * 64)
    assert refused.status == 403
    assert state(owner, batch_id) == "validating"


def test_a_key_of_scope_read_is_offered_no_choice(env: Env) -> None:
    reader = env.tenant("reader", ("read",))
    cookie = sign_in(reader)
    page = get(env.http_api, "/", cookie)
    assert 'name="act"' not in page.body.decode()
    answer = post(env.http_api, "/console/batches", cookie, act="cancel", csrf=csrf_in(page))
    assert answer.status == 403


def test_lines_that_never_ran_are_not_called_failed(env: Env) -> None:
    tenant = env.tenant()
    batch = env.running_batch(tenant, 5)
    run = env.http_api.run
    run(tenant.worker.lease(batch.id, ["m"]))
    run(tenant.worker.settle(batch.id, ok=[1], bad=[2]))
    cookie = sign_in(tenant)
    press(tenant, cookie, "cancel", batch.id)
    run(tenant.worker.let_go(batch.id))
    env.assemble()
    assert state(tenant, batch.id) == "cancelled"
    page = text_of(get(env.http_api, f"/console/batches/{batch.id}", cookie))
    assert '<dt>Failed</dt><dd class="bad">1</dd>' in page
    assert "<dt>Not run</dt><dd>3</dd>" in page
    listed = text_of(get(env.http_api, "/", cookie))
    assert '2 of 5, <span class="bad">1 failed</span>, 3 not run' in listed
    told = tenant.ask("GET", f"/v1/batches/{batch.id}").json
    assert (told["request_counts"]["failed"], told["not_run_count"]) == (4, 3)
    assert "4 failed" not in listed
