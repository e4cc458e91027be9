"""Records of webhooks as the objects that the API shows. Called by the webhook routes."""

from lowtide.api.objects.instants import unix
from lowtide.api.objects.webhooks import DeliveryObject, NewWebhookObject, WebhookObject
from lowtide.core.webhooks.endpoint import Delivery, WebhookEndpoint
from lowtide.service.webhooks.webhooks import NewWebhook


def webhook_object(endpoint: WebhookEndpoint) -> WebhookObject:
    """Shows an endpoint without its secret."""
    events: list[str] = list(endpoint.events)
    return WebhookObject(
        id=endpoint.id,
        url=endpoint.url,
        name=endpoint.name,
        events=events,
        event_types=events,
        enabled=endpoint.is_enabled,
        disabled_reason=endpoint.disabled_reason,
        created_at=int(endpoint.created_at.timestamp()),
        updated_at=int(endpoint.updated_at.timestamp()),
        disabled_at=unix(endpoint.disabled_at),
        last_success_at=unix(endpoint.last_success_at),
        failing_since=unix(endpoint.failing_since),
    )


def new_webhook_object(made: NewWebhook) -> NewWebhookObject:
    """Shows an endpoint with the secret that was just made."""
    shown = webhook_object(made.endpoint)
    fields = {name: getattr(shown, name) for name in shown.__struct_fields__}
    return NewWebhookObject(**fields, secret=made.secret, signing_secret=made.secret)


def delivery_object(delivery: Delivery) -> DeliveryObject:
    return DeliveryObject(
        event_id=delivery.event_id,
        webhook_id=delivery.endpoint_id,
        type=delivery.type,
        batch_id=delivery.batch_id,
        url=delivery.url,
        state=delivery.state,
        attempts=delivery.attempts,
        created_at=int(delivery.created_at.timestamp()),
        attempted_at=unix(delivery.attempted_at),
        next_attempt_at=unix(delivery.next_at),
        status_code=delivery.status_code,
        error=delivery.error,
    )
