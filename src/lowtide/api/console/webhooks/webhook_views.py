"""What the pages of webhooks show: the project's endpoints, and what was sent to one of them.

The objects are those of `/v1/webhooks`.
"""

from typing import Any

from starlette.requests import Request

from lowtide import limits
from lowtide.api.middleware.caller import identify, note_rows, services_of
from lowtide.api.openapi.routes import read_query
from lowtide.api.webhooks.webhook_objects import delivery_object, webhook_object
from lowtide.api.webhooks.webhooks import ListDeliveries
from lowtide.core.webhooks.endpoint import EVENT_TYPES, PROJECT


async def load_webhooks(request: Request) -> dict[str, Any]:
    """All endpoints of the project. `made`: one that was made just now, with its secret."""
    webhooks = await services_of(request).webhooks.all_of(identify(request).project_id)
    return {
        "webhooks": [webhook_object(each) for each in webhooks],
        "event_types": EVENT_TYPES,
        "made": None,
    }


async def load_webhook(request: Request, webhook_id: str) -> dict[str, Any]:
    """One endpoint and its deliveries, newest first. The id `project`: what went to addresses that
    batches named. `secret`: one that was made just now; `told`: what an action came to.
    """
    asked, project_id = read_query(request, ListDeliveries), identify(request).project_id
    service = services_of(request).webhooks
    endpoint = None
    if webhook_id != PROJECT:
        endpoint = webhook_object(await service.get(project_id, webhook_id))
    deliveries = await service.deliveries(
        project_id,
        webhook_id,
        after=asked.after or None,
        limit=limits.CONSOLE_BATCHES_PAGE + 1,
        state=asked.state or None,
    )
    shown = deliveries[: limits.CONSOLE_BATCHES_PAGE]
    note_rows(request, len(shown))
    return {
        "webhook_id": webhook_id,
        "webhook": endpoint,
        "deliveries": [delivery_object(each) for each in shown],
        "state": asked.state,
        "after": asked.after,
        "older": shown[-1].event_id if len(deliveries) > len(shown) else None,
        "secret": None,
        "told": None,
    }
