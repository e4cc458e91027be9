"""What losing a batch's results comes to: the decision between the reads and the writes of
store/integrity.py.

The opposite of `core.execution.settlement`, and like it without a database. Invariants: counters,
usage and ledger lose exactly what the lost slices had added; a bit is cleared only for a request
that will run again; a batch that was stopped stays stopped.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec.structs import asdict
from sqlalchemy import Row

from lowtide.core.accounts.ledger import LedgerEntry
from lowtide.core.batches.batch import INPUT_LOST, BatchError, Hold, with_hold
from lowtide.core.batches.chunk import done_count, freed_state
from lowtide.core.execution.charging import cost_of
from lowtide.core.integrity.consistency import PLAN_LOST, without_bits
from lowtide.core.usage import NO_USAGE, Usage
from lowtide.ports.integrity import RevertedResults
from lowtide.store.schema.rows import usage_of_row
from lowtide.store.statements.holds import SPEND_CAP, hold_values
from lowtide.store.statements.transitions import event_values

_ENDS: Final = frozenset((INPUT_LOST.code, PLAN_LOST.code))


class Loss(msgspec.Struct, frozen=True, kw_only=True):
    """Values to write, by table. `removed`: each lost slice as `(seq, completed, failed)`.

    `drops`: the batch ends here, and its waiting chunks leave the queue. `emptied`: result files
    that have no line any more.
    """

    batch: dict[str, Any]
    chunks: list[dict[str, Any]]
    models: list[dict[str, Any]]
    removed: list[tuple[int, int, int]]
    ledger: list[LedgerEntry]
    emptied: list[str]
    drops: bool
    taken_back: RevertedResults


def revert_results(
    batch: Row[Any],
    owner: Row[Any],
    chunk_rows: Sequence[Row[Any]],
    lost: Sequence[Row[Any]],
    entries: Sequence[LedgerEntry],
    bits: Mapping[int, bytes] | None,
    now: datetime,
    reason: BatchError | None,
) -> Loss | None:
    """Decides the loss of the slices `lost`, which were charged as `entries` say; see the port."""
    if not lost:
        return None
    stopped = is_stopped(batch)
    again = bits is not None and not stopped
    if again and not _are_bits_of(chunk_rows, lost, bits or {}):
        return None
    holds = _holds_after(batch, owner)
    cleared = (bits or {}) if again else {}
    undone = [_undo(entry, batch.results_seq + n, now) for n, entry in enumerate(entries)]
    values = _sums(batch, lost, undone) | {"results_seq": batch.results_seq + len(undone)}
    emptied = _emptied(batch, values)
    values |= emptied | _state_after_loss(batch, again, stopped, holds, now, reason)
    return Loss(
        batch=values,
        chunks=[_chunk_values(row, cleared.get(row.seq), again, holds) for row in chunk_rows],
        models=_model_values(batch.id, chunk_rows, lost, undone, cleared),
        removed=[(row.seq, row.completed, row.failed) for row in lost],
        ledger=undone,
        emptied=[getattr(batch, name) for name in emptied],
        drops=batch.status == "in_progress" and not again,
        taken_back=RevertedResults(
            sum(row.completed + row.failed for row in lost),
            -sum(entry.charge_pico for entry in undone),
            again,
        ),
    )


def is_stopped(batch: Row[Any]) -> bool:
    """Whether nothing of the batch runs any more, whatever happens to its results."""
    if batch.status == "finalizing":
        return any(error.code in _ENDS for error in batch.errors)
    return bool(batch.status != "in_progress")


def _are_bits_of(
    chunk_rows: Sequence[Row[Any]], lost: Sequence[Row[Any]], bits: Mapping[int, bytes]
) -> bool:
    """Whether they are set, and as many as the lost slices of each chunk hold."""
    counts: dict[int, int] = defaultdict(int)
    for row in lost:
        counts[row.chunk_seq] += row.completed + row.failed
    done_of = {row.seq: row.done for row in chunk_rows}
    return counts.keys() == done_of.keys() == bits.keys() and all(
        done_count(bits[seq]) == counts[seq]
        and done_count(without_bits(done, bits[seq])) == done_count(done) - counts[seq]
        for seq, done in done_of.items()
    )


def _undo(entry: LedgerEntry, seq: int, now: datetime) -> LedgerEntry:
    """The entry that takes `entry` back: the same prices, everything else negative."""
    return msgspec.structs.replace(
        entry,
        seq=seq,
        at=now,
        requests=-entry.requests,
        usage=_negative(entry.usage),
        charge_pico=-entry.charge_pico,
    )


def _negative(usage: Usage) -> Usage:
    return Usage(*(-value for value in msgspec.structs.astuple(usage)))


def _sums(
    batch: Row[Any], lost: Sequence[Row[Any]], undone: Sequence[LedgerEntry]
) -> dict[str, Any]:
    usage = usage_of_row(batch._mapping)
    for entry in undone:
        usage = usage + entry.usage
    return asdict(usage) | {
        "completed": batch.completed - sum(row.completed for row in lost),
        "failed": batch.failed - sum(row.failed for row in lost),
        "cost": cost_of(undone, batch.cost),
    }


def _emptied(batch: Row[Any], values: Mapping[str, Any]) -> dict[str, None]:
    """Columns of growing result files without a line: the next commit that has one makes it
    anew."""
    sides = (("completed", "output_file_id"), ("failed", "error_file_id"))
    return {
        column: None
        for count, column in sides
        if not values[count] and getattr(batch, column) is not None
    }


def _state_after_loss(
    batch: Row[Any],
    again: bool,
    stopped: bool,
    holds: tuple[Hold, ...],
    now: datetime,
    reason: BatchError | None,
) -> dict[str, Any]:
    """The state after the loss, and the columns that change with it; a process that assembles this
    batch loses its lease.
    """
    values: dict[str, Any] = {}
    if batch.status != "in_progress":
        values = {"task_owner": None, "task_expires_at": None}
    if again and batch.status == "finalizing":
        values |= event_values("finalizing", "results_lost", now)
        values |= {"in_progress_at": batch.in_progress_at, "finalizing_at": None}
        values |= hold_values(batch, holds, (), now)
    if not again and not stopped:
        if batch.status == "in_progress":
            values |= event_values("in_progress", "input_lost", now)
        why = reason or PLAN_LOST
        values |= {"errors": (*batch.errors, why), "errors_total": batch.errors_total + 1}
    return values


def _holds_after(batch: Row[Any], owner: Row[Any]) -> tuple[Hold, ...]:
    """The holds of the batch as it runs on: its own, and the spend cap's if that is reached."""
    return with_hold(batch.holds, SPEND_CAP) if owner.paused_at is not None else tuple(batch.holds)


def _chunk_values(
    row: Row[Any], lost: bytes | None, again: bool, holds: tuple[Hold, ...]
) -> dict[str, Any]:
    """The values of the chunks. A leased one stays leased: its worker finishes the rest, and the
    lease then runs out.
    """
    leased = row.state == "leased"
    if not again or lost is None:
        return {"seq": row.seq, "state": "leased" if leased else "dropped"}
    done = without_bits(row.done, lost)
    state = "leased" if leased else freed_state("in_progress", holds)
    return {"seq": row.seq, "state": state, "done": done, "settled": done_count(done)}


def _model_values(
    batch_id: str,
    chunk_rows: Sequence[Row[Any]],
    lost: Sequence[Row[Any]],
    undone: Sequence[LedgerEntry],
    cleared: Mapping[int, bytes],
) -> list[dict[str, Any]]:
    """What each model's sums change by, in the words of `group_commit.UPDATE_MODEL`."""
    model_of = {row.seq: row.model for row in chunk_rows}
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    usage: dict[str, Usage] = defaultdict(lambda: NO_USAGE)
    for row in lost:
        sums = counts[model_of[row.chunk_seq]]
        sums[0] -= row.completed
        sums[1] -= row.failed
    for row in chunk_rows:
        counts[row.model][2] += _settled_tokens(row, cleared.get(row.seq))
    for entry in undone:
        usage[entry.model] += entry.usage
    return [
        {
            "of_batch": batch_id,
            "of_model": model,
            "more_completed": completed,
            "more_failed": failed,
            "more_settled_tokens": tokens,
        }
        | {f"more_{field}": value for field, value in asdict(usage[model]).items()}
        for model, (completed, failed, tokens) in counts.items()
    ]


def _settled_tokens(row: Row[Any], lost: bytes | None) -> int:
    """The change of the settled part of the chunk's estimate, computed as settling it does."""
    if lost is None:
        return 0
    count, tokens = row._mapping["count"], row.input_tokens
    left = row.settled - done_count(lost)
    return int(tokens * left // count - tokens * row.settled // count)
