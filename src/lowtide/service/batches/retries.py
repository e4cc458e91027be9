"""Retries: a new batch over those lines of a stored input that had no success, without an upload.

Called by the API's retry route. The rules are those of core/batches/retry.py. Invariants: what a
retry covers was decided from every batch of its tree, all of them ended, as the store checks when
it inserts; the input is neither copied nor read here, the retry refers to it.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta

import msgspec

from lowtide import limits
from lowtide.core.accounts.batch_quota import BatchQuotaReached
from lowtide.core.accounts.catalogue import Catalogue
from lowtide.core.batches.batch import PASSING_ERRORS, Batch
from lowtide.core.batches.failures import FailureGroup, most_frequent
from lowtide.core.batches.line_sets import (
    NO_FAILED_LINES,
    FailedLines,
    Lines,
    pack_lines,
    unpack_failed,
    unpack_lines,
)
from lowtide.core.batches.retry import (
    RETRY_ONLY,
    MemberOutcome,
    RetryOnly,
    chosen,
    is_asked,
    without_success,
)
from lowtide.core.errors import LowtideError
from lowtide.core.files.file import File
from lowtide.core.idempotency.request_key import KeyTaken, RequestKey
from lowtide.ports.clock import Clock, NewId
from lowtide.ports.retries import RetryConflict
from lowtide.ports.store import Store
from lowtide.service.accounts.quotas import Quotas, too_many_batches
from lowtide.service.batches.batches import batch_not_found
from lowtide.service.batches.new_batch import (
    check_input,
    check_metadata,
    check_model,
    check_priority,
    checked_window_s,
    invalid_value,
)
from lowtide.service.idempotency.idempotency import earlier_batch, reused
from lowtide.service.off_loop import off_loop

Wake = Callable[[str], None]


class RetryBatch(msgspec.Struct, frozen=True, kw_only=True):
    """A retry as asked for. None: as the batch that is retried has it; no `codes`, no `groups` of
    failures: any."""

    only: str = "all_unsuccessful"
    codes: Sequence[str] = ()
    groups: Sequence[str] = ()
    model: str | None = None
    completion_window: str | None = None
    priority: int | None = None
    metadata: Mapping[str, str] | None = None
    idempotency_key: str | None = None


class RetryService:
    """Makes retries, and says what one would run and which failures a batch has."""

    def __init__(
        self,
        store: Store,
        catalogue: Catalogue,
        clock: Clock,
        new_id: NewId,
        allowance: Quotas,
        wake: Wake,
    ) -> None:
        self._store = store
        self._catalogue = catalogue
        self._clock = clock
        self._new_id = new_id
        self._allowance = allowance
        self._wake = wake

    async def retry(
        self,
        project_id: str,
        user_id: str,
        batch_id: str,
        asked: RetryBatch,
        key: RequestKey | None = None,
    ) -> Batch:
        """Makes the batch that runs again what had no success. Raises LowtideError: why not."""
        if (earlier := await earlier_batch(self._store, self._clock, project_id, key)) is not None:
            return earlier
        only = _checked(asked)
        check_model(asked.model, self._catalogue)
        for _ in range(limits.RETRY_TRIES_MAX):
            batch = await self._ended(project_id, batch_id)
            tree = await self._store.retries.tree(project_id, batch.tree_id)
            _require_rest(batch, tree)
            await self._check_input(batch)
            covered = await self._covered(batch, tree, only, asked)
            fresh = self._new_batch(user_id, batch, asked)
            packed = None if covered is None else pack_lines(covered)
            try:
                added = await self._add(fresh, packed, len(tree), key)
            except RetryConflict as conflict:
                if conflict.unfinished is not None:
                    raise _unfinished(conflict.unfinished, batch) from None
            else:
                self._wake("validate")
                return added
        raise LowtideError(
            "retry_unfinished", f"Retries of batch '{batch_id}' come and go; try again."
        )

    async def count(self, project_id: str, batch_id: str, asked: RetryBatch) -> int | None:
        """How many lines that retry would run now; None: all lines of a file that no batch planned.
        Raises LowtideError: why it would be refused, as far as that follows from its tree.
        """
        only = _checked(asked)
        batch = await self._ended(project_id, batch_id)
        tree = await self._store.retries.tree(project_id, batch.tree_id)
        _require_rest(batch, tree)
        await self._check_input(batch)
        covered = await self._covered(batch, tree, only, asked)
        return None if covered is None else len(covered)

    async def counts(self, project_id: str, batches: Sequence[Batch]) -> dict[str, int | None]:
        """The same of retries of all that these batches left, by id; what would be refused is
        missing. Of batches over one input the first that can be retried stands for all.
        """
        asked, counts = RetryBatch(), dict[str, int | None]()
        trees = await self._store.retries.trees(project_id, {each.tree_id for each in batches})
        files = await self._store.files.get_many(
            project_id, {each.input_file_id for each in batches}
        )
        counted: set[str] = set()
        for batch in batches:
            if batch.tree_id in counted:
                continue
            with suppress(LowtideError):
                _require_end(batch)
                tree = trees.get(batch.tree_id, ())
                _require_rest(batch, tree)
                self._require_input(batch, files.get(batch.input_file_id))
                covered = await self._covered(batch, tree, "all_unsuccessful", asked)
                counts[batch.id] = None if covered is None else len(covered)
                counted.add(batch.tree_id)
        return counts

    async def failures(self, project_id: str, batch_id: str) -> Sequence[FailureGroup]:
        """Groups of the batch's failures so far, the largest first. Raises LowtideError."""
        await self._batch(project_id, batch_id)
        return most_frequent(await self._store.retries.failures(batch_id))

    async def tree(self, project_id: str, batch_id: str) -> Sequence[Batch]:
        """The first batch of the tree and all its retries, as they were made. Raises LowtideError
        for a batch that is not there.
        """
        batch = await self._batch(project_id, batch_id)
        return await self._store.retries.tree(project_id, batch.tree_id)

    async def _batch(self, project_id: str, batch_id: str) -> Batch:
        """Raises LowtideError where the batch is not there."""
        batch = await self._store.batches.get(project_id, batch_id)
        if batch is None:
            raise batch_not_found(batch_id)
        return batch

    async def _ended(self, project_id: str, batch_id: str) -> Batch:
        """Raises LowtideError where the batch is not there, goes on, or failed its validation."""
        batch = await self._batch(project_id, batch_id)
        _require_end(batch)
        return batch

    async def _check_input(self, batch: Batch) -> None:
        """Raises LowtideError where the lines cannot be read any more."""
        file = await self._store.files.get(batch.project_id, batch.input_file_id)
        self._require_input(batch, file)

    def _require_input(self, batch: Batch, file: File | None) -> None:
        """Raises LowtideError where the lines cannot be read any more. `file` None: it is gone."""
        if file is None:
            raise LowtideError(
                "input_gone",
                f"The input of batch '{batch.id}', file '{batch.input_file_id}', was deleted or has"
                " expired, so its lines cannot be run again. Upload them and create a batch.",
            )
        check_input(file, self._clock.now())

    async def _covered(
        self, batch: Batch, tree: Sequence[Batch], only: RetryOnly, asked: RetryBatch
    ) -> Lines | None:
        """The lines to run again; None: the whole file, of which no line was ever planned.
        Raises LowtideError where there are none.
        """
        planned = [each for each in tree if each.counts.total]
        if not planned:  # cancelled or expired while it was validated
            if not asked.groups and is_asked(f"batch_{batch.status}", only, asked.codes):
                return None
            raise _nothing_to_retry(batch, NO_FAILED_LINES)
        left = await self._without_success(planned)
        lines = chosen(left, only, asked.codes, asked.groups).lines
        if not len(lines):
            raise _nothing_to_retry(batch, left)
        return lines

    async def _without_success(self, planned: Sequence[Batch]) -> FailedLines:
        """Raises LowtideError for a batch of which nothing was kept."""
        first, *retries = planned
        ids = [batch.id for batch in (first, *retries)]
        failed = await self._store.retries.line_sets(ids, "failed")
        succeeded = await self._store.retries.line_sets(ids, "succeeded")
        if missing := [batch_id for batch_id in ids if batch_id not in failed]:
            raise LowtideError(
                "input_gone",
                f"Batch '{missing[0]}' ended before this server kept which lines failed: create a"
                " batch of the lines in its error file.",
            )
        size = sum(map(len, (*failed.values(), *succeeded.values())))
        return await off_loop(
            first.project_id,
            size,
            lambda: without_success(
                unpack_failed(failed[first.id]),
                [
                    MemberOutcome(unpack_failed(failed[each.id]), unpack_lines(succeeded[each.id]))
                    for each in retries
                ],
            ),
        )

    async def _add(
        self, batch: Batch, covered: bytes | None, seen: int, key: RequestKey | None
    ) -> Batch:
        await self._allowance.check_batches_per_hour(batch.project_id)
        await self._allowance.check_spend(batch.project_id)
        bounds = await self._allowance.of(batch.project_id)
        try:
            return await self._store.retries.add(batch, covered, seen, bounds.batch_quota, key)
        except BatchQuotaReached as reached:
            raise too_many_batches(bounds, reached.lack) from None
        except KeyTaken:
            assert key is not None
            raise reused(key) from None

    def _new_batch(self, user_id: str, of: Batch, asked: RetryBatch) -> Batch:
        now = self._clock.now()
        window_s = checked_window_s(asked.completion_window, of.completion_window_s)
        return Batch(
            id=self._new_id("batch_"),
            project_id=of.project_id,
            user_id=user_id,
            dialect=of.dialect,
            input_file_id=of.input_file_id,
            input_bytes=of.input_bytes,
            endpoint=of.endpoint,
            completion_window_s=window_s,
            metadata=dict(of.metadata if asked.metadata is None else asked.metadata),
            priority=of.priority if asked.priority is None else asked.priority,
            output_expires_after_s=of.output_expires_after_s,
            created_at=now,
            expires_at=now + timedelta(seconds=window_s),
            retry_of=of.id,
            root_id=of.tree_id,
            model_override=asked.model or of.model_override,
            webhook=of.webhook,
        )


def _checked(asked: RetryBatch) -> RetryOnly:
    """Raises LowtideError for values that make no sense."""
    only = next((each for each in RETRY_ONLY if each == asked.only), None)
    if only is None:
        raise invalid_value(asked.only, RETRY_ONLY, "only")
    for field, named in (("codes", asked.codes), ("groups", asked.groups)):
        if len(named) > limits.RETRY_CODES_MAX:
            message = f"{field} has more than {limits.RETRY_CODES_MAX} entries."
            raise LowtideError("invalid_request", message, field)
    check_priority(asked.priority)
    check_metadata(asked.metadata or {})
    return only


def _require_end(batch: Batch) -> None:
    """Raises LowtideError where the batch goes on, or failed its validation."""
    if batch.ended_at is None:
        raise LowtideError(
            "batch_not_ended",
            f"Batch '{batch.id}' is {batch.status}: it can be retried once it has ended.",
        )
    if batch.status == "failed":
        raise _failed_validation(batch)


def _require_rest(batch: Batch, tree: Sequence[Batch]) -> None:
    """Raises LowtideError while a batch of the tree runs, or where it has too many."""
    for each in tree:
        if each.ended_at is None:
            raise _unfinished(each.id, batch)
    if len(tree) > limits.RETRIES_PER_TREE_MAX:
        raise LowtideError(
            "invalid_request",
            f"Batch '{batch.tree_id}' was retried {limits.RETRIES_PER_TREE_MAX} times: create a"
            " batch of the lines that are left.",
        )


def _unfinished(batch_id: str, of: Batch) -> LowtideError:
    return LowtideError(
        "retry_unfinished",
        f"Batch '{batch_id}' retries lines of batch '{of.tree_id}' and has not ended: wait for it,"
        " or cancel it.",
    )


def _failed_validation(batch: Batch) -> LowtideError:
    first = batch.errors[0] if batch.errors else None
    where = f"line {first.line}: " if first is not None and first.line is not None else ""
    why = f"{where}{first.message}" if first is not None else "it failed."
    is_passing = first is not None and first.code in PASSING_ERRORS
    remedy = (
        "Nothing is wrong with its file: create a new batch over it."
        if is_passing
        else "Mend the file and create a new batch."
    )
    return LowtideError(
        "batch_failed",
        f"Batch '{batch.id}' failed{'' if is_passing else ' in validation'}, so none of its lines"
        f" ran: {why} {remedy}",
    )


def _nothing_to_retry(batch: Batch, left: FailedLines) -> LowtideError:
    counts = left.counts()
    if not counts and not batch.counts.total:
        message = f"No line of batch '{batch.tree_id}' ran: it was {batch.status} before."
        return LowtideError("nothing_to_retry", message)
    if not counts:
        message = f"Every line of batch '{batch.tree_id}' has succeeded, there or in a retry."
        return LowtideError("nothing_to_retry", message)
    named = [f"{code}: {count:,}" for code, count in counts.items()][: limits.CODES_NAMED_IN_ERROR]
    return LowtideError(
        "nothing_to_retry",
        f"No line of batch '{batch.tree_id}' that is without success is asked for. Lines by code:"
        f" {', '.join(named)}.",
    )
