"""The OpenAPI document of the whole door.

FastAPI describes its own routes; the hot paths (uploads, downloads, live calls) are plain Starlette
routes that it does not see, and are described here. Guards: a test holds the two to the same paths,
methods and statuses, so a route that nobody described does not pass for documented.
"""

from collections.abc import Mapping
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.responses import Response

from lowtide.api.live import live
from lowtide.api.openapi.refusals import json_body, public_refusals, refusals
from lowtide.core.errors import ErrorCode
from lowtide.core.files.file import PURPOSES

_UPLOAD_CODES: Final[tuple[ErrorCode, ...]] = (
    "invalid_request",
    "missing_required_parameter",
    "invalid_purpose",
    "upload_busy",
    "upload_interrupted",
    "file_too_large",
    "request_too_large",
    "storage_limit_exceeded",
    "storage_full",
)
_DOWNLOAD_CODES: Final[tuple[ErrorCode, ...]] = (
    "invalid_request",
    "file_not_ready",
    "file_not_found",
    "file_lost",
    "offset_expired",
    "range_not_satisfiable",
)
_LIVE_CODES: Final[tuple[ErrorCode, ...]] = (
    "invalid_request",
    "missing_required_parameter",
    "upload_busy",
    "upload_interrupted",
    "model_not_found",
    "request_too_large",
    "rate_limit_exceeded",
    "engine_error",
    "engine_timeout",
    "model_unavailable",
    "resource_unavailable",  # these four: calls that ask for the batch queue
    "server_stopping",
    "storage_limit_exceeded",
    "storage_full",
)
_TEXT: Final = {"type": "string"}
_BYTES: Final = {"type": "string", "format": "binary"}
_FORM: Final = {
    "file": _BYTES,
    "purpose": {"enum": sorted(PURPOSES)},
    "file_name": _TEXT,
    "file_type": _TEXT,
    "expires_after[anchor]": {"const": "created_at"},
    "expires_after[seconds]": {"type": "integer"},
}
_ANNOUNCEMENT: Final = {name: _FORM[name] for name in ("purpose", "file_name", "file_type")}
_PROMPTS: Final[Mapping[str, dict[str, Any]]] = {
    "/v1/chat/completions": {"messages": {"type": "array", "items": {"type": "object"}}},
    "/v1/completions": {"prompt": {"type": ["string", "array"]}},
    "/v1/embeddings": {"input": {"type": ["string", "array"]}},
    "/v1/responses": {"input": {"type": ["string", "array"]}},
}


class DocumentedApp(FastAPI):
    """FastAPI whose document has the plain routes, and only statuses that are answered."""

    def openapi(self) -> dict[str, Any]:
        """Made once."""
        if not self.openapi_schema:
            routes = [*self.router.routes, *PLAIN_ROUTES]
            document = get_openapi(title=self.title, version=self.version, routes=routes)
            _without_defaults(document)
            document["components"]["securitySchemes"] = {
                "key": {"type": "http", "scheme": "bearer"}
            }
            document["security"] = [{"key": []}, {}]  # {}: open mode asks for none
            self.openapi_schema = document
        return self.openapi_schema


def _without_defaults(document: dict[str, Any]) -> None:
    """Take out FastAPI's 422: here a wrong parameter is a 400 (`errors.install`)."""
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)


def _described(
    path: str,
    method: str,
    summary: str,
    responses: dict[int | str, dict[str, Any]],
    **extra: Any,
) -> APIRoute:
    """A route for the document alone: nothing ever calls it."""

    async def stand_in() -> Response:
        raise AssertionError(f"{path} is served by a plain route")

    named = [step[1:-1] for step in path.split("/") if step.startswith("{")]
    parameters = [{"name": name, "in": "path", "required": True, "schema": _TEXT} for name in named]
    return APIRoute(
        path,
        stand_in,
        methods=[method],
        name=f"{method.lower()}{path}",
        summary=summary,
        tags=[path.split("/")[2]],
        responses=responses,
        response_class=Response,
        openapi_extra={**extra, "parameters": [*parameters, *extra.get("parameters", [])]},
    )


def _query(*names: str) -> list[dict[str, Any]]:
    return [{"name": name, "in": "query", "schema": _TEXT} for name in names]


def _form_body() -> dict[str, Any]:
    forms = {
        "multipart/form-data": {"schema": {"type": "object", "properties": _FORM}},
        "application/x-www-form-urlencoded": {
            "schema": {"type": "object", "properties": _ANNOUNCEMENT}
        },
    }
    return {"required": True, "content": forms}


def _ok(media_type: str, schema: Mapping[str, Any], text: str = "Success") -> dict[str, Any]:
    return {"description": text, "content": {media_type: {"schema": dict(schema)}}}


def _upload(path: str) -> APIRoute:
    return _described(
        path,
        "POST",
        "Upload a file, or announce one",
        {
            200: _ok("application/json", {"type": "object"}, "The file, with its bytes"),
            302: {"description": "Announced: PUT the bytes to `Location`"},
            **refusals(*_UPLOAD_CODES),
        },
        requestBody=_form_body(),
        parameters=_query("purpose", "file_name", "checksum"),
    )


def _download(method: str) -> APIRoute:
    content = "application/octet-stream"
    return _described(
        "/v1/files/{file_id}/content",
        method,
        "The bytes of a file, whole, in part, or as far as they are there",
        {
            200: _ok(content, _BYTES),
            206: _ok(content, _BYTES, "The range that was asked for"),
            **refusals(*_DOWNLOAD_CODES),
        },
        parameters=[
            *_query("offset"),
            *({"name": n, "in": "header", "schema": _TEXT} for n in ("Range", "If-Range")),
        ],
    )


def _signed_upload() -> APIRoute:
    """Never a 5xx: see `uploads.receive_signed`."""
    return _described(
        "/v1/uploads/signed/{file_id}",
        "PUT",
        "The bytes of an announced file; the signature is the permission",
        {
            200: _ok("application/json", {"type": "object"}),
            **public_refusals(
                "invalid_request",
                "upload_busy",
                "upload_interrupted",
                "upload_invalid",
                "upload_expired",
                "file_too_large",
                "storage_limit_exceeded",
            ),
        },
        requestBody={"required": True, "content": {"application/octet-stream": {"schema": _BYTES}}},
        parameters=_query("expires", "signature", "checksum", "key"),
    )


def _live_call(path: str) -> APIRoute:
    answers = {
        200: _ok("application/json", {"type": "object"}, "The engine's answer"),
        **refusals(*_LIVE_CODES),
        "4XX": {"description": "The engine's own refusal, in the envelope"},
        "5XX": {"description": "The engine's own failure, in the envelope"},
    }
    answers[200]["content"]["text/event-stream"] = {"schema": _TEXT}
    fields = {"model": _TEXT, "stream": {"type": "boolean"}, **_PROMPTS[path]}
    fields["service_tier"] = {"type": "string", "description": "flex: at the price of a batch"}
    if path == "/v1/responses":
        fields["background"] = {"type": "boolean", "description": "To be retrieved, by its id"}
    schema = {"type": "object", "properties": fields, "required": ["model", *_PROMPTS[path]]}
    return _described(path, "POST", "An interactive call", answers, **json_body(schema))


PLAIN_ROUTES: Final = (
    *(_live_call(path) for path in live.PATHS),
    _upload("/v1/files"),
    _upload("/v1/files/upload"),
    _download("GET"),
    _download("HEAD"),
    _signed_upload(),
)
