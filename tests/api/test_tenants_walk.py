"""Another tenant's ids, in every route, in every dialect: unknown ids, and nothing more.

Walks the routes of the application, so a route that somebody adds is walked too, or fails the test
that asks for a tenant's value for each of its parameters.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from api_server import routes_of
from tenant_env import CHAT, Env, Tenant, line, open_house

MOUNTS: Final = ("", "/openai", "/together")
UNKNOWN: Final = "unknown-0"
SHARED: Final = {
    "/v1/models/{name:path}",
    "/v1/admin/engines/{name:path}/history",
    "/v1/admin/scale/{model:path}",
    "/console/static/{name}",
}
"""Routes whose parameter names what all tenants share."""
PAGES: Final = "/console/"
"""They take a session, never a key: test_console.py and test_console_actions.py try their ids."""

BODIES: Final[dict[str, tuple[bytes, str]]] = {
    "/v1/files": (b"purpose=batch-api&file_name=x.jsonl", "application/x-www-form-urlencoded"),
    "/v1/files/upload": (
        b"purpose=batch-api&file_name=x.jsonl",
        "application/x-www-form-urlencoded",
    ),
}


@dataclass
class Neighbours:
    """Two tenants. `theirs`: by path parameter, every id that the first one has."""

    env: Env
    owner: Tenant
    other: Tenant
    theirs: dict[str, list[str]]

    @property
    def secrets(self) -> list[bytes]:
        """What must stand in no answer to the other tenant."""
        ids = [name for names in self.theirs.values() for name in names]
        return [text.encode() for text in (*ids, self.owner.key, "Owner Limited", "in.jsonl")]


@pytest.fixture(scope="module")
def neighbours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Neighbours]:
    folder: Path = tmp_path_factory.mktemp("walk")
    with open_house(folder) as env:
        owner, other = env.tenant("Owner Limited"), env.tenant("Other Limited")
        ended, running = env.ended_batch(owner), env.running_batch(owner)
        run = env.http_api.run
        run(owner.worker.lease(running.id, ["m"]))
        run(owner.worker.settle(running.id, ok=[1]))
        running = run(env.http_api.services.batches.get(owner.project_id, running.id))
        assert running.output_file_id
        pending = owner.ask(
            "POST", "/v1/files", BODIES["/v1/files"][0], content_type=BODIES["/v1/files"][1]
        ).headers["x-together-file-id"]
        background = {"model": "m", "input": "hello", "background": True}
        upload = {"bytes": 9, "filename": "in.jsonl", "mime_type": "x", "purpose": "batch"}
        webhook = owner.ask("POST", "/v1/webhooks", {"url": "https://93.184.216.34/"}).json["id"]
        files = [ended.input_file_id, ended.output_file_id, ended.error_file_id]
        theirs = {
            "file_id": [*files, running.output_file_id, pending],
            "batch_id": [ended.id, running.id],
            "response_id": [owner.ask("POST", "/v1/responses", background).json["id"]],
            "upload_id": [owner.ask("POST", "/v1/uploads", upload).json["id"]],
            "project_id": [owner.project_id],
            "organization_id": [owner.organization_id],
            "key_id": [owner.key_id],
            "webhook_id": [webhook],
        }
        yield Neighbours(env, owner, other, theirs)


def routes(neighbours: Neighbours) -> Iterator[tuple[str, str]]:
    """Every method and path of the application."""
    for route in routes_of(neighbours.env.http_api.services):
        for method in sorted(route.methods or {"GET"}):
            yield method, route.path


def walk(neighbours: Neighbours) -> Iterator[tuple[str, str, str, str]]:
    """Method, template, parameter and one of the owner's ids, for every route that takes one."""
    for method, path in routes(neighbours):
        names = [name for name in re.findall(r"\{(\w+)", path) if name != "number"]
        if not names or path in SHARED or path.startswith(PAGES):
            continue
        assert len(names) == 1, f"{path}: this walk fills one parameter"
        assert names[0] in neighbours.theirs, f"{path}: which ids of a tenant stand here?"
        for theirs in neighbours.theirs[names[0]]:
            yield method, path, names[0], theirs


def test_the_owner_sees_what_the_walk_asks_for(neighbours: Neighbours) -> None:
    """Else the walk would prove nothing. 400: the bytes of an announced file are still to come;
    409: a batch that runs has no results in input order yet."""
    for method, path, _, theirs in walk(neighbours):
        if method == "GET" and not path.startswith("/v1/admin"):
            assert neighbours.owner.ask(method, fill(path, theirs)).status in (200, 400, 409), path


def test_another_tenants_id_is_an_unknown_id_on_every_route(neighbours: Neighbours) -> None:
    walked, document = 0, neighbours.env.http_api.ask("GET", "/openapi.json").json
    for method, path, _, theirs in walk(neighbours):
        for mount in MOUNTS:
            asked = neighbours.other.ask(method, mount + fill(path, theirs))
            unknown = neighbours.other.ask(method, mount + fill(path, UNKNOWN))
            where = (method, mount + path, asked.status)
            if path.startswith(("/v1/admin", "/v1/uploads/signed")):
                assert asked.status == 403, where
            else:
                assert asked.status == 404, where
            assert asked.status == unknown.status, where
            assert asked.body.replace(theirs.encode(), UNKNOWN.encode()) == unknown.body, where
            if (operation := document["paths"].get(path, {}).get(method.lower())) is not None:
                assert str(asked.status) in operation["responses"], where
            walked += 1
    assert walked >= 100


def test_what_names_no_id_shows_nothing_of_another_tenant(neighbours: Neighbours) -> None:
    for method, path in routes(neighbours):
        if "{" in path:
            continue
        body, kind = BODIES.get(path, (b"{}", "application/json"))
        for mount in MOUNTS:
            address = mount + fill(path, "x")
            answer = neighbours.other.ask(
                method, address, body if method == "POST" else None, content_type=kind
            )
            assert answer.status < 500, (method, address)
            for secret in neighbours.secrets:
                assert secret not in answer.body, (method, address, secret)
                assert all(secret.decode() not in value for value in answer.headers.values())


@pytest.mark.parametrize("agent", ["OpenAI/Python 3", "Together/Python 2"])
def test_lists_and_sums_of_another_tenant_are_empty(neighbours: Neighbours, agent: str) -> None:
    fresh = neighbours.env.tenant("Fresh Limited")
    for path in (
        *("/v1/files", "/v1/batches", "/v1/webhooks"),
        *("/v1/usage", "/v1/usage?group_by=project"),
    ):
        listed = fresh.ask("GET", path, user_agent=agent).json
        assert (listed if isinstance(listed, list) else listed["data"]) == []
    assert fresh.ask("GET", "/v1/usage").json["total"]["amount"] == "0.00"
    assert neighbours.owner.ask("GET", "/v1/usage").json["total"]["requests"] == 3


@pytest.mark.parametrize(("path", "kind"), [("/v1/files", "file_id"), ("/v1/batches", "batch_id")])
def test_a_cursor_of_another_tenant_is_an_unknown_cursor(
    neighbours: Neighbours, path: str, kind: str
) -> None:
    for theirs in neighbours.theirs[kind]:
        asked = neighbours.other.ask("GET", f"{path}?after={theirs}")
        unknown = neighbours.other.ask("GET", f"{path}?after={UNKNOWN}")
        assert asked.status == unknown.status
        assert asked.body.replace(theirs.encode(), UNKNOWN.encode()) == unknown.body


@pytest.mark.parametrize("more", [{}, {"dry_run": True}])
def test_a_batch_cannot_read_another_tenants_file(
    neighbours: Neighbours, more: dict[str, Any]
) -> None:
    for theirs in neighbours.theirs["file_id"]:
        answers = [
            neighbours.other.ask(
                "POST", "/v1/batches", {"input_file_id": file_id, "endpoint": CHAT, **more}
            )
            for file_id in (theirs, UNKNOWN)
        ]
        assert [answer.status for answer in answers] == [404, 404]
        assert answers[0].body.replace(theirs.encode(), UNKNOWN.encode()) == answers[1].body


def test_usage_of_another_project_is_that_of_an_unknown_one(neighbours: Neighbours) -> None:
    theirs, ask = neighbours.owner.project_id, neighbours.other.ask
    asked = ask("GET", f"/v1/usage?project_id={theirs}")
    unknown = ask("GET", f"/v1/usage?project_id={UNKNOWN}")
    assert (asked.status, unknown.status) == (404, 404)
    assert asked.body.replace(theirs.encode(), UNKNOWN.encode()) == unknown.body
    refused = ask("GET", f"/v1/usage?organization_id={neighbours.owner.organization_id}")
    assert (refused.status, refused.error["code"]) == (403, "insufficient_scope")


def test_another_key_of_the_project_sees_all_of_it(neighbours: Neighbours) -> None:
    env, owner = neighbours.env, neighbours.owner
    made = env.http_api.run(env.http_api.services.tenants.create_key(owner.project_id, "second"))
    second = Tenant(
        env, owner.organization_id, owner.project_id, made.key.id, made.credential, owner.worker
    )
    assert second.ask("GET", "/v1/files").body == owner.ask("GET", "/v1/files").body
    assert second.upload(line()).status == 200


def fill(path: str, value: str) -> str:
    return re.sub(r"\{[^}]+\}", value, path.replace("{number}", "1"))
