"""The verbs on batches: create, get, page, cancel, and what they cost.

Called by the API's batch routes. Guards two promises: whatever can be known to be wrong when a
batch is created is refused there, with the parameter at fault; and a client that repeats a create
because it got no answer has one batch, not two. What is in the lines is none of its business: that
is found by validation, and fails the batch, not the call (protocol.md section 8).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final, Literal

import msgspec

from lowtide import limits
from lowtide.core.accounts.batch_quota import BatchQuotaReached
from lowtide.core.accounts.catalogue import Catalogue
from lowtide.core.accounts.ledger import Cost
from lowtide.core.batches.batch import TERMINAL, Batch
from lowtide.core.batches.batch_filter import EVERY_BATCH, BatchFilter
from lowtide.core.errors import LowtideError
from lowtide.core.history.batch_events import USER
from lowtide.core.idempotency.request_key import KeyTaken, RequestKey
from lowtide.core.scheduling.feasibility import UNKNOWN, Feasibility, sentence
from lowtide.core.webhooks.endpoint import BatchWebhook
from lowtide.ports.clock import Clock, NewId
from lowtide.ports.store import Store, UnknownCursor
from lowtide.service.accounts.quotas import Quotas, too_many_batches
from lowtide.service.batches.forecasts import Forecasts
from lowtide.service.batches.new_batch import (
    CheckedBatchRequest,
    NewBatch,
    check_endpoint,
    check_input,
    check_model,
    check_window,
)
from lowtide.service.idempotency.idempotency import earlier_batch, reused
from lowtide.service.webhooks.webhooks import WebhookService

NOTHING_SPENT: Final = Cost()

Loop = Literal["validate", "dispatch", "assemble"]
"""The loops that `wake` may wake, so that nothing waits for the next poll."""


class Created(msgspec.Struct, frozen=True):
    """The batch, and a sentence for the user where something asked for will not happen.

    `verdict`: whether its window can be kept, by the first lines of its file. `existed`: it was
    made by an earlier create, which this one repeats.
    """

    batch: Batch
    warning: str | None = None
    verdict: Feasibility = UNKNOWN
    existed: bool = False


class Page(msgspec.Struct, frozen=True):
    """Batches, newest first; `more` when older ones follow."""

    batches: Sequence[Batch]
    more: bool


class BatchService:
    """The verbs. `wake` wakes a loop of this process; losing a wake-up costs a poll interval."""

    def __init__(
        self,
        store: Store,
        catalogue: Catalogue,
        clock: Clock,
        new_id: NewId,
        allowance: Quotas,
        wake: Callable[[Loop], None],
        prospects: Forecasts | None = None,
        webhooks: WebhookService | None = None,
    ) -> None:
        self._store = store
        self._catalogue = catalogue
        self._clock = clock
        self._new_id = new_id
        self._allowance = allowance
        self._wake = wake
        self._prospects = prospects
        self._webhooks = webhooks

    async def create(
        self,
        project_id: str,
        user_id: str,
        asked: NewBatch,
        *,
        repeat: bool = False,
        key: RequestKey | None = None,
    ) -> Created:
        """Records the batch and wakes validation. `repeat`: the client says that it asks once more,
        and means the batch that it was not told of, if there is one.

        `key`: the client's own for this request, which then says alone what is a repetition.
        Raises LowtideError with the parameter at fault, or for a limit or cap that is reached.
        """
        if (earlier := await earlier_batch(self._store, self._clock, project_id, key)) is not None:
            return Created(earlier, existed=True)
        draft = await self.check(project_id, asked)
        batch = self._new_batch(project_id, user_id, asked, draft)
        since = batch.created_at - timedelta(seconds=limits.REPEATED_POST_WINDOW_S)
        repeat = repeat and key is None  # a key says exactly which request is meant
        stored = None
        if repeat:  # looked for first: no limit may refuse what was accepted before
            stored = await self._store.batches.repeated(
                project_id, _digest(batch, draft.webhook), since=since, now=batch.created_at
            )
        verdict = await self.foresee(draft, asked.model_override)
        if stored is None:
            self._check_window(verdict)
            await self._allowance.check_batches_per_hour(project_id)
            await self._allowance.check_spend(project_id)
            stored = await self._add(
                batch, draft.webhook, key, repeated_since=since if repeat else None
            )
        self._wake("validate")
        warning = self._warning(verdict)
        return Created(stored, warning, verdict, existed=stored.id != batch.id)

    async def _add(
        self,
        batch: Batch,
        webhook: BatchWebhook | None,
        key: RequestKey | None,
        *,
        repeated_since: datetime | None,
    ) -> Batch:
        bounds = await self._allowance.of(batch.project_id)
        try:
            return await self._store.batches.add(
                batch,
                digest=_digest(batch, webhook),
                repeat=repeated_since is not None,
                since=repeated_since or batch.created_at,
                quota=bounds.batch_quota,
                webhook=webhook,
                key=key,
            )
        except BatchQuotaReached as reached:
            raise too_many_batches(bounds, reached.lack) from None
        except KeyTaken:
            assert key is not None
            raise reused(key) from None

    async def check(self, project_id: str, asked: NewBatch) -> CheckedBatchRequest:
        """Refuses what can be known to be wrong. Raises LowtideError with the parameter at
        fault.
        """
        window_s = check_window(asked, self._allowance.defaults.completion_window_s)
        file = await self._store.files.get(project_id, asked.input_file_id or "")
        if file is None:
            message = f"No such File object: {asked.input_file_id}"
            raise LowtideError("file_not_found", message, "input_file_id")
        check_input(file, self._clock.now())
        param = "model" if asked.model is not None else "model_id"
        check_model(asked.model_override, self._catalogue, param)
        webhook = None
        if asked.webhook and self._webhooks is not None:
            webhook = await self._webhooks.of_batch(project_id, asked.webhook)
        return CheckedBatchRequest(file, check_endpoint(asked.endpoint, file), window_s, webhook)

    async def mark_answered(self, batch_id: str) -> None:
        """Records that the client received the answer, so it will hardly ask once more."""
        await self._store.batches.mark_answered(batch_id, self._clock.now())

    async def get(self, project_id: str, batch_id: str) -> Batch:
        """Raises LowtideError `batch_not_found`."""
        batch = await self._store.batches.get(project_id, batch_id)
        if batch is None:
            raise batch_not_found(batch_id)
        return batch

    async def get_many(self, project_id: str, batch_ids: Collection[str]) -> dict[str, Batch]:
        """Those of the batches that are there, by id."""
        return await self._store.batches.get_many(project_id, batch_ids)

    async def page(
        self,
        project_id: str,
        *,
        after: str | None = None,
        limit: int,
        which: BatchFilter = EVERY_BATCH,
    ) -> Page:
        """Up to `limit` batches, newest first, beginning behind the id `after`.

        Raises LowtideError when `after` is no batch: an endless walk over a wrong cursor is worse.
        In steps: others are served between them.
        """
        batches: list[Batch] = []
        while len(batches) <= limit:
            step = min(limit + 1 - len(batches), limits.PAGE_STEP_BATCHES)
            try:
                more = await self._store.batches.page(
                    project_id, after=after, limit=step, which=which
                )
            except UnknownCursor:
                message = f"No batch found with id '{after}'."
                raise LowtideError("invalid_request", message, "after") from None
            batches += more
            if len(more) < step:
                break
            after = batches[-1].id
        return Page(batches[:limit], more=len(batches) > limit)

    async def cancel(self, project_id: str, batch_id: str, actor: str = USER) -> Batch:
        """Stops the batch; what finished is kept. One that is past cancelling comes back unchanged.

        Raises LowtideError `batch_not_found`, or `invalid_request` when it ended otherwise.
        """
        batch = await self._store.batches.cancel(project_id, batch_id, self._clock.now(), actor)
        if batch is None:
            raise batch_not_found(batch_id)
        if batch.status in TERMINAL:  # OpenAI's words, which clients look for
            raise LowtideError(
                "batch_ended", f"Cannot cancel a batch with status '{batch.status}'."
            )
        self._wake("dispatch")
        self._wake("assemble")
        return batch

    async def foresee(self, draft: CheckedBatchRequest, model: str | None = None) -> Feasibility:
        """Whether the window can be kept, by the first lines of the file. `model`: of all lines,
        whatever they name.
        """
        if self._prospects is None:
            return UNKNOWN
        return await self._prospects.for_file(draft.file, draft.endpoint, draft.window_s, model)

    async def costs(self, batches: Sequence[Batch]) -> list[Cost]:
        """The charges of each batch so far."""
        known = await self._store.ledger.cost([batch.id for batch in batches])
        return [known.get(batch.id, NOTHING_SPENT) for batch in batches]

    async def costs_by_model(self, batch: Batch) -> Mapping[str, Cost]:
        """The charges of the batch so far, by model."""
        models = await self._store.batches.models(batch.id)
        if len(models) > 1:
            return await self._store.ledger.cost_by_model(batch.id)
        known = await self._store.ledger.cost([batch.id])
        return dict.fromkeys(models, known[batch.id]) if known else {}

    def _new_batch(
        self, project_id: str, user_id: str, asked: NewBatch, draft: CheckedBatchRequest
    ) -> Batch:
        now, expiry = self._clock.now(), asked.output_expires_after
        return Batch(
            id=self._new_id("batch_"),
            project_id=project_id,
            user_id=user_id,
            dialect=draft.file.dialect,
            input_file_id=draft.file.id,
            input_bytes=draft.file.bytes,
            endpoint=draft.endpoint,
            completion_window_s=draft.window_s,
            metadata=dict(asked.metadata or {}),
            priority=asked.priority or 0,
            output_expires_after_s=expiry.seconds if expiry else self._allowance.defaults.results_s,
            created_at=now,
            expires_at=now + timedelta(seconds=draft.window_s),
            model_override=asked.model_override,
            deletes_input=asked.delete_input,
            webhook=draft.webhook.shown if draft.webhook is not None else None,
        )

    def _check_window(self, verdict: Feasibility) -> None:
        """Checks that the window can be kept. Raises LowtideError where other
        windows are refused.
        """
        if verdict.kept == "infeasible" and self._allowance.defaults.infeasible == "refuse":
            raise LowtideError("window_infeasible", sentence(verdict), "completion_window")

    def _warning(self, verdict: Feasibility) -> str | None:
        warnings = []
        if verdict.reason is not None:
            warnings.append(sentence(verdict))
        if not self._catalogue.entries:
            warnings.append("No replica is configured: validation will find no model to run on.")
        return " ".join(warnings) or None


def _digest(batch: Batch, webhook: BatchWebhook | None) -> str:
    """A digest of the request, so that a repetition can be told from another one."""
    asked_for: tuple[object, ...] = (
        batch.project_id,
        batch.input_file_id,
        batch.endpoint,
        batch.completion_window_s,
        sorted(batch.metadata.items()),
        batch.priority,
        batch.output_expires_after_s,
        batch.model_override,
        batch.deletes_input,
    )
    if webhook is not None:  # else as versions before webhooks have it
        asked_for += (webhook.endpoint_id, webhook.url)
    return sha256(msgspec.json.encode(asked_for)).hexdigest()


def batch_not_found(batch_id: str) -> LowtideError:
    """The refusal of an id that names no batch of the project."""
    return LowtideError("batch_not_found", f"No batch found with id '{batch_id}'.")
