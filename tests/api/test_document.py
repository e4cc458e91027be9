"""The OpenAPI document has every route there is, with what it takes and what it may answer."""

import json
import re
from typing import Any

import pytest
from api_server import ApiServer
from starlette.routing import Route

from lowtide.api.app import create_app, openapi_document
from lowtide.api.http.errors import STATUS_OF
from lowtide.api.http.lazy_routes import LazyRoutes

PUBLIC = {
    "/health",
    "/ready",
    "/v1/uploads/signed/{file_id}",
    "/v1/uploads/signed/{upload_id}/parts/{number}",
}
Json = dict[str, Any]


@pytest.fixture
def document(http_api: ApiServer) -> Json:
    return dict(json.loads(http_api.ask("GET", "/openapi.json").body))


def served(http_api: ApiServer) -> set[tuple[str, str]]:
    """Paths and methods that the API answers; HEAD only where it is named with GET. The console's
    are pages for people.
    """
    found = set()
    for route in create_app(http_api.services).routes:
        if isinstance(route, LazyRoutes):
            continue
        assert isinstance(route, Route)
        path = route.path.replace(":path}", "}")
        methods = route.methods or set()
        found |= {(path, m) for m in methods if m != "HEAD" or "/content" in path}
    return found - {("/openapi.json", "GET")}


def test_the_document_has_every_route_and_no_other(http_api: ApiServer, document: Json) -> None:
    described = {
        (path, method.upper()) for path, row in document["paths"].items() for method in row
    }
    assert described == served(http_api)
    assert len(described) >= 36


def test_every_parameter_of_a_path_is_described_once(document: Json) -> None:
    for path, row in document["paths"].items():
        named = {step[1:-1] for step in path.split("/") if step.startswith("{")}
        for method, operation in row.items():
            parameters = operation.get("parameters", [])
            in_path = [each["name"] for each in parameters if each["in"] == "path"]
            assert sorted(in_path) == sorted(named), (method, path)


def test_whatever_has_an_address_may_not_be_found(document: Json) -> None:
    """One with a NUL in it is nobody's, whatever the route does with others."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert "404" in operation["responses"], f"{method} {path}"


def test_every_refusal_is_the_envelope_and_says_its_codes(document: Json) -> None:
    codes: dict[int, set[str]] = {status: set() for status in STATUS_OF.values()}
    for code, status in STATUS_OF.items():
        codes[status].add(f"`{code}`")
    for path, row in document["paths"].items():
        for operation in row.values():
            answers = operation["responses"]
            for status in (int(s) for s in answers if s.isdigit() and int(s) >= 400):
                answer = answers[str(status)]
                assert answer["content"]["application/json"]["schema"] == {
                    "$ref": "#/components/schemas/ErrorEnvelope"
                }
                reported = set(answer["description"].split(", "))
                assert status in (414, 431) or (reported and reported <= codes[status]), (
                    path,
                    status,
                )


def test_whatever_needs_a_key_may_refuse_for_want_of_it(document: Json) -> None:
    for path, row in document["paths"].items():
        for operation in row.values():
            assert ({"401", "403"} <= operation["responses"].keys()) == (path not in PUBLIC), path


def test_whatever_writes_may_find_the_disk_full(document: Json) -> None:
    """But for the signed address, whose answers are never a 5xx, and what keeps nothing."""
    keeps_nothing = ("chat", "completions", "embeddings", "responses", "preprocess", "/test")
    for path, row in document["paths"].items():
        if path in PUBLIC or path.endswith(keeps_nothing):
            continue
        for method, operation in row.items():
            full = "507" in operation["responses"]
            assert full == (method in ("post", "patch", "delete", "put")), (method, path)


def test_every_success_has_a_schema(document: Json) -> None:
    """But a redirection, and live answers, which are the engine's."""
    for path, row in document["paths"].items():
        for method, operation in row.items():
            for status, answer in operation["responses"].items():
                if status.startswith("2"):
                    assert all(c["schema"] for c in answer["content"].values()), (method, path)


def test_what_is_sent_as_json_is_described_field_by_field(document: Json) -> None:
    names = document["components"]["schemas"].keys()
    assert {"BatchObject", "BatchJob", "FileObject", "TogetherFile", "ErrorEnvelope"} <= names
    batch = document["components"]["schemas"]["BatchObject"]
    assert "errors_total" in batch["properties"] and "errors_total" not in batch["required"]
    assert set(batch["properties"]) - set(batch["required"]) == {"errors_total"}


def test_every_reference_leads_to_a_schema(document: Json) -> None:
    named = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(document)))
    assert named == document["components"]["schemas"].keys()


def test_the_document_is_one_whatever_the_settings(document: Json) -> None:
    assert document == json.loads(json.dumps(openapi_document()))
