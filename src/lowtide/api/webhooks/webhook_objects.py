"""Records of webhooks as the objects that the API shows. Called by the webhook routes."""

from lowtide.api.objects.instants import object_of, unix
from lowtide.api.objects.webhooks import DeliveryObject, NewWebhookObject, WebhookObject
from lowtide.core.webhooks.endpoint import Delivery, WebhookEndpoint
from lowtide.service.webhooks.webhooks import NewWebhook


def webhook_object(endpoint: WebhookEndpoint) -> WebhookObject:
    """Shows an endpoint without its secret."""
    events: list[str] = list(endpoint.events)
    enabled = endpoint.is_enabled
    return object_of(WebhookObject, endpoint, events=events, event_types=events, enabled=enabled)


def new_webhook_object(made: NewWebhook) -> NewWebhookObject:
    """Shows an endpoint with the secret that was just made."""
    shown = webhook_object(made.endpoint)
    return object_of(NewWebhookObject, shown, secret=made.secret, signing_secret=made.secret)


def delivery_object(delivery: Delivery) -> DeliveryObject:
    webhook_id, next_at = delivery.endpoint_id, unix(delivery.next_at)
    return object_of(DeliveryObject, delivery, webhook_id=webhook_id, next_attempt_at=next_at)
