"""The first lines of a file, run before a batch is made of it: what is sent and what is told.

A browser does it against a real engine in tests/browser/test_console_browser.py.
"""

import asyncio
from html import unescape
from typing import Any

import pytest
from api_server import Answer
from console_client import csrf_in, get, post, sign_in
from tenant_env import CHAT, Env, Tenant, line

from lowtide import limits
from lowtide.core.errors import LowtideError
from lowtide.core.live.flex import FlexCall
from lowtide.core.live.live import LiveAnswer
from lowtide.service.live.flex import FlexService

_MESSAGE = b'{"role":"assistant","content":"<b>yes</b>"}'
ANSWER = LiveAnswer(200, "application/json", b'{"choices":[{"message":%b}]}' % _MESSAGE)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[FlexCall]:
    """What reaches the queue; each is answered with ANSWER, a call of model `full` is refused."""
    found: list[FlexCall] = []

    async def hold(_service: Any, *args: Any, **_: Any) -> LiveAnswer:
        call: FlexCall = args[-1]
        found.append(call)
        if call.model == "full":
            raise LowtideError("resource_unavailable", "No engine takes such calls now.")
        if call.model == "slow":
            await asyncio.Event().wait()
        return ANSWER

    monkeypatch.setattr(FlexService, "hold", hold)
    return found


def run_first(tenant: Tenant, content: bytes) -> Answer:
    file_id = tenant.upload(content).json["id"]
    cookie, page = sign_in(tenant), f"/console/new/{file_id}"
    shown = get(tenant.env.http_api, page, cookie)
    return post(tenant.env.http_api, f"{page}/first", cookie, csrf=csrf_in(shown), endpoint=CHAT)


def test_five_lines_go_to_the_queue_and_their_answers_are_shown_as_text(
    env: Env, calls: list[FlexCall]
) -> None:
    content = b"\n" + b"".join(line(number, stream=True) for number in range(1, 9))
    page = run_first(env.tenant(), content).body.decode()
    assert len(calls) == limits.FIRST_LINES
    assert {call.endpoint for call in calls} == {CHAT}
    assert {bytes(call.fields["service_tier"]) for call in calls} == {b'"flex"'}
    assert not any(call.streams for call in calls)
    assert page.count("<article") == limits.FIRST_LINES
    assert "<b>yes</b>" not in page
    assert "<b>yes</b>" in unescape(page)
    assert "r-5" in page
    assert "r-6" not in page


def test_a_line_that_is_refused_says_why_beside_the_others(
    env: Env, calls: list[FlexCall], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FIRST_LINES_WAIT_S", 0.01)
    page = unescape(
        run_first(
            env.tenant(), line(1) + line(2, "full") + line(3, "slow") + b'{"body": 1}\n'
        ).body.decode()
    )
    assert len(calls) == 3
    assert "No engine takes such calls now." in page
    assert "No answer within" in page
    assert "The line is no request." in page
    assert page.count("<b>yes</b>") == 1


def test_what_is_read_of_a_file_is_bounded(
    env: Env, calls: list[FlexCall], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FIRST_LINES_BYTES_MAX", 600)
    answer = run_first(env.tenant(), line(1) + line(2, text="x" * 1000) + line(3))
    assert answer.status == 200
    assert len(calls) == 1
    refused = run_first(env.tenant("b"), line(1, text="x" * 1000))
    assert refused.status == 400
    assert "too long to be run from here" in refused.body.decode()


def test_another_projects_file_is_unknown(env: Env, calls: list[FlexCall]) -> None:
    file_id = env.tenant("owner").upload(line(1)).json["id"]
    cookie = sign_in(env.tenant("other"))
    csrf = csrf_in(get(env.http_api, "/console/new", cookie))
    path = f"/console/new/{file_id}/first"
    assert post(env.http_api, path, cookie, csrf=csrf, endpoint=CHAT).status == 404
    reader = sign_in(env.tenant("reader", ("read",)))
    csrf = csrf_in(get(env.http_api, "/", reader))
    assert post(env.http_api, path, reader, csrf=csrf, endpoint=CHAT).status == 403
    assert calls == []
