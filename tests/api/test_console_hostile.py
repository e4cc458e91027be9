"""What a hostile file, model or engine can put before the console: it shows as text, bounded."""

import re
from html import unescape
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
import pytest
from console_client import get, sign_in
from tenant_env import Env, Tenant, line

from lowtide import limits

SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(2)>"
TERMINAL = "\x1b]0;title\x07\x1b[2J\x1b[31mred"
BIDI = "invoice\u202egnp.exe\u2066\u200b"
PATHS = (
    "../../etc/passwd",
    "/v1/batches/x?y=1&z=2#w",
    "%2e%2e%2f",
    "javascript:alert(1)",
    "a/../b",
)
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f\u200b-\u200f\u202a-\u202e\u2066-\u2069]")
"""What a browser or a terminal would obey or hide."""


def hostile_batch(env: Env, tenant: Tenant, content: bytes, outputs: list[bytes]) -> str:
    """An ended batch over that file, whose lines came to `outputs`; those with an error failed."""
    tenant.worker.outputs = dict(enumerate(outputs, 1))
    batch_id: str = tenant.create(content).json["id"]
    env.validate()
    run = env.http_api.run
    run(tenant.worker.lease(batch_id, ["m"]))
    bad = [place for place, each in enumerate(outputs, 1) if b'"error":{' in each]
    ok = [place for place in range(1, len(outputs) + 1) if place not in bad]
    run(tenant.worker.settle(batch_id, ok=ok, bad=bad))
    env.assemble()
    assert tenant.ask("GET", f"/v1/batches/{batch_id}").json["status"] == "completed"
    return batch_id


def answered(custom_id: str, text: str) -> bytes:
    body = {"choices": [{"message": {"role": "assistant", "content": text}}]}
    response = {"status_code": 200, "body": body}
    line = {"id": "x", "custom_id": custom_id, "response": response, "error": None}
    return msgspec.json.encode(line) + b"\n"


def failed(custom_id: str, message: str, code: str = "400") -> bytes:
    error = {"code": code, "message": message}
    line = {"id": "x", "custom_id": custom_id, "response": None, "error": error}
    return msgspec.json.encode(line) + b"\n"


def request(custom_id: str, text: str = "hello") -> bytes:
    told: dict[str, Any] = msgspec.json.decode(line(1, text=text))
    return msgspec.json.encode({**told, "custom_id": custom_id}) + b"\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (SCRIPT, "<script>alert(1)</script>"),
        (TERMINAL, "\\u001b]0;title\\u0007"),
        (BIDI, "invoice\\u202egnp.exe"),
    ],
    ids=["script", "terminal", "bidi"],
)
def test_prompts_answers_and_failures_show_as_text(env: Env, text: str, shown: str) -> None:
    tenant = env.tenant()
    content = request("a", text) + request("b", text)
    outputs = [answered("a", text), failed("b", text, code=text[:60])]
    batch_id = hostile_batch(env, tenant, content, outputs)
    cookie, path = sign_in(tenant), f"/console/batches/{batch_id}"
    for page in (path, f"{path}/lines", f"{path}/lines?kind=errors", f"/?q={quote(text)}"):
        html = get(env.http_api, page, cookie).body.decode()
        assert not OBEYED.search(html), page
        assert "<script>alert" not in html
        assert "<img" not in html
        assert shown in unescape(html), page


def test_ids_that_look_like_paths_are_found_and_lead_nowhere_else(env: Env) -> None:
    tenant = env.tenant()
    content = b"".join(map(request, PATHS))
    outputs = [failed(each, "no") for each in PATHS]
    batch_id = hostile_batch(env, tenant, content, outputs)
    cookie, path = sign_in(tenant), f"/console/batches/{batch_id}"
    page = get(env.http_api, path, cookie).body.decode()
    linked = re.findall(r'href="([^"]*custom_id=[^"]*)"', page)
    assert len(linked) == limits.FAILURE_EXAMPLES_MAX
    for address in map(unescape, linked):
        assert address.startswith(f"{path}/lines?kind=errors&custom_id=")
    for custom_id in PATHS:
        asked = urlencode({"kind": "errors", "custom_id": custom_id})
        found = unescape(get(env.http_api, f"{path}/lines?{asked}", cookie).body.decode())
        assert found.count("<article") == 1
        assert f'<b class="id">{custom_id}</b>' in found


@pytest.mark.parametrize(
    "path",
    [
        "/console/batches/..%2f..%2fetc%2fpasswd",
        "/console/batches/%00",
        "/console/new/..%2f..%2fx",
        "/console/files/..%2f..%2fetc%2fpasswd",
        "/console/static/..%2fpages.py",
        "/console/static/%2e%2e/pages.py",
        "/console/admin/../../etc/passwd",
        f"/console/batches/{quote(SCRIPT, '')}",
    ],
)
def test_an_address_that_looks_like_a_path_of_the_machine_is_no_page(env: Env, path: str) -> None:
    answer = get(env.http_api, path, sign_in(env.tenant()))
    assert answer.status in (400, 403, 404)
    text = answer.body.decode()
    assert "<script>alert" not in text
    assert "root:" not in text
    assert "told_on_a_page" not in text


def test_an_answer_of_five_megabytes_leaves_the_page_small_and_is_downloaded_whole(
    env: Env,
) -> None:
    tenant = env.tenant()
    outputs = [answered("big", "<x>" * 1_700_000), answered("small", "fine")]
    batch_id = hostile_batch(env, tenant, request("big") + request("small"), outputs)
    assert len(outputs[0]) > 5_000_000
    cookie = sign_in(tenant)
    page = get(env.http_api, f"/console/batches/{batch_id}/lines", cookie).body
    assert len(page) < 20_000
    assert re.search(r"5,100,1\d\d bytes: too large for a page", page.decode())
    assert b"fine" in page
    told = tenant.ask("GET", f"/v1/batches/{batch_id}").json
    whole = get(env.http_api, f"/console/files/{told['output_file_id']}", cookie)
    assert whole.body == b"".join(outputs)
    assert "attachment" in whole.headers["content-disposition"]


def test_failures_of_endless_kinds_come_to_a_bounded_table(env: Env) -> None:
    """A million kinds would be no more than these: those behind the first hundred are one row."""
    number = 3 * limits.FAILURE_SHAPES_MAX
    names = [f"r{each}" for each in range(number)]
    outputs = [failed(name, "x" * (each + 1) + SCRIPT) for each, name in enumerate(names)]
    tenant = env.tenant()
    content = b"".join(map(request, names))
    batch_id = hostile_batch(env, tenant, content, outputs)
    page = get(env.http_api, f"/console/batches/{batch_id}", sign_in(tenant)).body.decode()
    table = page[page.index("Groups of failures") : page.index("</table>", page.index("failures"))]
    assert table.count("<tr>") == limits.FAILURE_SHAPES_MAX + 2, "a head, the groups, all others"
    assert "all other messages" in table
    assert len(page) < 400_000
