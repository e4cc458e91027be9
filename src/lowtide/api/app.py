"""The ASGI application: every noun's routes, behind the middlewares that shape path and answer."""

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from lowtide import __version__, limits
from lowtide.api import metrics, models
from lowtide.api.accounts import admin, usage, whoami
from lowtide.api.batches import batches
from lowtide.api.files import files, multipart_uploads, upload_parts
from lowtide.api.http import errors
from lowtide.api.http.json_body import json_response
from lowtide.api.live import live, responses
from lowtide.api.middleware.auth import AuthMiddleware
from lowtide.api.middleware.caller import services_of
from lowtide.api.middleware.cors import CorsMiddleware
from lowtide.api.middleware.local_callers import LocalCallersOnly
from lowtide.api.middleware.paths import PathMiddleware
from lowtide.api.middleware.request_id import RequestIdMiddleware
from lowtide.api.openapi.document import DocumentedApp
from lowtide.api.openapi.refusals import public_refusals
from lowtide.core.scheduling.byte_budget import ByteBudget
from lowtide.service.services import Services


def create_app(services: Services | None) -> FastAPI:
    """The door for one set of verbs. Serve it with `api.server.uvicorn_config`.

    Without verbs it only describes itself.
    """
    app = DocumentedApp(
        title="Lowtide",
        version=__version__,
        docs_url=None,  # these two pages load scripts from the internet
        redoc_url=None,
        redirect_slashes=False,  # a redirected POST loses its body; `mounts` takes the slash away
    )
    app.state.services = services
    app.state.json_bodies = ByteBudget(limits.JSON_BODIES_BYTES_MAX)
    app.state.downloads = ByteBudget(limits.DOWNLOADS_MAX)
    errors.install(app)
    app.router.routes.extend(live.ROUTES)  # first: each route before them costs a live call time
    for noun in (
        files,
        upload_parts,
        multipart_uploads,
        batches,
        responses,
        models,
        usage,
        whoami,
        admin,
        metrics,
    ):
        # One flat list rather than nested routers, so that a 405 can tell all methods of its path.
        app.router.routes.extend(noun.router.routes)
    app.add_api_route("/health", health, responses=public_refusals())
    app.add_api_route(
        "/ready", ready, responses=public_refusals("storage_unavailable", "server_stopping")
    )
    for path, route in (("/health", health), ("/ready", ready), ("/metrics", metrics.metrics)):
        # What probes of balancers ask with; not in the document, where it would say nothing new.
        app.add_api_route(path, route, methods=["HEAD"], include_in_schema=False)
    app.add_middleware(AuthMiddleware)
    prefix = "" if services is None else services.settings.server.path_prefix
    app.add_middleware(PathMiddleware, prefix=prefix)
    if services is not None and services.settings.auth.mode == "open":
        app.add_middleware(LocalCallersOnly, server=services.settings.server)
    app.add_middleware(RequestIdMiddleware)
    if services is not None and services.settings.server.allowed_origins:
        app.add_middleware(CorsMiddleware, origins=services.settings.server.allowed_origins)
    return app  # the middleware that is added last is the outermost


async def health() -> Response:
    """The process answers: a server that does not should be restarted. Whether it can work is what
    `/ready` tells; whether engines answer is the business of the metrics."""
    return json_response({"status": "ok"})


async def ready(request: Request) -> Response:
    """Database and object store answer, and the server is not stopping: send it requests."""
    await services_of(request).readiness.check()
    return json_response({"status": "ready"})
