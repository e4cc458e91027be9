"""What a webhook endpoint is, which events there are, and what a delivery of one is.

The store keeps these records (ports/webhooks.py), the service and the API show them. Invariants: a
batch has one terminal event, whose id follows from the batch's, so that whoever writes it twice
writes the same id; and a delivery is known by its event and its endpoint.
"""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Final, Literal, get_args

import msgspec

from lowtide.core.batches.batch import Status
from lowtide.core.reporting.shown_url import shown_url

EventType = Literal["batch.completed", "batch.failed", "batch.expired", "batch.cancelled"]
"""The names of OpenAI's API, whose client parses them (`client.webhooks.unwrap`)."""
EVENT_TYPES: Final[tuple[EventType, ...]] = get_args(EventType)

EVENT_OF: Final[Mapping[Status, EventType]] = MappingProxyType(
    {
        "completed": "batch.completed",
        "failed": "batch.failed",
        "expired": "batch.expired",
        "cancelled": "batch.cancelled",
    }
)
"""The event of each terminal state."""

PROJECT: Final = "project"
"""Stands for an endpoint's id where a batch named an address of its own: that is signed with the
secret of the project."""

DeliveryState = Literal["pending", "delivered", "failed"]
"""pending: it is tried, or will be. failed: it was given up, and can be replayed."""


class WebhookEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """An address of a project that events are sent to. Instants are aware UTC."""

    id: str
    project_id: str
    organization_id: str
    url: str
    name: str = ""
    events: tuple[EventType, ...] = EVENT_TYPES
    """The events that it asks for, of all batches of the project. Those of a batch that names this
    endpoint come as well."""
    created_at: datetime
    updated_at: datetime
    disabled_at: datetime | None = None
    disabled_reason: str | None = None
    last_success_at: datetime | None = None
    failing_since: datetime | None = None
    """The first failed attempt since the last one that succeeded."""

    @property
    def is_enabled(self) -> bool:
        return self.disabled_at is None


class BatchWebhook(msgspec.Struct, frozen=True):
    """The target of one batch's event, besides the endpoints that ask for all: an endpoint or,
    where `endpoint_id` is PROJECT, the address `url`.
    """

    endpoint_id: str
    url: str | None = None

    @property
    def shown(self) -> str:
        """The endpoint's id, or the address without what may be a secret."""
        return self.endpoint_id if self.url is None else shown_url(self.url)


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One event on its way to one endpoint. `url`: where it goes, or went last."""

    event_id: str
    endpoint_id: str
    organization_id: str
    project_id: str
    type: EventType
    batch_id: str
    url: str
    created_at: datetime
    state: DeliveryState = "pending"
    attempts: int = 0
    next_at: datetime | None = None
    """When it is tried next; None once it is not pending."""
    attempted_at: datetime | None = None
    status_code: int | None = None
    """What the endpoint answered last; None where no answer came."""
    error: str | None = None
    """Why the last attempt failed, for a person."""


def event_id_of(batch_id: str) -> str:
    """The id of a batch's terminal event."""
    return f"evt_{batch_id.rpartition('_')[2]}"


def payload_of(event_id: str, type: EventType, batch_id: str, at: datetime) -> bytes:
    """The body of a delivery, in the shape of OpenAI's events. Each attempt sends these bytes."""
    return msgspec.json.encode(
        {
            "id": event_id,
            "object": "event",
            "created_at": int(at.timestamp()),
            "type": type,
            "data": {"id": batch_id},
        }
    )
