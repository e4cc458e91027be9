"""The OpenAPI document of the whole HTTP API.

Routes are described where they are declared (routes.py); live calls are plain ASGI and described
here. Guards: a test holds the document and the application to the same paths and methods, so a
route without a description does not count as documented.
"""

import pkgutil
import re
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any, Final

import msgspec

from lowtide.api import objects
from lowtide.api.live import live
from lowtide.api.openapi.answers import JSON, TEXT, DescribedAnswer, json_body, refusals
from lowtide.api.openapi.routes import Operation, Parameters
from lowtide.api.openapi.schemas import Schema, components, parameters_of, schema_of
from lowtide.core.errors import ErrorCode

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
_REFERENCE: Final = re.compile(r"#/components/schemas/(\w+)")
_PROMPTS: Final[Mapping[str, dict[str, Any]]] = {
    "/v1/chat/completions": {"messages": {"type": "array", "items": {"type": "object"}}},
    "/v1/completions": {"prompt": {"type": ["string", "array"]}},
    "/v1/embeddings": {"input": {"type": ["string", "array"]}},
    "/v1/responses": {"input": {"type": ["string", "array"]}},
}


def document(version: str, operations: Iterable[Operation]) -> dict[str, Any]:
    """The OpenAPI document of these operations and those of `PLAIN`."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in sorted((*operations, *PLAIN), key=lambda o: (o.path, o.method)):
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Lowtide", "version": version},
        "paths": paths,
        "components": {
            "schemas": _referenced(paths, components(_kinds())),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}, {}],  # {}: open mode asks for none
    }


def _described(operation: Operation) -> dict[str, Any]:
    """One method of one path."""
    steps = (step for step in operation.path.split("/") if step.startswith("{"))
    named = [{"name": step[1:-1], "in": "path", "required": True, "schema": TEXT} for step in steps]
    words = re.findall(r"[a-z0-9]+", operation.path)
    return {
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": operation.description,
        "operationId": "_".join([operation.method.lower(), *words]),
        "parameters": [*named, *_parameters(operation.parameters)],
        "responses": {str(status): _answer(each) for status, each in operation.responses.items()},
        **operation.extra,
    }


def _parameters(parameters: Parameters) -> Iterable[Schema]:
    return parameters_of(parameters) if isinstance(parameters, type) else parameters


def _answer(answer: DescribedAnswer) -> dict[str, Any]:
    described: dict[str, Any] = {"description": answer.text}
    if answer.content:
        described["content"] = {
            media_type: {"schema": held if isinstance(held, Mapping) else schema_of(held)}
            for media_type, held in answer.content.items()
        }
    return described


def _kinds() -> list[type[msgspec.Struct]]:
    """All objects that answers are made of."""
    names = [f"{objects.__name__}.{each.name}" for each in pkgutil.iter_modules(objects.__path__)]
    return [
        kind
        for name in names
        for kind in vars(import_module(name)).values()
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct)
    ]


def _referenced(paths: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """The known schemas that the paths refer to, directly or through other schemas."""
    referenced: dict[str, Any] = {}
    left: list[Any] = [paths]
    while left:
        names = set(_REFERENCE.findall(msgspec.json.encode(left.pop()).decode()))
        for name in sorted(names - referenced.keys()):
            referenced[name] = known[name]
            left.append(known[name])
    return referenced


def _live_call(path: str) -> Operation:
    answers = {
        200: DescribedAnswer(
            "The engine's answer", {JSON: {"type": "object"}, "text/event-stream": TEXT}
        ),
        **refusals(*_LIVE_CODES),
        "4XX": DescribedAnswer("The engine's own refusal, in the envelope"),
        "5XX": DescribedAnswer("The engine's own failure, in the envelope"),
    }
    fields = {"model": TEXT, "stream": {"type": "boolean"}, **_PROMPTS[path]}
    fields["service_tier"] = {"type": "string", "description": "flex: at the price of a batch"}
    if path == "/v1/responses":
        fields["background"] = {"type": "boolean", "description": "To be retrieved, by its id"}
    schema = {"type": "object", "properties": fields, "required": ["model", *_PROMPTS[path]]}
    return Operation(
        method="POST",
        path=path,
        tag=path.split("/")[2],
        summary="An interactive call",
        responses=answers,
        extra={"requestBody": json_body(schema)},
    )


PLAIN: Final = tuple(_live_call(path) for path in live.PATHS)
