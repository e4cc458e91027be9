"""`GET /metrics`: all metrics of the process, in the text format of Prometheus.

The metrics themselves are in `telemetry`.
"""

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from starlette.requests import Request
from starlette.responses import Response

from lowtide.api.openapi.answers import TEXT, DescribedAnswer, refusals
from lowtide.api.openapi.routes import Routes

routes = Routes("metrics")


@routes.add("GET", "/metrics", {200: DescribedAnswer(content={"text/plain": TEXT}), **refusals()})
async def metrics(_: Request) -> Response:
    """The metrics of this process."""
    return Response(generate_latest(REGISTRY), headers={"content-type": CONTENT_TYPE_LATEST})
