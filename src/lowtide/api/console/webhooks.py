"""What the forms of the webhooks' pages do: each calls the verb of the route in `/v1/webhooks`.

A refusal is told on the page that has the form. A secret stands in the answer to its making alone.
"""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lowtide.api.console.answers import go_to, show, show_secret
from lowtide.api.console.failures import told_on_a_page
from lowtide.api.console.forms import read_form
from lowtide.api.middleware.auth import set_audit_subject
from lowtide.api.middleware.caller import identify, services_of
from lowtide.api.middleware.console_paths import ROOT
from lowtide.api.webhooks.webhook_objects import new_webhook_object
from lowtide.core.errors import LowtideError
from lowtide.core.webhooks.endpoint import EVENT_TYPES
from lowtide.service.webhooks.webhooks import WebhookFields

WEBHOOKS: Final = f"{ROOT}/webhooks"


@told_on_a_page
async def create_webhook(request: Request) -> Response:
    """Names an address that the project's events go to, and shows its secret this once."""
    fields, caller = await read_form(request), identify(request)
    asked = WebhookFields(
        url=fields.get("url", "").strip(),
        name=fields.get("name", "").strip(),
        events=[each for each in EVENT_TYPES if f"on_{each}" in fields],
    )
    try:
        made = await services_of(request).webhooks.create(
            caller.project_id, caller.organization_id, asked
        )
    except LowtideError as error:
        return await show(request, WEBHOOKS, error)
    set_audit_subject(request, made.endpoint.id)
    return await show_secret(request, WEBHOOKS, made=new_webhook_object(made))


@told_on_a_page
async def enable_webhook(request: Request) -> Response:
    """Calls the address again, or no more: `enabled` is `yes` or `no`."""
    page, webhook_id, project_id = _asked(request)
    fields = await read_form(request)
    try:
        asked = WebhookFields(enabled=fields.get("enabled") == "yes")
        await services_of(request).webhooks.change(project_id, webhook_id, asked)
    except LowtideError as error:
        return await show(request, page, error)
    return go_to(request, page)


@told_on_a_page
async def test_webhook(request: Request) -> Response:
    """Sends an event about a batch that there is none of, and says what was answered."""
    page, webhook_id, project_id = _asked(request)
    await read_form(request)
    try:
        event_type, attempt = await services_of(request).webhooks.test(project_id, webhook_id, None)
    except LowtideError as error:
        return await show(request, page, error)
    if attempt.status_code is None:
        message = f"The endpoint could not be called: {attempt.failure}."
        return await show(request, page, LowtideError("webhook_unreachable", message))
    return await show(request, page, told=f"Sent {event_type}: answered {attempt.status_code}.")


@told_on_a_page
async def replay_deliveries(request: Request) -> Response:
    """Sends an event once more; without `event_id` all that have failed."""
    page, webhook_id, project_id = _asked(request)
    fields = await read_form(request)
    try:
        count = await services_of(request).webhooks.replay(
            project_id, webhook_id, fields.get("event_id") or None
        )
    except LowtideError as error:
        return await show(request, page, error)
    told = "One delivery is" if count == 1 else f"{count:,} deliveries are"
    return await show(request, page, told=f"{told} sent again.")


@told_on_a_page
async def rotate_secret(request: Request) -> Response:
    """Makes another secret, and shows it this once; for a day the old one signs as well."""
    page, webhook_id, project_id = _asked(request)
    await read_form(request)
    try:
        secret = await services_of(request).webhooks.rotate(project_id, webhook_id, None)
    except LowtideError as error:
        return await show(request, page, error)
    return await show_secret(request, page, secret=secret)


@told_on_a_page
async def delete_webhook(request: Request) -> Response:
    """Calls the address no more, and forgets its deliveries."""
    page, webhook_id, project_id = _asked(request)
    await read_form(request)
    try:
        await services_of(request).webhooks.delete(project_id, webhook_id)
    except LowtideError as error:
        return await show(request, page, error)
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
