"""How a route is declared: what serves it, and what the document says of it, in one place.

Each module of routes has a `Routes`. Handlers take the request and the parameters of their path by
name. Invariant: a route answers the one method that it names.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import wraps
from typing import Any, Final, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lowtide.api.http.json_body import as_struct
from lowtide.api.openapi.answers import Responses
from lowtide.api.openapi.schemas import Schema

Handler = Callable[..., Awaitable[Response]]
Parameters = type[msgspec.Struct] | Sequence[Schema]
"""What a route takes beside the parameters of its path: the struct of its query, or each one."""
_Query = TypeVar("_Query", bound=msgspec.Struct)


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """What the document says of one method of one path; `extra` are further keys of it."""

    method: str
    path: str
    tag: str
    summary: str
    description: str = ""
    responses: Responses
    parameters: Parameters = ()
    extra: Mapping[str, Any] = {}


class Routes:
    """Routes of one tag, in the order in which they are tried."""

    def __init__(self, tag: str, prefix: str = "") -> None:
        self.served: Final[list[Route]] = []
        self.operations: Final[list[Operation]] = []
        self._tag = tag
        self._prefix = prefix

    def add(
        self,
        method: str,
        path: str,
        responses: Responses,
        *,
        parameters: Parameters = (),
        **extra: Any,
    ) -> Callable[[Handler], Handler]:
        """Declares the decorated handler. `parameters` are those beside the path's own."""
        whole = self._prefix + path

        def declare(handler: Handler) -> Handler:
            route = Route(whole, _endpoint(handler, whole), methods=[method], name=handler.__name__)
            route.methods = {method}  # Starlette adds HEAD to GET
            self.served.append(route)
            operation = Operation(
                method=method,
                path=whole.replace(":path}", "}"),
                tag=self._tag,
                summary=handler.__name__.replace("_", " ").capitalize(),
                description=" ".join((handler.__doc__ or "").split()),
                responses=responses,
                parameters=parameters,
                extra=extra,
            )
            self.operations.append(operation)
            return handler

        return declare


def _endpoint(handler: Handler, path: str) -> Handler:
    """The handler as Starlette calls it, with the request alone."""
    if "{" not in path:
        return handler

    @wraps(handler)  # the audit log names it
    async def endpoint(request: Request) -> Response:
        return await handler(request, **request.path_params)

    return endpoint


def read_query(request: Request, kind: type[_Query]) -> _Query:
    """The query as a struct; what it does not name is passed over. Raises LowtideError."""
    return as_struct(dict(request.query_params), kind, strict=False)
