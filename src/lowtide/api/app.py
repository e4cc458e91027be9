"""The ASGI application: every noun's routes, behind the middlewares that shape path and answer."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import cache, partial
from typing import Any, Final

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lowtide import limits
from lowtide.api import metrics, models
from lowtide.api.accounts import admin, usage, whoami
from lowtide.api.accounts import limits as limit_routes
from lowtide.api.batches import batches, costs, history, lines, retries, steering
from lowtide.api.console.session_guard import SessionGuard
from lowtide.api.files import files, multipart_uploads, upload_parts
from lowtide.api.http import errors
from lowtide.api.http.json_body import json_response
from lowtide.api.http.lazy_routes import LazyRoutes
from lowtide.api.live import live, responses
from lowtide.api.middleware.auth import AuthMiddleware
from lowtide.api.middleware.caller import services_of
from lowtide.api.middleware.console_paths import HOME, ROOT
from lowtide.api.middleware.cors import CorsMiddleware
from lowtide.api.middleware.local_callers import LocalCallersOnly
from lowtide.api.middleware.paths import PathMiddleware
from lowtide.api.middleware.request_id import RequestIdMiddleware
from lowtide.api.objects.errors import StatusObject
from lowtide.api.openapi.answers import answer, public_refusals
from lowtide.api.openapi.routes import Routes
from lowtide.api.replicas import engine_history, engines, forecast, scale
from lowtide.api.webhooks import webhooks
from lowtide.core.scheduling.byte_budget import ByteBudget
from lowtide.service.services import Services
from lowtide.version import VERSION

probes = Routes("probes")


@probes.add("GET", "/health", {200: answer(StatusObject), **public_refusals()})
async def health(_: Request) -> Response:
    """The process answers: a server that does not should be restarted. Whether it can work is what
    `/ready` tells; whether engines answer is the business of the metrics."""
    return json_response(StatusObject("ok"))


@probes.add(
    "GET",
    "/ready",
    {
        200: answer(StatusObject),
        **public_refusals("storage_unavailable", "server_stopping"),
    },
)
async def ready(request: Request) -> Response:
    """Database and object store answer, and the server is not stopping: send it requests."""
    await services_of(request).readiness.check()
    return json_response(StatusObject("ready"))


NOUNS: Final = (
    files.routes,
    upload_parts.routes,
    multipart_uploads.routes,
    batches.routes,
    retries.routes,
    lines.routes,
    costs.routes,
    history.routes,
    steering.routes,
    steering.admin_routes,
    responses.routes,
    models.routes,
    usage.routes,
    whoami.routes,
    limit_routes.routes,
    webhooks.routes,
    admin.routes,
    engines.routes,
    engine_history.routes,
    forecast.routes,
    scale.routes,
    metrics.routes,
    probes,
)


def create_app(services: Services | None) -> Starlette:
    """The HTTP API over one set of services. Serve it with `api.server.uvicorn_config`.

    Without services it only describes itself.
    """
    prefix = "" if services is None else services.settings.server.path_prefix
    middleware = [
        Middleware(PathMiddleware, prefix=prefix),
        Middleware(SessionGuard, prefix=prefix),
        Middleware(AuthMiddleware),
    ]
    if services is not None and services.settings.auth.mode == "open":
        middleware.insert(0, Middleware(LocalCallersOnly, server=services.settings.server))
    middleware.insert(0, Middleware(RequestIdMiddleware))
    if services is not None and services.settings.server.allowed_origins:
        origins = services.settings.server.allowed_origins
        middleware.insert(0, Middleware(CorsMiddleware, origins=origins))
    # Live calls first: each route before them costs one time.
    routes: list[BaseRoute] = [*live.ROUTES, *(route for noun in NOUNS for route in noun.served)]
    for path, probe in (("/health", health), ("/ready", ready), ("/metrics", metrics.metrics)):
        # What probes of balancers ask with; not in the document, where it would say nothing new.
        routes.append(Route(path, probe, methods=["HEAD"]))
    routes.append(_get("/openapi.json", openapi))
    app = Starlette(
        routes=routes, middleware=middleware, exception_handlers=errors.exception_handlers()
    )
    app.router.redirect_slashes = False  # a redirected POST loses its body; paths.py takes it away
    app.state.services = services
    app.state.json_bodies = ByteBudget(limits.JSON_BODIES_BYTES_MAX)
    app.state.console_streams = ByteBudget(limits.CONSOLE_STREAMS_MAX)
    app.state.downloads = ByteBudget(limits.DOWNLOADS_MAX)
    app.router.routes.append(LazyRoutes(_is_console, partial(_console_routes, app)))
    return app


def _is_console(path: str) -> bool:
    return path in (HOME, ROOT) or path.startswith(f"{ROOT}/")


def _console_routes(app: Starlette) -> Sequence[Route]:
    from lowtide.api.console import pages, shared_looks  # see LazyRoutes

    app.state.console_looks = shared_looks.SharedLooks()
    return pages.load_routes()


@cache
def openapi_document() -> dict[str, Any]:
    """The OpenAPI document, which is the same for every application: no setting adds a route."""
    from lowtide.api.openapi.document import document  # few servers are asked for it

    return document(VERSION, [each for noun in NOUNS for each in noun.operations])


async def openapi(_: Request) -> Response:
    """`GET /openapi.json`, made when it is asked for the first time: a tenth of a second of work,
    and so in a thread.
    """
    return json_response(await asyncio.to_thread(openapi_document))


def _get(path: str, endpoint: Callable[[Request], Awaitable[Response]]) -> Route:
    route = Route(path, endpoint, methods=["GET"])
    route.methods = {"GET"}
    return route
