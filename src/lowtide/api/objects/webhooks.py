"""Webhook endpoints and deliveries as the API shows them.

An endpoint has OpenAI's fields of a `webhook_endpoint` and further ones beside them, so that the
`webhooks` of the openai package read it. Instants are Unix seconds. A secret is in one object only:
the one that answers its making.
"""

from typing import Literal

import msgspec

from lowtide.core.webhooks.endpoint import DeliveryState


class WebhookObject(msgspec.Struct, frozen=True, kw_only=True):
    """`events` and `event_types` are the same. `enabled` false: `disabled_reason` says why."""

    id: str
    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    url: str
    name: str
    events: list[str]
    event_types: list[str]
    enabled: bool
    disabled_reason: str | None = None
    created_at: int
    updated_at: int
    disabled_at: int | None = None
    last_success_at: int | None = None
    failing_since: int | None = None


class NewWebhookObject(WebhookObject, frozen=True, kw_only=True):
    """`secret` and `signing_secret` are the same; it is shown this once."""

    secret: str
    signing_secret: str


class ProjectSecretObject(msgspec.Struct, frozen=True, kw_only=True):
    """The secret that signs what is sent to addresses that batches name; shown this once."""

    id: Literal["project"] = "project"
    object: Literal["webhook_secret"] = "webhook_secret"
    secret: str
    signing_secret: str


class WebhookList(msgspec.Struct, frozen=True, kw_only=True):
    """All of a project, newest first."""

    object: Literal["list"] = "list"
    data: list[WebhookObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedWebhook(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["webhook_endpoint.deleted"] = "webhook_endpoint.deleted"
    deleted: Literal[True] = True


class WebhookTestObject(msgspec.Struct, frozen=True, kw_only=True):
    """`success`: the receiver answered; `status_code` says what."""

    object: Literal["webhook_endpoint.test"] = "webhook_endpoint.test"
    webhook_endpoint_id: str
    event_type: str
    status_code: int
    success: Literal[True] = True


class DeliveryObject(msgspec.Struct, frozen=True, kw_only=True):
    """An event on its way. `status_code`: the last answer; null: none came, `error` says why."""

    object: Literal["webhook_delivery"] = "webhook_delivery"
    event_id: str
    webhook_id: str
    type: str
    batch_id: str
    url: str
    state: DeliveryState
    attempts: int
    created_at: int
    attempted_at: int | None
    next_attempt_at: int | None
    status_code: int | None
    error: str | None


class DeliveryList(msgspec.Struct, frozen=True, kw_only=True):
    """A page, newest first; `after` takes the event's id."""

    object: Literal["list"] = "list"
    data: list[DeliveryObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class ReplayObject(msgspec.Struct, frozen=True, kw_only=True):
    """How many deliveries are pending again."""

    object: Literal["webhook_replay"] = "webhook_replay"
    replayed: int
