"""API keys: what is let in, what is refused, and how little a refusal tells."""

import hmac
import re
from datetime import timedelta

import openai
import pytest
import together
from api_server import Answer, ApiServer, routes_of
from starlette.types import Scope
from tenant_env import EVERYTHING, Env, Tenant, line

from lowtide import limits
from lowtide.api.files import uploads
from lowtide.ports.turns import ACTING_FOR
from lowtide.service.accounts.authentication import Authenticator


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def whoami(env: Env, key: str) -> Answer:
    return env.http_api.ask("GET", "/v1/whoami", None, bearer(key))


def test_a_key_has_the_documented_form_and_is_stored_as_a_hash(env: Env) -> None:
    tenant = env.tenant()
    match = re.fullmatch(r"lt-([A-Za-z0-9]+)-([A-Za-z0-9]+)", tenant.key)
    assert match
    assert match[1] == tenant.key_id
    assert len(match[2]) == limits.KEY_SECRET_CHARS
    assert tenant.ask("GET", "/v1/files").status == 200
    stored = b"".join(path.read_bytes() for path in env.http_api.folder.glob("lowtide.sqlite*"))
    assert match[1].encode() in stored
    assert match[2].encode() not in stored


def test_without_a_key_the_answer_says_what_to_send(env: Env) -> None:
    answer = env.http_api.ask("GET", "/v1/files")
    assert (answer.status, answer.error["code"]) == (401, "missing_api_key")
    assert "Authorization: Bearer" in answer.error["message"]
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.error["type"] == "authentication_error"


def test_all_bad_keys_look_the_same(env: Env) -> None:
    tenant = env.tenant()
    run, tenants, clock = env.http_api.run, env.http_api.services.tenants, env.http_api.clock
    revoked = run(tenants.create_key(tenant.project_id, "revoked"))
    run(tenants.revoke_key(revoked.key.id))
    soon = clock.now() + timedelta(seconds=60)
    expired = run(tenants.create_key(tenant.project_id, "expired", expires_at=soon))
    assert whoami(env, expired.credential).status == 200
    clock.shift = timedelta(seconds=61)
    bad = [
        revoked.credential,
        expired.credential,
        tenant.key[:-1] + ("a" if tenant.key[-1] != "a" else "b"),
        f"lt-{'x' * 12}-{'y' * 40}",
        f"lt-{tenant.key_id}-",
        "sk-something-else",
        "lt-" + "z" * 5000,
        "\xe4\xf6",
    ]
    answers = [whoami(env, key) for key in bad]
    assert {answer.status for answer in answers} == {401}
    assert len({answer.body for answer in answers}) == 1
    assert answers[0].error["code"] == "invalid_api_key"


def test_either_header_carries_a_key(env: Env) -> None:
    tenant = env.tenant()
    answer = env.http_api.ask("GET", "/v1/whoami", None, {"x-api-key": tenant.key})
    assert answer.json["api_key_id"] == tenant.key_id


def test_whoami_shows_the_real_ids_and_names(env: Env) -> None:
    tenant = env.tenant("Acme Corp")
    for path in ("/v1/whoami", "/v3/whoami", "/whoami"):
        reported = tenant.ask("GET", path).json
        assert (
            reported["organization_id"] == reported["organization"]["id"] == tenant.organization_id
        )
        assert reported["project_id"] == reported["project"]["id"] == tenant.project_id
        assert reported["api_key_id"] == reported["api_key"]["id"] == tenant.key_id
        assert reported["project_name"] == reported["organization_name"] == "Acme Corp"
        assert reported["project_slug"] == "acme-corp"
        assert reported["scopes"] == ["read", "submit"]


@pytest.mark.parametrize(
    ("scopes", "method", "path", "needed"),
    [
        (("read",), "POST", "/v1/batches", "submit"),
        (("read",), "DELETE", "/v1/files/file-1", "submit"),
        (("read",), "POST", "/together/v1/files", "submit"),
        (("submit",), "GET", "/v1/files", "read"),
        (("submit",), "HEAD", "/v1/files/file-1/content", "read"),
        (("read", "submit"), "GET", "/v1/admin/keys", "admin"),
        (("read", "submit"), "POST", "/v1//admin/keys", "admin"),
        (("read", "submit"), "GET", "/openai/v1/admin/organizations/org_default", "admin"),
        (("read", "submit"), "GET", "/metrics", "admin"),
        (("admin",), "GET", "/v1/batches", "read"),
    ],
)
def test_a_call_beyond_the_keys_scopes_is_refused_by_name(
    env: Env, scopes: tuple[str, ...], method: str, path: str, needed: str
) -> None:
    answer = env.tenant(scopes=scopes).ask(method, path)
    assert answer.status == 403
    if method != "HEAD":
        assert answer.error["code"] == "insufficient_scope"
        assert f"'{needed}'" in answer.error["message"]


def test_every_route_but_the_public_ones_wants_a_key(env: Env) -> None:
    """Also those that somebody will add: the guard stands before the routes."""
    public = {
        "/health",
        "/ready",
        "/openapi.json",
        "/v1/uploads/signed/{file_id}",
        "/v1/uploads/signed/{upload_id}/parts/{number}",
        "/console/sign-in",
        "/console/static/{name}",
    }
    routes = paths_and_methods(env)
    assert len(routes) > 15
    for path, methods in routes:
        filled = re.sub(r"\{[^}]+\}", "x", path)
        for method in methods:
            for mount in ("", "/openai", "/together"):
                status = env.http_api.ask(method, mount + filled).status
                assert (status != 401) == (path in public), (method, mount + path, status)


def paths_and_methods(env: Env) -> list[tuple[str, list[str]]]:
    routes = routes_of(env.http_api.services)
    return [(route.path, sorted(route.methods or {"GET"})) for route in routes]


def test_an_address_that_is_not_there_does_not_tell_so_without_a_key(env: Env) -> None:
    assert env.http_api.ask("GET", "/v1/nothing").status == 401
    assert env.tenant().ask("GET", "/v1/nothing").status == 404


def test_a_signed_upload_needs_no_key_and_takes_one_content(env: Env) -> None:
    tenant = env.tenant()
    announced = tenant.ask(
        "POST",
        "/v1/files",
        b"purpose=batch-api&file_name=a.jsonl",
        content_type="application/x-www-form-urlencoded",
    )
    assert announced.status == 302
    address = announced.headers["location"].removeprefix(env.http_api.url)
    assert env.http_api.ask("PUT", address, line()).status == 200
    assert env.http_api.ask("PUT", address, line()).status == 200, "sent again, kept once"
    assert env.http_api.ask("PUT", address, line() + line()).status == 403
    file_id = announced.headers["x-together-file-id"]
    assert tenant.ask("GET", f"/v1/files/{file_id}").json["Processed"] is True


def test_a_revoked_key_takes_the_addresses_along_that_it_asked_for(env: Env) -> None:
    admin, tenant, other = env.tenant(scopes=EVERYTHING), env.tenant(), env.tenant()

    def announced(who: Tenant) -> str:
        form = "application/x-www-form-urlencoded"
        answer = who.ask(
            "POST", "/v1/files", b"purpose=batch-api&file_name=a.jsonl", content_type=form
        )
        return answer.headers["location"].removeprefix(env.http_api.url)

    mine, others = announced(tenant), announced(other)
    admin.ask("DELETE", f"/v1/admin/keys/{tenant.key_id}")
    refused = env.http_api.ask("PUT", mine, line())
    assert refused.status == 403
    assert refused.error["code"] == "upload_invalid"
    assert "revoked" in refused.error["message"]
    swapped = mine.replace(tenant.key_id, other.key_id)
    assert "signature" in env.http_api.ask("PUT", swapped, line()).error["message"]
    assert env.http_api.ask("PUT", others, line()).status == 200


def test_an_upload_to_a_signed_address_counts_for_the_organization_that_asked_for_it(
    env: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else an organization had as many connections more as it has keys."""
    tenant = env.tenant()
    form = "application/x-www-form-urlencoded"
    announced = tenant.ask(
        "POST", "/v1/files", b"purpose=batch-api&file_name=a.jsonl", content_type=form
    )
    counted: list[tuple[str, str]] = []
    accept = uploads.accept

    def counting(scope: Scope, organization_id: str) -> None:
        accept(scope, organization_id)
        counted.append((organization_id, ACTING_FOR.get()))

    monkeypatch.setattr(uploads, "accept", counting)
    address = announced.headers["location"].removeprefix(env.http_api.url)
    assert env.http_api.ask("PUT", address, line()).status == 200
    assert counted == [(tenant.organization_id, tenant.organization_id)]


def test_a_revoked_key_is_refused_at_once(env: Env) -> None:
    admin, tenant = env.tenant(scopes=EVERYTHING), env.tenant()
    assert whoami(env, tenant.key).status == 200
    revoked = admin.ask("DELETE", f"/v1/admin/keys/{tenant.key_id}")
    assert revoked.status == 200
    assert whoami(env, tenant.key).status == 401


def test_another_process_forgets_a_revoked_key_within_seconds(env: Env) -> None:
    tenant, http_api = env.tenant(), env.http_api
    elsewhere = Authenticator(http_api.store.tenants, http_api.clock)
    assert http_api.run(elsewhere.authenticate(tenant.key)).key.id == tenant.key_id
    http_api.run(http_api.services.tenants.revoke_key(tenant.key_id))
    http_api.clock.shift = timedelta(seconds=limits.KEY_CACHE_S + 0.1)
    with pytest.raises(Exception, match="not valid"):
        http_api.run(elsewhere.authenticate(tenant.key))
    assert limits.KEY_CACHE_S <= 5


def test_an_unknown_id_is_compared_like_a_known_one(
    env: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenant = env.tenant()
    compared: list[tuple[int, int]] = []
    compare = hmac.compare_digest

    def watched(a: str, b: str) -> bool:
        compared.append((len(a), len(b)))
        return compare(a, b)

    monkeypatch.setattr("lowtide.service.accounts.authentication.hmac.compare_digest", watched)
    for key in (tenant.key, f"lt-{tenant.key_id}-wrong", "lt-unknown-wrong"):
        whoami(env, key)
    assert compared == [(64, 64)] * 3


def test_last_used_is_written_about_once_a_minute(env: Env) -> None:
    tenant, http_api = env.tenant(), env.http_api

    def last_used() -> object:
        return http_api.run(http_api.store.tenants.key_owner(tenant.key_id)).key.last_used_at

    tenant.ask("GET", "/v1/whoami")
    assert last_used() is None
    http_api.clock.shift = timedelta(seconds=limits.KEY_TOUCH_S + 1)
    tenant.ask("GET", "/v1/whoami")
    assert last_used() is not None
    (key,) = http_api.run(http_api.services.tenants.keys(tenant.project_id))
    assert key.last_used_at == last_used()


def test_the_sdks_raise_their_own_errors(env: Env) -> None:
    reader = env.tenant(scopes=("read",))
    with openai.OpenAI(
        api_key="lt-a-b", base_url=f"{env.http_api.url}/v1", max_retries=0
    ) as client:
        with pytest.raises(openai.AuthenticationError) as refused:
            client.models.list()
        assert refused.value.code == "invalid_api_key"
    with openai.OpenAI(api_key=reader.key, base_url=f"{env.http_api.url}/v1") as client:
        assert [model.id for model in client.models.list()] == ["m"]
        with pytest.raises(openai.PermissionDeniedError):
            client.batches.cancel("batch_1")
    with (
        together.Together(api_key="lt-a-b", base_url=env.http_api.url, max_retries=0) as wrong,
        pytest.raises(together.AuthenticationError),
    ):
        wrong.batches.list()
    with together.Together(api_key=reader.key, base_url=env.http_api.url) as right:
        assert right.batches.list() == []


def test_in_open_mode_any_key_or_none_is_the_default_project(http_api: ApiServer) -> None:
    for headers in ({}, bearer("whatever"), {"x-api-key": "lt-a-b"}):
        reported = http_api.ask("GET", "/v1/whoami", None, headers).json
        assert (reported["project_id"], reported["organization_id"]) == (
            "proj_default",
            "org_default",
        )
    assert http_api.ask("GET", "/v1/admin/keys").json == {"object": "list", "data": []}
