"""The routes of webhooks: endpoints, their secrets, tests, deliveries and replays.

They serve the clients of this API and, under `/v1/webhook_endpoints` (`paths` brings it here), the
`webhooks` of the openai package: each field has both names. Guards: whatever is named here belongs
to the caller's project; another project's id behaves as an unknown one.
"""

from typing import Annotated, Any, Final, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from lowtide import limits
from lowtide.api.http.json_body import as_struct, json_response, read_json
from lowtide.api.middleware.auth import set_audit_subject
from lowtide.api.middleware.caller import identify, note_rows, services_of
from lowtide.api.objects.webhooks import (
    DeletedWebhook,
    DeliveryList,
    NewWebhookObject,
    ProjectSecretObject,
    ReplayObject,
    WebhookList,
    WebhookObject,
    WebhookTestObject,
)
from lowtide.api.openapi.answers import JSON_WRITES, answers, json_body
from lowtide.api.openapi.routes import Routes, read_query
from lowtide.api.webhooks.webhook_objects import (
    delivery_object,
    new_webhook_object,
    webhook_object,
)
from lowtide.core.errors import LowtideError
from lowtide.core.webhooks.endpoint import EVENT_TYPES, PROJECT, DeliveryState
from lowtide.service.webhooks.webhooks import NewWebhook, WebhookFields

routes = Routes("webhooks", prefix="/v1/webhooks")

_EVENTS: Final = {"type": "array", "items": {"enum": list(EVENT_TYPES)}}
_FIELDS: Final = {
    "url": {"type": "string", "examples": ["https://example.org/hooks"]},
    "events": _EVENTS,
    "event_types": _EVENTS,
    "name": {"type": "string"},
    "enabled": {"type": "boolean"},
}


class WebhookBody(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint as sent: `event_types` is OpenAI's name for `events`."""

    url: str | None = None
    events: list[str] | None = None
    event_types: list[str] | None = None
    name: str | None = None
    enabled: bool | None = None

    @property
    def fields(self) -> WebhookFields:
        events = self.events if self.events is not None else self.event_types
        return WebhookFields(url=self.url, events=events, name=self.name, enabled=self.enabled)


class RotateBody(msgspec.Struct, frozen=True):
    """How long the old secret goes on. Both left out: a day."""

    overlap_seconds: float | None = None
    keep_old_secret_active_for_24_hours: bool | None = None

    @property
    def overlap_s(self) -> float | None:
        if self.overlap_seconds is None and self.keep_old_secret_active_for_24_hours is False:
            return 0.0
        return self.overlap_seconds


class TestBody(msgspec.Struct, frozen=True):
    event_type: str | None = None


class ReplayBody(msgspec.Struct, frozen=True):
    """What to send once more; `event_id` None: all deliveries that have failed."""

    event_id: str | None = None


class ListDeliveries(msgspec.Struct, frozen=True):
    """The query of a list."""

    after: str = ""
    limit: Annotated[int, msgspec.Meta(ge=1, le=limits.PAGE_SIZE_MAX_BATCHES)] = (
        limits.PAGE_SIZE_DEFAULT
    )
    state: Literal["pending", "delivered", "failed", ""] = ""


def _body(*required: str, **properties: Any) -> dict[str, Any]:
    return json_body({"type": "object", "properties": properties, "required": list(required)})


@routes.add(
    "POST",
    "",
    answers(NewWebhookObject, *JSON_WRITES, "invalid_value", "missing_required_parameter"),
    requestBody=_body("url", **_FIELDS),
)
async def create(request: Request) -> Response:
    """Name an address that the project's events are sent to. The secret is in this answer alone."""
    caller, service = identify(request), services_of(request).webhooks
    asked = as_struct(await read_json(request), WebhookBody).fields
    made = await service.create(caller.project_id, caller.organization_id, asked)
    set_audit_subject(request, made.endpoint.id)
    return json_response(new_webhook_object(made))


@routes.add("GET", "", answers(WebhookList))
async def list_webhooks(request: Request) -> Response:
    """All endpoints of the project, newest first."""
    endpoints = await services_of(request).webhooks.all_of(identify(request).project_id)
    data = [webhook_object(each) for each in endpoints]
    first, last = (data[0].id, data[-1].id) if data else (None, None)
    return json_response(WebhookList(data=data, first_id=first, last_id=last, has_more=False))


@routes.add("GET", "/{webhook_id}", answers(WebhookObject, "webhook_not_found"))
async def retrieve(request: Request, webhook_id: str) -> Response:
    """One endpoint: its state, and how it does."""
    endpoint = await services_of(request).webhooks.get(identify(request).project_id, webhook_id)
    return json_response(webhook_object(endpoint))


async def change(request: Request, webhook_id: str) -> Response:
    """Change what is given; the rest stays. `enabled` true calls a disabled endpoint again."""
    asked = as_struct(await read_json(request), WebhookBody).fields
    service = services_of(request).webhooks
    changed = await service.change(identify(request).project_id, webhook_id, asked)
    return json_response(webhook_object(changed))


for _method in ("PATCH", "POST"):  # the openai package posts a change
    routes.add(
        _method,
        "/{webhook_id}",
        answers(WebhookObject, *JSON_WRITES, "invalid_value", "webhook_not_found"),
        requestBody=_body(**_FIELDS),
    )(change)


@routes.add("DELETE", "/{webhook_id}", answers(DeletedWebhook, "webhook_not_found", "storage_full"))
async def delete(request: Request, webhook_id: str) -> Response:
    """Call it no more, and forget its deliveries."""
    await services_of(request).webhooks.delete(identify(request).project_id, webhook_id)
    return json_response(DeletedWebhook(id=webhook_id))


@routes.add(
    "POST",
    "/{webhook_id}/rotate_secret",
    answers((NewWebhookObject, ProjectSecretObject), *JSON_WRITES, "webhook_not_found"),
    requestBody=_body(
        overlap_seconds={"type": "number", "minimum": 0},
        keep_old_secret_active_for_24_hours={"type": "boolean"},
    ),
)
async def rotate_secret(request: Request, webhook_id: str) -> Response:
    """Make a new secret. For a while both sign. The id `project`: the secret that signs what is
    sent to addresses that batches name; the first call makes it."""
    project_id, service = identify(request).project_id, services_of(request).webhooks
    asked = as_struct(await read_json(request), RotateBody)
    secret = await service.rotate(project_id, webhook_id, asked.overlap_s)
    if webhook_id == PROJECT:
        return json_response(ProjectSecretObject(secret=secret, signing_secret=secret))
    endpoint = await service.get(project_id, webhook_id)
    return json_response(new_webhook_object(NewWebhook(endpoint, secret)))


@routes.add(
    "POST",
    "/{webhook_id}/test",
    answers(
        WebhookTestObject,
        "invalid_request",
        "invalid_value",
        "webhook_not_found",
        "webhook_unreachable",
        "request_too_large",
    ),
    requestBody=_body(event_type={"enum": list(EVENT_TYPES)}),
)
async def test(request: Request, webhook_id: str) -> Response:
    """Send an event about a batch that there is none of, and say what was answered."""
    asked = as_struct(await read_json(request), TestBody)
    service = services_of(request).webhooks
    event_type, attempt = await service.test(
        identify(request).project_id, webhook_id, asked.event_type
    )
    if attempt.status_code is None:
        message = f"The endpoint could not be called: {attempt.failure}."
        raise LowtideError("webhook_unreachable", message)
    return json_response(
        WebhookTestObject(
            webhook_endpoint_id=webhook_id,
            event_type=event_type,
            status_code=attempt.status_code,
        )
    )


@routes.add(
    "GET",
    "/{webhook_id}/deliveries",
    answers(DeliveryList, "invalid_request", "webhook_not_found"),
    parameters=ListDeliveries,
)
async def deliveries(request: Request, webhook_id: str) -> Response:
    """What was sent to an endpoint and what came of it, newest first; 30 days of it. The id
    `project`: what was sent to addresses that batches named."""
    asked = read_query(request, ListDeliveries)
    state: DeliveryState | None = asked.state or None
    page = await services_of(request).webhooks.deliveries(
        identify(request).project_id,
        webhook_id,
        after=asked.after or None,
        limit=asked.limit + 1,
        state=state,
    )
    data = [delivery_object(each) for each in page[: asked.limit]]
    note_rows(request, len(data))
    first, last = (data[0].event_id, data[-1].event_id) if data else (None, None)
    more = len(page) > asked.limit
    return json_response(DeliveryList(data=data, first_id=first, last_id=last, has_more=more))


@routes.add(
    "POST",
    "/{webhook_id}/replay",
    answers(ReplayObject, *JSON_WRITES, "webhook_not_found", "delivery_not_found"),
    requestBody=_body(event_id={"type": "string"}),
)
async def replay(request: Request, webhook_id: str) -> Response:
    """Deliver an event once more, with its id; without `event_id` all that have failed."""
    asked = as_struct(await read_json(request), ReplayBody)
    service = services_of(request).webhooks
    count = await service.replay(identify(request).project_id, webhook_id, asked.event_id)
    return json_response(ReplayObject(replayed=count))
