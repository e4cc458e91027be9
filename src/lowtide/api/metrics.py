"""`/metrics` in the text format of Prometheus, and the door's own counter."""

from typing import Final

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, Counter, generate_latest
from starlette.responses import Response

REQUESTS: Final = Counter(
    "lowtide_http_requests",
    "HTTP requests answered (status 0: the client left).",
    ["method", "status"],
)

router = APIRouter()


@router.get("/metrics", include_in_schema=False)
async def metrics() -> Response:
    return Response(generate_latest(REGISTRY), headers={"content-type": CONTENT_TYPE_LATEST})
