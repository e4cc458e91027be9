"""No spelling of a path goes round the guard: every route, odd spelling and kind of key."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import pytest
from api_server import ApiServer, routes_of
from starlette.types import ASGIApp, Message
from tenant_env import EVERYTHING, Env, open_house

from lowtide.api.app import create_app
from lowtide.api.middleware.auth import is_public, sufficient_scopes
from lowtide.api.middleware.console_paths import ADMINISTRATION, USAGE

SUFFIXES: Final = (
    "%0A",
    "%00",
    "%0D%0A",
    "%7F",
    "%C2%85",
    "%20",
    "%09",
    "/",
    "//",
    ";x",
    "/.",
    "/%2e",
)
ADMIN_TEXTS: Final = (b"lowtide_http_requests_total", b'"scopes"', b'"organizations"')


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Env]:
    with open_house(tmp_path_factory.mktemp("spellings")) as env:
        yield env


def spellings(path: str) -> Iterator[str]:
    """Ways to write `path` that a check of strings might not see through."""
    for suffix in SUFFIXES:
        yield path + suffix
    yield path.replace("/", "//")
    yield path.upper()
    yield path.swapcase()
    yield "/" + path
    yield "/x/.." + path
    yield "/." + path
    yield re.sub("[a-z]", lambda letter: f"%{ord(letter[0]):02x}", path, count=1)
    yield re.sub("[a-z]", lambda letter: f"%{ord(letter[0]):02X}", path)
    yield "/" + path[1:].replace("/", "%2F")
    yield "/%2e%2e" + path
    for mount in ("/openai", "/together", "/v1", "/openai/v1/v1"):
        yield mount + path
        yield f"{mount}{path}%0A"


def routes(env: Env) -> list[tuple[str, str]]:
    found = []
    for route in routes_of(env.http_api.services):
        path = re.sub(r"\{[^}]+\}", "x", route.path)
        found += [(method, path) for method in sorted(route.methods or {"GET"})]
    assert len(found) > 30
    return found


async def statuses(app: ASGIApp, calls: list[tuple[str, str]], key: str | None) -> list[int | None]:
    """What the application answers when it is asked without a socket, for there are many."""
    headers = [(b"host", b"localhost")]
    headers += [(b"authorization", f"Bearer {key}".encode())] if key else []
    found: list[int | None] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            found[-1] = message["status"]

    for method, raw in calls:
        scope = {
            "type": "http",
            "method": method,
            "scheme": "http",
            "path": unquote(raw),
            "raw_path": raw.encode(),
            "query_string": b"",
            "headers": headers,
            "server": ("localhost", 80),
            "client": ("127.0.0.1", 1),
            "root_path": "",
        }
        found.append(None)
        await app(scope, receive, send)
    return found


@pytest.mark.parametrize("scopes", [(), ("read",), ("submit",), ("admin",)])
def test_every_spelling_of_every_route_meets_the_same_guard(
    walked: Env, scopes: tuple[str, ...]
) -> None:
    """Answered as the plain path is, refused, or no route at all."""
    key = walked.tenant(scopes=scopes).key if scopes else None
    app = create_app(walked.http_api.services)
    weak = []
    for method, path in routes(walked):
        odd = list(spellings(path))
        calls = [(method, path), *((method, each) for each in odd)]
        plain, *answers = walked.http_api.run(statuses(app, calls, key))
        allowed = {401, 403, 404, 405} | ({plain} if plain not in (401, 403) else set())
        assert plain is not None
        weak += [
            (method, spelling, status, plain)
            for spelling, status in zip(odd, answers, strict=True)
            if status not in allowed
        ]
    assert weak == []


def test_a_read_key_finds_no_way_to_what_is_the_administrators(walked: Env) -> None:
    reader = {"authorization": f"Bearer {walked.tenant(scopes=('read',)).key}"}
    admin = walked.tenant(scopes=EVERYTHING)
    for path in ("/metrics", "/v1/admin/keys", "/v1/admin/organizations"):
        assert admin.ask("GET", path).status == 200
        for spelling in spellings(path):
            answer = walked.http_api.ask("GET", spelling, headers=reader)
            assert not any(text in answer.body for text in ADMIN_TEXTS), spelling


@pytest.mark.parametrize("odd", ["%0A", "%00", "%0D", "%7F", "%1b", "%C2%85"])
def test_a_control_character_in_a_path_is_not_found_for_anybody(
    http_api: ApiServer, odd: str
) -> None:
    for path in (f"/metrics{odd}", f"/health{odd}", f"/v1/files/a{odd}b", f"/v1{odd}/files"):
        answer = http_api.ask("GET", path)
        assert (answer.status, answer.error["code"]) == (404, "not_found"), path


def test_nothing_is_put_by_way_of_a_signed_address_that_leads_elsewhere(walked: Env) -> None:
    for path in (
        "/v1/uploads/signed/../../admin/keys",
        "/v1/uploads/signed/%2e%2e/%2e%2e/admin/keys",
        "/v1/uploads/signed/x%0A",
        "/v1/uploads/signed/x/../../../files",
    ):
        assert walked.http_api.ask("PUT", path, b"x").status in (401, 403, 404)


def test_the_guard_reads_the_path_that_the_routes_match(walked: Env) -> None:
    """Every route's own path, as the guard sees it, asks for the scope that its verb says."""
    for method, path in routes(walked):
        if is_public(method, path):
            continue
        needed = sufficient_scopes(method, path)
        is_admins = path == "/metrics" or path.startswith(("/v1/admin", ADMINISTRATION))
        is_of_money = path == "/v1/usage" or path.startswith(USAGE)
        assert ("admin" in needed) == (is_admins or is_of_money), (method, path)
        assert (needed == ("admin",)) == is_admins, (method, path)


def test_ids_with_nul_are_not_found_and_other_text_with_it_is_refused(http_api: ApiServer) -> None:
    for path in ("/v1/files?after=a%00", "/v1/batches?after=%00", "/v1/files/a%00b/content"):
        assert http_api.ask("GET", path).status == 404, path
    body = b'{"input_file_id": "file-a\\u0000", "endpoint": "/v1/chat/completions"}'
    answer = http_api.ask("POST", "/v1/batches", body)
    assert (answer.status, answer.error["code"]) == (404, "not_found")
    body = b'{"input_file_id": "file-a", "endpoint": "/v1/x", "metadata": {"k": ["\\u0000"]}}'
    answer = http_api.ask("POST", "/v1/batches", body)
    assert (answer.status, answer.error["param"]) == (400, "metadata")


def test_a_backslash_before_u0000_is_no_nul(http_api: ApiServer, tmp_path: Path) -> None:
    answer = http_api.ask("POST", "/v1/batches", b'{"input_file_id": "file-\\\\u0000"}')
    assert answer.error["code"] != "not_found"
