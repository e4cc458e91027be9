"""Every spelling of a path that clients are known to send."""

import pytest
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from lowtide.api.middleware.paths import (
    PathMiddleware,
    canonical_path,
    client_dialect,
    dialect_of,
    fixed_dialect,
)
from lowtide.core.batches.batch import Dialect


@pytest.mark.parametrize(
    ("asked", "path", "fixed"),
    [
        ("/v1/files", "/v1/files", None),
        ("/files", "/v1/files", None),
        ("/files/file-1/content", "/v1/files/file-1/content", None),
        ("/batches/b/cancel", "/v1/batches/b/cancel", None),
        ("/models", "/v1/models", None),
        ("/v1/v1/batches", "/v1/batches", None),
        ("/v1/v1/v1/batches", "/v1/batches", None),
        ("/together/v1/files", "/v1/files", "together"),
        ("/together/v1/v1/files", "/v1/files", "together"),
        ("/together/files", "/v1/files", "together"),
        ("/openai/v1/files/", "/v1/files", "openai"),
        ("/whoami", "/v1/whoami", None),
        ("/v3/whoami", "/v1/whoami", None),
        ("/v1/v3/whoami", "/v1/whoami", None),
        ("/together/v3/whoami", "/v1/whoami", "together"),
        ("//v1//files//", "/v1/files", None),
        ("/", "/", None),
        ("/health", "/health", None),
        ("/together", "/together", None),
        ("/filesystem", "/filesystem", None),
        ("/v1/models/org/m-1", "/v1/models/org/m-1", None),
        ("/v2/projects/p/models", "/v2/projects/p/models", None),
    ],
)
def test_each_spelling_of_a_path_has_one_route(asked: str, path: str, fixed: str | None) -> None:
    assert canonical_path(asked) == (path, fixed)
    assert canonical_path(path) == (path, None), "and what a route has is left alone"


def request(fixed: Dialect | None = None, **headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "headers": raw, "state": {"fixed_dialect": fixed}})


def test_a_mount_decides_before_the_client_and_before_the_object() -> None:
    asked = request("openai", user_agent="Together/Python 3.1.1")
    assert fixed_dialect(asked) == "openai"
    assert client_dialect(asked) == "openai"
    assert dialect_of(asked, "together") == "openai"


def test_on_the_shared_path_an_object_keeps_the_shape_it_was_made_in() -> None:
    asked = request(user_agent="Together/Python 3.1.1")
    assert client_dialect(asked) == "together"
    assert dialect_of(asked, "openai") == "openai"


async def refused(path: str) -> bool:
    reached: list[Scope] = []
    answered: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        reached.append(scope)

    async def send(message: object) -> None:
        answered.append(message)

    await PathMiddleware(app)({"type": "http", "path": path, "headers": []}, None, send)  # type: ignore[arg-type]
    assert bool(reached) is not bool(answered)
    return not reached


@pytest.mark.parametrize("base", ["", "/v1", "/together/v1", "/v1/v1"])
async def test_an_address_glued_to_a_base_is_refused(base: str) -> None:
    for scheme in ("http", "https"):
        assert await refused(f"{base}/{scheme}://host/v1/uploads/signed/file-1")
        assert await refused(f"{base}/{scheme}:/host/v1/uploads/signed/file-1")


@pytest.mark.parametrize("path", ["/v1/files", "/v1/models/http:x", "/v1/files/https"])
async def test_other_paths_are_let_through(path: str) -> None:
    assert not await refused(path)
