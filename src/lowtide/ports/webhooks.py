"""The ports of webhooks: the outbox and its endpoints, and who sends a delivery.

The store has the contract of ports/store.py: each method one transaction, durable when it returns,
another project's id as an unknown one. Further:
- A batch's terminal event is written in the transaction of its terminal state, once for each
  endpoint that is to hear of it, whatever process takes the batch there.
- A claim leases a delivery under a token. `record` counts only under the current one, so an
  attempt that a dead process had under way is made again: a delivery is sent at least once, always
  with the same event id.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

import msgspec

from lowtide.core.webhooks.endpoint import Delivery, EventType, WebhookEndpoint
from lowtide.core.webhooks.schedule import Attempt


class TooManyEndpoints(Exception):
    """The project has as many as it may."""


class EndpointChange(msgspec.Struct, frozen=True, kw_only=True):
    """What is None stays. `enabled`: True also forgets that it has been failing."""

    url: str | None = None
    name: str | None = None
    events: tuple[EventType, ...] | None = None
    enabled: bool | None = None


class ClaimedDelivery(msgspec.Struct, frozen=True):
    """A delivery to attempt now, and the secrets that sign it, the newest first."""

    delivery: Delivery
    token: int
    secrets: tuple[str, ...]


class Recorded(msgspec.Struct, frozen=True):
    """What an attempt has come to. `disabled_reason`: it was the last one of its endpoint."""

    delivery: Delivery
    disabled_reason: str | None = None


class WebhookStore(Protocol):
    """Endpoints of projects, and the secrets that sign for them."""

    async def add(self, endpoint: WebhookEndpoint, secret: str, *, most: int) -> None:
        """Inserts. Raises TooManyEndpoints where the project has `most`, also at one instant."""

    async def get(self, project_id: str, endpoint_id: str) -> WebhookEndpoint | None: ...

    async def all_of(self, project_id: str) -> list[WebhookEndpoint]:
        """The endpoints of the project, newest first."""

    async def change(
        self, project_id: str, endpoint_id: str, change: EndpointChange, now: datetime
    ) -> WebhookEndpoint | None:
        """Changes an endpoint; returns it as it then is. Disabled, its pending deliveries
        fail; they can be replayed later."""

    async def delete(self, project_id: str, endpoint_id: str) -> bool:
        """Deletes an endpoint with its secrets and deliveries. False when unknown."""

    async def rotate(self, owner_id: str, secret: str, now: datetime, *, overlap_s: float) -> None:
        """Signs with `secret` from now on, and with those before it for `overlap_s` more.

        The owner is an endpoint, or a project for addresses that batches name. The oldest go where
        there would be more than WEBHOOK_SECRETS_MAX.
        """

    async def secrets(self, owner_id: str, now: datetime) -> tuple[str, ...]:
        """The secrets that sign now, the newest first; none where there never was one."""


class OutboxStore(Protocol):
    """Events on their way to endpoints."""

    async def page(
        self,
        project_id: str,
        endpoint_id: str,
        *,
        after: str | None,
        limit: int,
        state: str | None = None,
    ) -> list[Delivery]:
        """The deliveries, newest first, beginning behind the event `after`; only those in `state`
        where one is given. Raises UnknownCursor (ports/store.py).
        """

    async def replay(
        self, project_id: str, endpoint_id: str, event_id: str | None, now: datetime, *, most: int
    ) -> int:
        """Delivers once more, by a fresh schedule: that event, or without one the oldest `most`
        that have failed; how many that are. A delivery that is pending is tried at once.
        """

    async def claim(
        self, worker_id: str, now: datetime, ttl_s: float, *, free: int, most: int
    ) -> list[ClaimedDelivery]:
        """Leases up to `free` deliveries that are due, by `core.webhooks.turns.places_of`; no
        organization has more than `most` leased."""

    async def record(
        self, claimed: ClaimedDelivery, attempt: Attempt, now: datetime
    ) -> Recorded | None:
        """What the attempt came to, by `core.webhooks.schedule`; None when the lease is lost."""

    async def release(self, worker_id: str) -> int:
        """Ends the leases of a process that is gone, or stops; how many there were."""

    async def forget(self, before: datetime, *, most: int) -> int:
        """Deletes deliveries that are over and older than that; how many."""


class WebhookSender(Protocol):
    """Calls addresses that tenants name."""

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Attempt:
        """POST once, bounded in time and in what is read; no redirect is followed.

        The host is resolved and each of its addresses checked first, and the connection goes to an
        address that was checked. Whatever fails is told by the attempt. Raises nothing.
        """

    async def refusal(self, url: str) -> str | None:
        """Why `send` would refuse the address whoever answers there, for a person; None where it
        would not, as for a name that cannot be resolved now."""

    async def aclose(self) -> None: ...
