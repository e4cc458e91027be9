"""What the forms of the webhooks' pages do: each calls the verb of the route in `/v1/webhooks`.

A refusal is told on the page that has the form. A secret stands in the answer to its making alone.
"""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lowtide.api.console.answers import Fields, form_on, go_to, show, show_secret
from lowtide.api.middleware.auth import set_audit_subject
from lowtide.api.middleware.caller import identify, services_of
from lowtide.api.middleware.console_paths import ROOT
from lowtide.api.webhooks.webhook_objects import new_webhook_object
from lowtide.core.errors import LowtideError
from lowtide.core.webhooks.endpoint import EVENT_TYPES
from lowtide.service.webhooks.webhooks import WebhookFields

WEBHOOKS: Final = f"{ROOT}/webhooks"
_PAGE: Final = WEBHOOKS + "/{webhook_id}"


@form_on(WEBHOOKS)
async def create_webhook(request: Request, fields: Fields) -> Response:
    """Names an address that the project's events go to, and shows its secret this once."""
    caller = identify(request)
    asked = WebhookFields(
        url=fields.get("url", "").strip(),
        name=fields.get("name", "").strip(),
        events=[each for each in EVENT_TYPES if f"on_{each}" in fields],
    )
    made = await services_of(request).webhooks.create(
        caller.project_id, caller.organization_id, asked
    )
    set_audit_subject(request, made.endpoint.id)
    return await show_secret(request, WEBHOOKS, made=new_webhook_object(made))


@form_on(_PAGE)
async def enable_webhook(request: Request, fields: Fields) -> Response:
    """Calls the address again, or no more: `enabled` is `yes` or `no`."""
    page, webhook_id, project_id = _asked(request)
    asked = WebhookFields(enabled=fields.get("enabled") == "yes")
    await services_of(request).webhooks.change(project_id, webhook_id, asked)
    return go_to(request, page)


@form_on(_PAGE)
async def test_webhook(request: Request, _fields: Fields) -> Response:
    """Sends an event about a batch that there is none of, and says what was answered."""
    page, webhook_id, project_id = _asked(request)
    event_type, attempt = await services_of(request).webhooks.test(project_id, webhook_id, None)
    if attempt.status_code is None:
        message = f"The endpoint could not be called: {attempt.failure}."
        return await show(request, page, LowtideError("webhook_unreachable", message))
    told = f"Sent {event_type}: answered {attempt.status_code}."
    return await show(request, page, told=f"{told} A test is not listed below.")


@form_on(_PAGE)
async def replay_deliveries(request: Request, fields: Fields) -> Response:
    """Sends an event once more; without `event_id` all that have failed."""
    page, webhook_id, project_id = _asked(request)
    count = await services_of(request).webhooks.replay(
        project_id, webhook_id, fields.get("event_id") or None
    )
    told = "One delivery is" if count == 1 else f"{count:,} deliveries are"
    return await show(request, page, told=f"{told} sent again.")


@form_on(_PAGE)
async def rotate_secret(request: Request, _fields: Fields) -> Response:
    """Makes another secret, and shows it this once; for a day the old one signs as well."""
    page, webhook_id, project_id = _asked(request)
    secret = await services_of(request).webhooks.rotate(project_id, webhook_id, None)
    return await show_secret(request, page, secret=secret)


@form_on(_PAGE)
async def delete_webhook(request: Request, _fields: Fields) -> Response:
    """Calls the address no more, and forgets its deliveries."""
    _, webhook_id, project_id = _asked(request)
    await services_of(request).webhooks.delete(project_id, webhook_id)
    return go_to(request, WEBHOOKS)


def _asked(request: Request) -> tuple[str, str, str]:
    """The page that has the form, the endpoint's id and the caller's project."""
    webhook_id: str = request.path_params["webhook_id"]
    return f"{WEBHOOKS}/{webhook_id}", webhook_id, identify(request).project_id


ROUTES: Final = (
    Route(WEBHOOKS, create_webhook, methods=["POST"]),
    Route(WEBHOOKS + "/{webhook_id}/enable", enable_webhook, methods=["POST"]),
    Route(WEBHOOKS + "/{webhook_id}/test", test_webhook, methods=["POST"]),
    Route(WEBHOOKS + "/{webhook_id}/replay", replay_deliveries, methods=["POST"]),
    Route(WEBHOOKS + "/{webhook_id}/rotate_secret", rotate_secret, methods=["POST"]),
    Route(WEBHOOKS + "/{webhook_id}/delete", delete_webhook, methods=["POST"]),
)
