"""What commits come to, whatever workers send: the decision alone, without a database.

A walk of commits runs over a few chunks in memory: slices with any indices and tokens, from owners
and from others, repeated, with chunks held and given back, and leases that move on between them.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from lowtide.core.accounts.ledger import Cost
from lowtide.core.accounts.money import ModelPrices, UnitPrices
from lowtide.core.batches.batch import Batch, Counts
from lowtide.core.batches.chunk import NOTHING_DONE, ChunkKey, done_count, is_done
from lowtide.core.batches.segment import Slice
from lowtide.core.execution.records import (
    BatchRecord,
    ChunkRecord,
    GroupCommit,
    Settlement,
    StoredSlice,
)
from lowtide.core.execution.settled_work import corrections, settled_work
from lowtide.core.execution.settlement import settle
from lowtide.core.usage import Usage

NOW = datetime(2026, 11, 28, tzinfo=UTC)
MODELS = ("m0", "m1", "m0")  # of the chunks of a batch
COUNT = 5  # requests of a chunk
BATCHES = ("b0", "b1")
KEYS = [ChunkKey(batch_id, seq) for batch_id in BATCHES for seq in range(len(MODELS))]
PRICES = {"m0": ModelPrices(UnitPrices(3, 1, 7), UnitPrices(2, 1, 5))}


class Store:
    """Records in memory: what a settlement leaves is what the next commit finds."""

    def __init__(self) -> None:
        self.batches = {name: self._batch(name) for name in BATCHES}
        self.chunks = {key: self._chunk(key) for key in KEYS}
        self.slices: list[StoredSlice] = []
        self.bits: dict[ChunkKey, list[int]] = {key: [] for key in KEYS}
        self.tokens: dict[tuple[str, str], int] = {}
        self.charged: dict[str, int] = dict.fromkeys(BATCHES, 0)
        self.ends: list[str] = []
        self.files: list[str] = []

    def _batch(self, name: str) -> BatchRecord:
        batch = Batch(
            id=name,
            project_id="p",
            user_id="u",
            dialect="openai",
            input_file_id="f",
            input_bytes=1,
            endpoint="/v1/embeddings",
            status="in_progress",
            completion_window_s=3600,
            created_at=NOW,
            expires_at=NOW,
            counts=Counts(total=COUNT * len(MODELS)),
        )
        return BatchRecord(batch, "org", 0, None)

    def _chunk(self, key: ChunkKey) -> ChunkRecord:
        return ChunkRecord(
            batch_id=key.batch_id,
            seq=key.seq,
            organization_id="org",
            model=MODELS[key.seq],
            state="leased",
            worker_id="w",
            token=1,
            lease_expires_at=NOW,
            count=COUNT,
            input_tokens=17,
            cost=10.0,
            settled=0,
            done=NOTHING_DONE,
        )

    def lease_again(self, key: ChunkKey) -> None:
        chunk = self.chunks[key]
        if chunk.state in ("leased", "waiting"):
            self.chunks[key] = msgspec.structs.replace(
                chunk, state="leased", worker_id="w", token=chunk.token + 1, lease_expires_at=NOW
            )

    def commit(self, commit: GroupCommit) -> Settlement:
        stored = frozenset(
            ChunkKey(row.batch_id, row.chunk_seq)
            for row in self.slices
            if row.segment_key == commit.segment_key
        )
        named = {key for key, _ in commit.claims}
        chunks = {key: self.chunks[key] for key in named}
        batches = {key.batch_id: self.batches[key.batch_id] for key in named}
        settlement = settle(commit, chunks, batches, stored)
        for after in settlement.chunks:
            self.chunks[ChunkKey(after.before.batch_id, after.before.seq)] = (
                msgspec.structs.replace(
                    after.before,
                    state=after.state,
                    worker_id=after.before.worker_id if after.state == "leased" else None,
                    lease_expires_at=after.lease_expires_at,
                    done=after.done,
                    settled=after.settled,
                )
            )
        for batch_id, sums in settlement.batches.items():
            self._apply(batch_id, sums)
        for pair, model in settlement.models.items():
            self.tokens[pair] = self.tokens.get(pair, 0) + model.settled_tokens
        for entry in settlement.ledger:
            self.charged[entry.batch_id] += entry.charge_pico
        self.slices += settlement.slices
        self.files += [file.id for file in settlement.files]
        return settlement

    def _apply(self, batch_id: str, sums: Any) -> None:
        record = self.batches[batch_id]
        counts = Counts(record.batch.counts.total, sums.completed, sums.failed)
        batch = msgspec.structs.replace(
            record.batch,
            status="finalizing" if sums.ends else record.batch.status,
            counts=counts,
            usage=sums.usage,
            first_settled_at=sums.first_settled_at,
            last_settled_at=sums.last_settled_at,
            output_file_id=sums.output_file_id,
            error_file_id=sums.error_file_id,
        )
        self.ends += [batch_id] if sums.ends else []
        self.batches[batch_id] = BatchRecord(batch, "org", sums.results_seq, sums.cost)


def piece(key: ChunkKey, token: int, indices: tuple[int, ...], completed: int) -> Slice:
    completed = min(completed, len(indices))
    return Slice(
        key=key,
        token=token,
        offset=0,
        ok_bytes=completed,
        failed_bytes=len(indices) - completed,
        completed=completed,
        failed=len(indices) - completed,
        indices=indices,
        usage=Usage(3 * completed, completed, 2 * completed),
    )


keys = st.sampled_from(KEYS)
claims = st.lists(st.tuples(keys, st.integers(1, 3)), max_size=3, unique_by=lambda c: c[0])
pieces = st.builds(
    piece,
    keys,
    st.integers(1, 3),
    st.lists(st.integers(-1, COUNT), max_size=COUNT).map(tuple),
    st.integers(0, COUNT),
)


@st.composite
def commits(draw: st.DrawFn) -> GroupCommit:
    slices = draw(st.lists(pieces, max_size=4, unique_by=lambda each: each.key))
    return GroupCommit(
        worker_id=draw(st.sampled_from(["w", "w", "w", "other"])),
        segment_key=f"seg-{draw(st.integers(0, 10**9))}" if slices else None,
        slices=tuple(slices),
        held=tuple(draw(claims)),
        released=tuple(draw(claims)),
        now=NOW + timedelta(seconds=draw(st.integers(0, 100))),
        lease_ttl_s=30.0,
        prices=PRICES,
    )


steps = st.lists(st.one_of(commits(), keys), max_size=12)


def check(store: Store) -> None:
    """Bits, slices, sums, files, tokens and charges agree."""
    for key, chunk in store.chunks.items():
        assert chunk.settled == done_count(chunk.done) <= chunk.count
        assert (chunk.state == "done") <= (chunk.settled == chunk.count)
        assert (chunk.state == "leased") == (chunk.worker_id is not None)
        assert [n for n in range(COUNT) if is_done(chunk.done, n)] == sorted(store.bits[key])
    for batch_id, record in store.batches.items():
        batch = record.batch
        rows = [row for row in store.slices if row.batch_id == batch_id]
        assert [row.seq for row in rows] == list(range(record.results_seq))
        completed = failed = 0
        for row in rows:
            assert (row.completed_before, row.failed_before) == (completed, failed)
            completed, failed = completed + row.completed, failed + row.failed
        assert (completed, failed) == (batch.counts.completed, batch.counts.failed)
        assert completed + failed == sum(
            store.chunks[key].settled for key in KEYS if key.batch_id == batch_id
        )
        assert batch.usage == Usage(3 * completed, completed, 2 * completed)
        assert (batch.output_file_id is not None) == (completed > 0)
        assert (batch.error_file_id is not None) == (failed > 0)
        assert (record.cost or Cost()).charge_pico == store.charged[batch_id]
        assert (record.cost or Cost()).requests == completed
        assert store.ends.count(batch_id) == (completed + failed == batch.counts.total)
        for model in set(MODELS):
            of_model = [
                c for c in store.chunks.values() if (c.batch_id, c.model) == (batch_id, model)
            ]
            settled = sum(c.input_tokens * c.settled // c.count for c in of_model)
            assert store.tokens.get((batch_id, model), 0) == settled
    assert len(store.files) == len(set(store.files))


@given(steps=steps)
def test_whatever_workers_commit_each_bit_counts_once_and_all_sums_agree(
    steps: list[GroupCommit | ChunkKey],
) -> None:
    store = Store()
    for step in steps:
        if isinstance(step, ChunkKey):
            store.lease_again(step)
            continue
        before = dict(store.chunks)
        settlement = store.commit(step)
        accepted = {ChunkKey(row.batch_id, row.chunk_seq) for row in settlement.slices}
        for each in step.slices:
            if each.key in accepted:
                held = before[each.key]
                assert (held.state, held.worker_id, held.token) == (
                    "leased",
                    step.worker_id,
                    each.token,
                )
                assert not set(each.indices) & set(store.bits[each.key])
                store.bits[each.key] += each.indices
        for key, chunk in before.items():
            if (key, chunk.token) not in step.claims or chunk.worker_id != step.worker_id:
                assert store.chunks[key] == chunk
        check(store)


@given(commit=commits())
def test_a_repeated_commit_adds_nothing_and_loses_nothing_that_was_stored(
    commit: GroupCommit,
) -> None:
    store = Store()
    first = store.commit(commit)
    slices, batches = list(store.slices), dict(store.batches)
    again = store.commit(commit)
    assert store.slices == slices and store.batches == batches
    assert not again.ledger and not again.files and not again.receipt.settled
    kept = {ChunkKey(row.batch_id, row.chunk_seq) for row in first.slices}
    held = {key for key, _ in commit.held}
    assert not again.receipt.lost & (kept - held)


@given(commit=commits())
def test_charges_move_by_what_was_settled_and_by_what_is_given_back(commit: GroupCommit) -> None:
    store = Store()
    settlement = store.commit(commit)
    work = settled_work(settlement)
    assert work.keys() == settlement.models.keys()
    moved = sum(corrections(settlement, work).values())
    actual = sum(each.actual for each in work.values())
    estimated = sum(each.estimated for each in work.values())
    freed = sum(
        each.before.cost_per_request * (each.before.count - each.settled)
        for each in settlement.chunks
        if each.state not in ("leased", "done")
    )
    assert abs(moved - (actual - estimated - freed)) < 1e-9
