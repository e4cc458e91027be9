"""`GET /metrics`: all metrics of the process, in the text format of Prometheus.

The metrics themselves are in `telemetry`.
"""

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from starlette.responses import Response

from lowtide.api.openapi.refusals import refusals

router = APIRouter()


@router.get(
    "/metrics",
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **refusals()},
    response_class=Response,
)
async def metrics() -> Response:
    return Response(generate_latest(REGISTRY), headers={"content-type": CONTENT_TYPE_LATEST})
