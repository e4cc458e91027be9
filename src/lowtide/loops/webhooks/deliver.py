"""Delivers events to webhook endpoints: claims what is due, signs, sends, records.

Runs in every worker. Deliveries are claimed under leases and sent beside each other, at most
`WEBHOOKS_IN_FLIGHT`; a slow receiver holds up no other. Invariant: what is claimed is recorded, or
its lease ends and a worker claims it again: a delivery may come twice, with the same id, and none
is lost.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from lowtide import limits
from lowtide.core.webhooks.endpoint import Delivery, payload_of
from lowtide.core.webhooks.signature import signed_headers
from lowtide.ports.clock import Clock
from lowtide.ports.store import StoreError
from lowtide.ports.webhooks import ClaimedDelivery, OutboxStore, Recorded, WebhookSender

log = structlog.get_logger(__name__)


class DeliverLoop:
    """One per worker."""

    name = "webhooks"

    def __init__(
        self,
        worker_id: str,
        outbox: OutboxStore,
        sender: WebhookSender,
        clock: Clock,
        wake: Callable[[], None],
    ) -> None:
        """`wake` asks for a tick of this loop: a place has come free."""
        self._worker_id = worker_id
        self._outbox = outbox
        self._sender = sender
        self._clock = clock
        self._wake = wake
        self._under_way: set[asyncio.Task[None]] = set()
        self._forget_at: datetime | None = None
        self._is_full = False
        self._is_closing = False

    async def tick(self, now: datetime) -> datetime | None:
        await self._forget(now)
        again = now + timedelta(seconds=limits.WEBHOOKS_POLL_S)
        free = limits.WEBHOOKS_IN_FLIGHT - len(self._under_way)
        if free <= 0 or self._is_closing:
            self._is_full = True
            return again
        claimed = await self._outbox.claim(
            self._worker_id,
            now,
            limits.WEBHOOK_LEASE_S,
            free=free,
            most=limits.WEBHOOKS_IN_FLIGHT_SHARE,
        )
        if self._is_closing:  # meanwhile: nobody waits for tasks any more
            await self._outbox.release(self._worker_id)
            return again
        self._is_full = bool(claimed)  # more may wait for a place, which comes free with each end
        for each in claimed:
            task = asyncio.get_running_loop().create_task(self._deliver(each))
            self._under_way.add(task)
            task.add_done_callback(self._ended)
        return again

    async def aclose(self, within_s: float) -> None:
        """Begins nothing more, waits so long for what is under way, then lets go of it: whoever
        starts next sends it again.
        """
        self._is_closing = True
        if self._under_way:
            _, late = await asyncio.wait(self._under_way, timeout=within_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        try:
            await self._outbox.release(self._worker_id)
        except StoreError as error:  # the leases will run out
            log.warning("webhooks.not_released", error=str(error))

    async def _deliver(self, claimed: ClaimedDelivery) -> None:
        delivery, now = claimed.delivery, self._clock.now()
        body = payload_of(delivery.event_id, delivery.type, delivery.batch_id, delivery.created_at)
        headers = signed_headers(delivery.event_id, body, now, claimed.secrets)
        attempt = await self._sender.send(delivery.url, headers, body)
        try:
            recorded = await self._outbox.record(claimed, attempt, self._clock.now())
        except StoreError as error:
            log.warning("webhook.not_recorded", event_id=delivery.event_id, error=str(error))
            return
        if recorded is not None:
            _tell(recorded)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("webhook.broke", exc_info=error)
        if self._is_full and not self._is_closing:
            self._wake()

    async def _forget(self, now: datetime) -> None:
        """Deletes what is long over, in steps."""
        if self._forget_at is not None and now < self._forget_at:
            return
        before = now - timedelta(seconds=limits.WEBHOOK_DELIVERIES_KEEP_S)
        gone = await self._outbox.forget(before, most=limits.WEBHOOK_FORGET_ROWS)
        if gone < limits.WEBHOOK_FORGET_ROWS:
            self._forget_at = now + timedelta(seconds=limits.WEBHOOK_FORGET_EVERY_S)


def _tell(recorded: Recorded) -> None:
    delivery = recorded.delivery
    if delivery.state == "delivered":
        log.debug("webhook.delivered", **_facts(delivery))
    else:
        log.info("webhook.failed", **_facts(delivery), error=delivery.error)
    if recorded.disabled_reason is not None:
        log.warning(
            "webhook.disabled",
            webhook=delivery.endpoint_id,
            project=delivery.project_id,
            reason=recorded.disabled_reason,
        )


def _facts(delivery: Delivery) -> dict[str, object]:
    return {
        "event_id": delivery.event_id,
        "webhook": delivery.endpoint_id,
        "project": delivery.project_id,
        "attempts": delivery.attempts,
        "state": delivery.state,
    }
