"""The admin routes: organizations, projects, keys, limits and caps, as the document says."""

import json
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from api_server import Answer
from starlette.routing import Route
from tenant_env import EVERYTHING, Env, Tenant

from lowtide.api.app import create_app
from lowtide.api.objects.accounts import (
    KeyList,
    KeyObject,
    LimitsObject,
    NewKeyObject,
    OrganizationList,
    OrganizationObject,
    ProjectList,
    ProjectObject,
)
from lowtide.core.accounts.tenancy import OrganizationLimits


@pytest.fixture
def admin(env: Env) -> Tenant:
    return env.tenant("root", scopes=EVERYTHING)


def made(answer: Answer) -> dict[str, Any]:
    assert answer.status == 200, answer.body
    reported: dict[str, Any] = answer.json
    return reported


def test_an_organization_a_project_and_a_key_are_made_and_found(env: Env, admin: Tenant) -> None:
    organization = made(
        admin.ask(
            "POST",
            "/v1/admin/organizations",
            {"name": "Acme", "limits": {"batches_per_hour": 7}, "spend_cap": "12.50"},
        )
    )
    msgspec.convert(organization, OrganizationObject)
    assert organization["limits"]["batches_per_hour"] == 7
    assert organization["limits"]["file_bytes"] is None
    assert organization["spend_cap"] == "12.50"
    project = made(
        admin.ask(
            "POST",
            "/v1/admin/projects",
            {"organization_id": organization["id"], "name": "evals"},
        )
    )
    msgspec.convert(project, ProjectObject)
    key = made(
        admin.ask(
            "POST",
            "/v1/admin/keys",
            {"project_id": project["id"], "name": "ci", "scopes": ["read"]},
        )
    )
    msgspec.convert(key, NewKeyObject)
    assert key["key"].endswith(key["hint"])
    reported = env.http_api.ask("GET", "/v1/whoami", None, {"x-api-key": key["key"]}).json
    assert (reported["project_id"], reported["scopes"]) == (project["id"], ["read"])

    listed = admin.ask("GET", "/v1/admin/organizations")
    msgspec.convert(listed.json, OrganizationList)
    assert {"org_default", organization["id"]} <= {each["id"] for each in listed.json["data"]}
    path = f"/v1/admin/projects?organization_id={organization['id']}"
    assert admin.ask("GET", path).json["data"] == [project]
    msgspec.convert(admin.ask("GET", path).json, ProjectList)
    keys = admin.ask("GET", f"/v1/admin/keys?project_id={project['id']}")
    msgspec.convert(keys.json, KeyList)
    (shown,) = keys.json["data"]
    assert shown["last_used_at"] is not None
    assert key["key"].encode() not in keys.body
    assert key["key"].rpartition("-")[2].encode() not in keys.body
    assert admin.ask("GET", f"/v1/admin/projects/{project['id']}").json == project
    assert admin.ask("GET", f"/v1/admin/organizations/{organization['id']}").json == organization


def test_a_change_leaves_what_it_does_not_name(admin: Tenant) -> None:
    path = f"/v1/admin/organizations/{admin.organization_id}"
    admin.ask("PATCH", path, {"limits": {"stored_bytes": 5, "file_bytes": 4}, "spend_cap": 3})
    changed = made(admin.ask("PATCH", path, {"limits": {"file_bytes": None}}))
    assert (changed["limits"]["stored_bytes"], changed["limits"]["file_bytes"]) == (5, None)
    assert changed["spend_cap"] == "3.00"
    assert made(admin.ask("PATCH", path, {"spend_cap": None}))["spend_cap"] is None


def test_a_changed_limit_holds_at_once_here(env: Env, admin: Tenant) -> None:
    tenant = env.tenant()
    assert tenant.upload(b"x" * 100).status == 200
    path = f"/v1/admin/organizations/{tenant.organization_id}"
    admin.ask("PATCH", path, {"limits": {"file_bytes": 50}})
    assert tenant.upload(b"x" * 100).status == 413


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "organizations", {}, 400, "invalid_request"),
        ("POST", "organizations", {"name": ""}, 400, "invalid_request"),
        ("POST", "organizations", {"name": "a\nb"}, 400, "invalid_request"),
        ("POST", "organizations", {"name": "a", "nmae": "b"}, 400, "unknown_parameter"),
        ("POST", "organizations", {"name": "a", "limits": {"nope": 1}}, 400, "invalid_request"),
        ("POST", "organizations", {"name": "a", "limits": {"file_bytes": -1}}, 400, None),
        ("POST", "organizations", {"name": "a", "spend_cap": "NaN"}, 400, "invalid_request"),
        ("POST", "organizations", {"name": "a", "spend_cap": -1}, 400, "invalid_request"),
        ("POST", "organizations", {"name": "a", "spend_cap": 1e30}, 400, "invalid_request"),
        ("GET", "organizations/org_x", None, 404, "organization_not_found"),
        ("PATCH", "organizations/org_x", {}, 404, "organization_not_found"),
        ("POST", "projects", {"organization_id": "x", "name": "a"}, 404, "organization_not_found"),
        ("GET", "projects/proj_x", None, 404, "project_not_found"),
        ("POST", "keys", {"project_id": "x", "name": "a"}, 404, "project_not_found"),
        ("POST", "keys", {"project_id": "proj_default"}, 400, "invalid_request"),
        (
            "POST",
            "keys",
            {"project_id": "proj_default", "name": "a", "scopes": ["root"]},
            400,
            "invalid_request",
        ),
        (
            "POST",
            "keys",
            {"project_id": "proj_default", "name": "a", "scopes": []},
            400,
            "invalid_request",
        ),
        (
            "POST",
            "keys",
            {"project_id": "proj_default", "name": "a", "expires_at": 1},
            400,
            "invalid_request",
        ),
        (
            "POST",
            "keys",
            {"project_id": "proj_default", "name": "a", "expires_at": 10**17},
            400,
            "invalid_request",
        ),
        ("DELETE", "keys/nope", None, 404, "key_not_found"),
        ("PUT", "keys", {}, 405, "method_not_allowed"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_code(
    admin: Tenant, method: str, path: str, body: Any, status: int, code: str | None
) -> None:
    answer = admin.ask(method, f"/v1/admin/{path}", body)
    assert (answer.status, answer.error["code"]) == (status, code or "invalid_request")


def test_a_key_may_expire_and_stays_in_the_list_when_revoked(env: Env, admin: Tenant) -> None:
    soon = int((env.http_api.clock.now() + timedelta(hours=1)).timestamp())
    body = {"project_id": admin.project_id, "name": "soon", "expires_at": soon}
    key = made(admin.ask("POST", "/v1/admin/keys", body))
    assert (key["expires_at"], key["scopes"]) == (soon, ["read", "submit"])
    first = made(admin.ask("DELETE", f"/v1/admin/keys/{key['id']}"))
    msgspec.convert(first, KeyObject)
    env.http_api.clock.shift = timedelta(seconds=30)
    assert admin.ask("DELETE", f"/v1/admin/keys/{key['id']}").json == first
    listed = admin.ask("GET", f"/v1/admin/keys?project_id={admin.project_id}").json["data"]
    assert {each["id"]: each["revoked_at"] is None for each in listed} == {
        admin.key_id: True,
        key["id"]: False,
    }


def test_the_document_has_every_admin_route_with_its_answers(env: Env) -> None:
    document = json.loads(env.http_api.ask("GET", "/openapi.json").body)
    routes = [
        route
        for route in create_app(env.http_api.services).routes
        if isinstance(route, Route) and route.path.startswith(("/v1/admin", "/v1/usage"))
    ]
    assert len(routes) >= 11
    for route in routes:
        for method in route.methods or ():
            path = route.path.replace(":path}", "}")
            operation = document["paths"][path][method.lower()]
            assert operation["responses"]["200"]["content"]["application/json"]["schema"]
            has_fields = method in ("POST", "PATCH") and not route.path.endswith("/resume")
            assert ("requestBody" in operation) == has_fields


def test_the_document_names_every_limit() -> None:
    assert set(LimitsObject.__struct_fields__) == set(OrganizationLimits.__struct_fields__)
