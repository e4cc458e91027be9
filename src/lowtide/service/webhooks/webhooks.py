"""The service for webhooks: endpoints of a project, their secrets, tests, deliveries, replays.

Called by the API's webhook routes, and by the batch service for the `webhook` of a batch. Guards:
an address that may not be called is refused where it is named, with the setting that would allow
it; a secret leaves here once, in the answer to its making; and a batch names an address of its own
only where there is a secret of the project that its receiver can know.
"""

import secrets
from collections.abc import Sequence
from typing import Final

import msgspec

from lowtide import limits
from lowtide.core.errors import LowtideError, missing_parameter, out_of_range
from lowtide.core.webhooks.address_rules import target_of
from lowtide.core.webhooks.endpoint import (
    EVENT_TYPES,
    PROJECT,
    BatchWebhook,
    Delivery,
    EventType,
    WebhookEndpoint,
    payload_of,
)
from lowtide.core.webhooks.schedule import Attempt
from lowtide.core.webhooks.signature import secret_of, signed_headers
from lowtide.ports.clock import Clock, NewId
from lowtide.ports.store import UnknownCursor
from lowtide.ports.webhooks import (
    EndpointChange,
    OutboxStore,
    TooManyEndpoints,
    WebhookSender,
    WebhookStore,
)
from lowtide.service.batches.new_batch import invalid_value
from lowtide.service.fair_places import FairPlaces

_TEST_BATCH: Final = "batch_test"


class WebhookFields(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller says of an endpoint; None: not said."""

    url: str | None = None
    events: Sequence[str] | None = None
    name: str | None = None
    enabled: bool | None = None


class NewWebhook(msgspec.Struct, frozen=True):
    """An endpoint that was just made, with the secret that cannot be shown again."""

    endpoint: WebhookEndpoint
    secret: str


class WebhookService:
    """The service."""

    def __init__(
        self,
        store: WebhookStore,
        outbox: OutboxStore,
        sender: WebhookSender,
        clock: Clock,
        new_id: NewId,
    ) -> None:
        self._store = store
        self._outbox = outbox
        self._sender = sender
        self._clock = clock
        self._new_id = new_id
        self._tests = FairPlaces(limits.WEBHOOK_TESTS_AT_ONCE)

    async def create(
        self, project_id: str, organization_id: str, asked: WebhookFields
    ) -> NewWebhook:
        """Raises LowtideError with the parameter at fault."""
        if not asked.url:
            raise missing_parameter("url")
        await self._check_url(asked.url, "url")
        now = self._clock.now()
        endpoint = WebhookEndpoint(
            id=self._new_id("wh_"),
            project_id=project_id,
            organization_id=organization_id,
            url=asked.url,
            name=_checked_name(asked.name or ""),
            events=EVENT_TYPES if asked.events is None else _checked_events(asked.events),
            created_at=now,
            updated_at=now,
            disabled_at=None if asked.enabled is not False else now,
        )
        made = NewWebhook(endpoint, _new_secret())
        try:
            await self._store.add(endpoint, made.secret, most=limits.WEBHOOKS_PER_PROJECT)
        except TooManyEndpoints:
            message = f"This project has {limits.WEBHOOKS_PER_PROJECT} webhooks, the most it may."
            raise LowtideError("invalid_request", f"{message} Delete one first.") from None
        return made

    async def get(self, project_id: str, webhook_id: str) -> WebhookEndpoint:
        """Raises LowtideError `webhook_not_found`."""
        endpoint = await self._store.get(project_id, webhook_id)
        if endpoint is None:
            raise _not_found(webhook_id)
        return endpoint

    async def all_of(self, project_id: str) -> list[WebhookEndpoint]:
        """The endpoints of the project, newest first; there are few."""
        return await self._store.all_of(project_id)

    async def change(
        self, project_id: str, webhook_id: str, asked: WebhookFields
    ) -> WebhookEndpoint:
        """Raises LowtideError with the parameter at fault, and `webhook_not_found`."""
        if asked.url is not None:
            await self.get(project_id, webhook_id)  # before a name is resolved for another tenant
            await self._check_url(asked.url, "url")
        change = EndpointChange(
            url=asked.url,
            name=None if asked.name is None else _checked_name(asked.name),
            events=None if asked.events is None else _checked_events(asked.events),
            enabled=asked.enabled,
        )
        changed = await self._store.change(project_id, webhook_id, change, self._clock.now())
        if changed is None:
            raise _not_found(webhook_id)
        return changed

    async def delete(self, project_id: str, webhook_id: str) -> None:
        """Raises LowtideError `webhook_not_found`."""
        if not await self._store.delete(project_id, webhook_id):
            raise _not_found(webhook_id)

    async def rotate(self, project_id: str, webhook_id: str, overlap_s: float | None) -> str:
        """A new secret; those before it sign as well for `overlap_s` more. Of PROJECT: the secret
        for addresses that batches name, which is made the first time.

        Raises LowtideError `webhook_not_found`, `invalid_request`.
        """
        overlap_s = limits.WEBHOOK_OVERLAP_S if overlap_s is None else overlap_s
        if not 0 <= overlap_s <= limits.WEBHOOK_OVERLAP_S_MAX:
            raise out_of_range("overlap_seconds", 0, limits.WEBHOOK_OVERLAP_S_MAX)
        owner_id = project_id if webhook_id == PROJECT else webhook_id
        if webhook_id != PROJECT:
            await self.get(project_id, webhook_id)
        secret = _new_secret()
        await self._store.rotate(owner_id, secret, self._clock.now(), overlap_s=overlap_s)
        return secret

    async def test(
        self, project_id: str, webhook_id: str, event_type: str | None
    ) -> tuple[EventType, Attempt]:
        """Sends an event of that type now, about a batch that there is none of, and waits for what
        comes of it. Raises LowtideError `webhook_not_found`, `invalid_request`.
        """
        endpoint = await self.get(project_id, webhook_id)
        chosen = endpoint.events[:1] if event_type is None else _checked_events([event_type])
        type = (chosen or EVENT_TYPES)[0]
        now = self._clock.now()
        event_id = self._new_id("evt_test_")
        body = payload_of(event_id, type, _TEST_BATCH, now)
        signing = await self._store.secrets(webhook_id, now)
        async with self._tests.of(endpoint.organization_id):
            headers = signed_headers(event_id, body, self._clock.now(), signing)
            return type, await self._sender.send(endpoint.url, headers, body)

    async def deliveries(
        self,
        project_id: str,
        webhook_id: str,
        *,
        after: str | None = None,
        limit: int,
        state: str | None = None,
    ) -> list[Delivery]:
        """The deliveries, newest first. Raises LowtideError `webhook_not_found`;
        `invalid_request` for `after`.
        """
        await self._check_known(project_id, webhook_id)
        try:
            return await self._outbox.page(
                project_id, webhook_id, after=after, limit=limit, state=state
            )
        except UnknownCursor:
            message = f"No delivery of the event '{after}'."
            raise LowtideError("invalid_request", message, "after") from None

    async def replay(self, project_id: str, webhook_id: str, event_id: str | None) -> int:
        """Delivers once more: that event, or without one all that have failed, the oldest first and
        at most WEBHOOK_REPLAY_MAX; how many. Raises LowtideError `webhook_not_found`,
        `delivery_not_found`.
        """
        await self._check_known(project_id, webhook_id)
        replayed = await self._outbox.replay(
            project_id, webhook_id, event_id, self._clock.now(), most=limits.WEBHOOK_REPLAY_MAX
        )
        if event_id is not None and not replayed:
            message = f"No delivery of the event '{event_id}'."
            raise LowtideError("delivery_not_found", message, "event_id")
        return replayed

    async def of_batch(self, project_id: str, webhook: str) -> BatchWebhook:
        """What the `webhook` of a batch means: an endpoint's id, or an address of its own. Raises
        LowtideError with the parameter `webhook`.
        """
        if "/" not in webhook:
            if await self._store.get(project_id, webhook) is None:
                message = f"No webhook found with id '{webhook}': give such an id, or an address."
                raise LowtideError("invalid_request", message, "webhook")
            return BatchWebhook(webhook)
        await self._check_url(webhook, "webhook")
        if not await self._store.secrets(project_id, self._clock.now()):
            raise LowtideError(
                "invalid_request",
                "webhook: an address is signed with the secret of the project, and this project has"
                " none yet. Make it with POST /v1/webhooks/project/rotate_secret (`lowtide webhooks"
                " rotate project`), and give it to the receiver.",
                "webhook",
            )
        return BatchWebhook(PROJECT, webhook)

    async def _check_known(self, project_id: str, webhook_id: str) -> None:
        if webhook_id != PROJECT:
            await self.get(project_id, webhook_id)

    async def _check_url(self, url: str, param: str) -> None:
        try:
            target_of(url)
        except ValueError as error:
            message = f"{param} is not an address that events can be sent to: {error}."
            raise LowtideError("invalid_request", message, param) from None
        if (refusal := await self._sender.refusal(url)) is not None:
            raise LowtideError("invalid_request", f"{param}: {refusal}", param)


def _new_secret() -> str:
    return secret_of(secrets.token_bytes(limits.WEBHOOK_SECRET_BYTES))


def _checked_events(events: Sequence[str]) -> tuple[EventType, ...]:
    for event in events:
        if event not in EVENT_TYPES:
            raise invalid_value(event, EVENT_TYPES, "events")
    return tuple(each for each in EVENT_TYPES if each in events)


def _checked_name(name: str) -> str:
    if len(name) > limits.WEBHOOK_NAME_CHARS_MAX:
        message = f"name must have at most {limits.WEBHOOK_NAME_CHARS_MAX} characters."
        raise LowtideError("invalid_request", message, "name")
    return name


def _not_found(webhook_id: str) -> LowtideError:
    return LowtideError("webhook_not_found", f"No webhook found with id '{webhook_id}'.")
