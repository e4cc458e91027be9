"""A new batch in the browser: the upload, the dry run that it leads to, and the create."""

import re
import shlex
from dataclasses import replace
from html import unescape

import pytest
from api_server import Answer, form
from console_client import HTML, csrf_in, get, post, sign_in
from tenant_env import CHAT, Env, Tenant, line

NEW = "/console/new"


def send(
    tenant: Tenant, cookie: str, *parts: tuple[str, str | None, bytes], accept: str = ""
) -> Answer:
    body, kind = form(list(parts))
    headers = HTML | {"cookie": cookie, "content-type": kind}
    return tenant.env.http_api.ask(
        "POST", NEW, body, headers | ({"accept": accept} if accept else {})
    )


def csrf(tenant: Tenant, cookie: str) -> tuple[str, None, bytes]:
    return ("csrf", None, csrf_in(get(tenant.env.http_api, NEW, cookie)).encode())


def upload(
    tenant: Tenant, cookie: str, content: bytes, name: str = "in.jsonl", accept: str = ""
) -> Answer:
    """What a browser sends for the form, in the form's order."""
    return send(tenant, cookie, csrf(tenant, cookie), ("file", name, content), accept=accept)


def draft_of(tenant: Tenant, cookie: str, content: bytes) -> tuple[str, str]:
    """The path of the page that an upload leads to, and what stands there."""
    answer = upload(tenant, cookie, content)
    assert answer.status == 303, answer.body
    path = answer.headers["location"]
    return path, unescape(get(tenant.env.http_api, path, cookie).body.decode())


def test_a_file_is_uploaded_priced_and_made_a_batch_without_a_script(env: Env) -> None:
    tenant = env.tenant()
    cookie = sign_in(tenant)
    form_page = get(env.http_api, NEW, cookie).body.decode()
    assert form_page.index('name="csrf"', form_page.index("multipart")) < form_page.index('"file"')
    webhook = tenant.ask("POST", "/v1/webhooks", {"url": "https://93.184.216.34/"}).json["id"]
    path, page = draft_of(tenant, cookie, line(1, max_tokens=10) + line(2, max_tokens=10))
    assert f'<option value="{webhook}">' in page
    told = tenant.ask(
        "POST",
        "/v1/batches",
        {"input_file_id": path.rpartition("/")[2], "endpoint": CHAT, "dry_run": True},
    ).json
    assert told["requests"] == 2
    assert f"<dd>{told['totals']['input_tokens']}</dd>" in page
    assert "<dd>20</dd>" in page
    assert "All 2 lines can run." in page
    assert "no engine that serves it is running" in page
    once = re.search(r'name="once" value="(\w+)"', page)
    token = re.search(r'name="csrf" value="(\w+)"', page)
    assert once
    assert token
    fields = {
        "csrf": token[1],
        "once": once[1],
        "endpoint": CHAT,
        "name": "tonight",
        "priority": "2",
        "completion_window": "36h",
        "webhook": webhook,
    }
    pressed = [post(env.http_api, path, cookie, **fields) for _ in range(2)]
    assert [each.status for each in pressed] == [303, 303]
    first, second = (each.headers["location"] for each in pressed)
    assert first == second, "a button pressed twice makes one batch"
    (batch,) = tenant.ask("GET", "/v1/batches").json["data"]
    assert first == f"/console/batches/{batch['id']}"
    assert batch["metadata"] == {"name": "tonight"}
    assert (batch["priority"], batch["completion_window"]) == (2, "36h")
    assert batch["webhook"] == webhook


def test_the_first_lines_are_shown_as_they_will_be_sent(env: Env) -> None:
    tenant = env.tenant()
    content = b"".join(line(number, text=f"<i>sea {number}</i>") for number in range(1, 8))
    _, page = draft_of(tenant, sign_in(tenant), content)
    assert re.findall(r'<div class="text"><i>sea (\d)</i>', page) == ["1", "2", "3", "4", "5"]
    assert "Run the first 5 now" in page


def test_bad_lines_are_told_by_number_code_and_message_and_nothing_can_be_created(env: Env) -> None:
    tenant = env.tenant()
    _, page = draft_of(tenant, sign_in(tenant), line(1) + b"{}\n" + line(3, model="<b>none</b>"))
    assert "2 lines cannot run" in page
    assert '<td class="number">2</td>' in page
    assert "model_not_found" in page
    assert "Create the batch" not in page


def short(number: int, body: str = '{"model": "a/b", "messages": []}') -> bytes:
    """A line in Together's form, which has neither method nor url."""
    return f'{{"custom_id": "r-{number}", "body": {body}}}\n'.encode()


def test_lines_in_the_short_form_are_taken_and_go_where_the_page_says(env: Env) -> None:
    tenant = env.tenant()
    cookie = sign_in(tenant)
    body = '{"model": "m", "input": "sea"}'
    path, page = draft_of(tenant, cookie, short(1, body) + short(2, body))
    assert "The lines name no <code>url</code>" in page
    assert "2 lines: 1, 2</td>" in page, "as chats they lack their messages, which is told once"
    page = unescape(get(env.http_api, f"{path}?endpoint=/v1/embeddings", cookie).body.decode())
    assert "cannot run" not in page
    token = re.search(r'name="csrf" value="(\w+)"', page)
    assert token
    made = post(env.http_api, path, cookie, csrf=token[1], endpoint="/v1/embeddings")
    assert made.status == 303, made.body
    batch = tenant.ask("GET", "/v1" + made.headers["location"].removeprefix("/console")).json
    assert batch["endpoint"] == "/v1/embeddings"
    assert batch["status"] == "VALIDATING", "a batch of Together's form is shown in its form"


def test_a_fault_of_many_lines_is_told_once_with_their_count_and_the_first_of_them(
    env: Env,
) -> None:
    tenant = env.tenant()
    lines = line(1) + b"".join(short(number) for number in range(2, 11))
    _, page = draft_of(tenant, sign_in(tenant), lines)
    assert "9 lines cannot run" in page
    assert "9 lines: 2, 3, 4, 5, 6, …</td>" in page
    assert page.count("Missing required parameters: 'method' and 'url'.") == 1


def test_the_page_shows_a_line_of_both_forms_with_a_model_that_is_here(env: Env) -> None:
    page = unescape(get(env.http_api, NEW, sign_in(env.tenant())).body.decode())
    opened = page[page.index('<details class="panel" open>') :]
    model = env.http_api.services.models.list()[0].id
    assert f'{{"custom_id": "r-1", "body": {{"model": "{model}"' in opened
    assert f'"method": "POST", "url": "{CHAT}", "body": {{"model": "{model}"' in opened


@pytest.mark.parametrize("name", ["my reviews.csv", "a.PARQUET"])
def test_a_table_is_refused_unread_with_the_command_that_asks_about_its_rows(
    env: Env, name: str
) -> None:
    tenant = env.tenant()
    cookie = sign_in(tenant)
    before = len(env.http_api.blobs_on_disk())
    page = upload(tenant, cookie, b"review\nwarm and kind\n", name=name)
    assert page.status == 400
    text = unescape(page.body.decode())
    told = f"{name} is a table, and this page takes requests. This asks about each of its rows: "
    command = text[text.index(told) + len(told) :]
    assert command.startswith(f"lowtide run {shlex.quote(name)} -o answers")
    assert f"--server {env.http_api.url} --model MODEL --prompt '" in command
    assert len(env.http_api.blobs_on_disk()) == before
    assert "lowtide run reviews.csv -o answers.csv" in text, "and below, for who asks first"


def test_the_endpoint_is_that_of_the_first_line(env: Env) -> None:
    tenant = env.tenant()
    content = line(1).replace(CHAT.encode(), b"/v1/embeddings")
    path, page = draft_of(tenant, sign_in(tenant), content)
    assert "<option selected>/v1/embeddings</option>" in page
    other = get(env.http_api, f"{path}?endpoint={CHAT}", sign_in(tenant)).body.decode()
    assert f"<option selected>{CHAT}</option>" in other


def test_the_script_is_told_where_to_go_and_what_is_wrong(env: Env) -> None:
    tenant = env.tenant()
    cookie = sign_in(tenant)
    answer = upload(tenant, cookie, line(1), accept="application/json")
    assert get(env.http_api, answer.json["address"], cookie).status == 200
    refused = upload(tenant, cookie, b"", name="", accept="application/json")
    assert (refused.status, refused.error["code"]) == (400, "invalid_request")


def test_no_file_chosen_is_explained_on_the_form(env: Env) -> None:
    tenant = env.tenant()
    cookie = sign_in(tenant)
    for answer in (
        upload(tenant, cookie, b"", name=""),
        send(tenant, cookie, csrf(tenant, cookie)),
    ):
        assert answer.status == 400
        text = answer.body.decode()
        assert 'role="alert"' in text
        assert 'type="file"' in text


@pytest.mark.parametrize("token", [None, b"0" * 64])
def test_a_form_without_the_sessions_token_in_front_stores_nothing(
    env: Env, token: bytes | None
) -> None:
    tenant = env.tenant()
    cookie = sign_in(tenant)
    file, right = ("file", "in.jsonl", line(1)), csrf(tenant, cookie)
    parts = [file, right] if token is None else [("csrf", None, token), file, right]
    answer = send(tenant, cookie, ("purpose", None, b"batch"), *parts)
    assert answer.status == 403
    assert tenant.ask("GET", "/v1/files").json["data"] == []
    assert env.http_api.blobs_on_disk() == []


def test_a_create_that_makes_no_sense_is_explained_beside_the_dry_run(env: Env) -> None:
    tenant = env.tenant()
    cookie = sign_in(tenant)
    path, page = draft_of(tenant, cookie, line(1))
    token = re.search(r'name="csrf" value="(\w+)"', page)
    assert token
    fields = {"csrf": token[1], "endpoint": CHAT, "completion_window": "24h", "name": "tonight"}
    for field, value in (
        ("completion_window", "5 minutes"),
        ("priority", "99999999999"),
        ("webhook", "nowhere"),
    ):
        answer = post(env.http_api, path, cookie, **fields | {field: value})
        assert answer.status == 400
        page = unescape(answer.body.decode())
        assert re.search(rf'value="{value}" aria-invalid="true" aria-describedby="{field}-w', page)
        told = re.findall(r'id="(\w+)-wrong" class="bad" role="alert">', page)
        assert told == [field]
        assert page.count('role="alert"') == 1, "beside its field, and nowhere else"
        assert 'value="tonight"' in page
        assert "Create the batch" in page
        assert 'aria-label="Pages"' in page
    assert tenant.ask("GET", "/v1/batches").json["data"] == []


def test_a_window_that_cannot_be_checked_is_told_beside_it_on_the_page(env: Env) -> None:
    tenant = env.tenant()
    cookie = sign_in(tenant)
    path, _ = draft_of(tenant, cookie, line(1))
    answer = get(env.http_api, f"{path}?endpoint={CHAT}&completion_window=5+minutes", cookie)
    page = unescape(answer.body.decode())
    assert 'value="5 minutes" class="short" aria-invalid="true"' in page
    assert "'5 minutes': give hours or days from 1h to 7d" in page
    assert "Can 24h be kept?" in page, "the rest of the page is that of the usual window"
    assert "That did not work" not in page


def test_only_keys_that_may_submit_see_the_pages(env: Env) -> None:
    tenant = env.tenant()
    made = env.http_api.services.tenants.create_key(tenant.project_id, "reader", scopes=("read",))
    reader = sign_in(replace(tenant, key=env.http_api.run(made).credential))
    cookie = sign_in(tenant)
    path, _ = draft_of(tenant, cookie, line(1))
    assert NEW in get(env.http_api, "/", cookie).body.decode()
    assert NEW not in get(env.http_api, "/", reader).body.decode()
    for page in (NEW, path):
        assert get(env.http_api, page, reader).status == 403
    token = csrf_in(get(env.http_api, "/", reader))
    assert post(env.http_api, path, reader, csrf=token, endpoint=CHAT).status == 403
    other = sign_in(env.tenant("other"))
    assert get(env.http_api, path, other).status == 404


def test_the_name_of_a_file_is_shown_as_text(env: Env) -> None:
    tenant = env.tenant()
    cookie = sign_in(tenant)
    answer = upload(tenant, cookie, line(1), name="<script>x\u202e.jsonl")
    page = get(env.http_api, answer.headers["location"], cookie).body.decode()
    assert "<script>x" not in page
    assert "&lt;script&gt;x\\u202e.jsonl" in page
