"""The work cycle of one batch under any order of events, against a model that fits on a page.

Workers claim, commit, repeat commits, pause, wake up late; leases run out; the process crashes; the
batch is cancelled or expires, is assembled; prices and the spend cap change. Whatever the order:
each request's outcome is stored once, by whom the model says may store it; bitmap, counts, usage
and slices agree; nothing falls; the ledger is the price of the stored successes, to the last digit;
and nothing is begun for an organization that has reached its cap.

SQLite runs in the caller's thread here, its files in memory where the system has such a folder: a
walk is thousands of statements, and the contract suites have the driver's thread and the disk.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)
from sqlalchemy import select

from lowtide.core.accounts.money import FREE, ModelPrices, UnitPrices
from lowtide.core.accounts.tenancy import DEFAULT_ORGANIZATION, OrganizationLimits
from lowtide.core.batches.batch import ASSEMBLING, Counts
from lowtide.core.batches.chunk import ChunkKey, ChunkLease, done_count, missing
from lowtide.core.execution.records import GroupCommit
from lowtide.store.schema.tables import chunks
from lowtide.store.sql_store import SqlStore
from property_profiles import examples, unhurried
from testkit.postgres import PostgresServer
from testkit.sim.stores import Stores, sim_folder
from testkit.store_fixture import PER_ANSWER, TTL_S, StoreFixture, outcomes

SIZES = (3, 1, 4)
MODELS = ("m", "m", "n")
PRICES: tuple[dict[str, ModelPrices], ...] = (
    {"m": ModelPrices(live=UnitPrices(6, 4, 2), batch=UnitPrices(3, 2, 1))},
    {name: ModelPrices(batch=UnitPrices(10**16, 3, 10**17)) for name in MODELS},
    {},
)
PER_CHEAP_ANSWER = PRICES[0]["m"].batch.charge(PER_ANSWER)
CAPS = (0, 2 * PER_CHEAP_ANSWER, 10**19, None)
WORKERS = st.sampled_from(["w1", "w2"])
PICKS = st.tuples(*[st.sampled_from([True, None, False])] * 4).map(
    lambda oks: {index: ok for index, ok in enumerate(oks) if ok is not None}
)


class WorkCycle(RuleBasedStateMachine):
    """`done[seq]` are the stored indices, `owner[seq]` the (worker, token) that may store more."""

    leases: Bundle[tuple[str, ChunkLease]] = Bundle("leases")
    beats: Bundle[GroupCommit] = Bundle("beats")
    stores: Stores
    """Kept from walk to walk: compiled statements are costly."""

    @initialize(
        target=leases, cap=st.sampled_from(CAPS[:2]), limit=st.integers(0, 3), worker=WORKERS
    )
    def a_batch_in_progress(self, cap: int, limit: int, worker: str):
        self.make_database()
        self.runner = asyncio.Runner()
        self.world = StoreFixture(self.connected())
        self.batch = self.runner.run(
            self.world.running(*zip(MODELS, SIZES, strict=True), window_s=7 * 24 * 3600)
        )
        self.status = "in_progress"
        self.done: list[dict[int, bool]] = [{} for _ in SIZES]
        self.owner: list[tuple[str, int] | None] = [None] * len(SIZES)
        self.expiry = [self.world.now] * len(SIZES)
        self.last = Counts()
        self.charges: Counter[tuple[str, str]] = Counter()
        self.paused_at: datetime | None = None
        self.the_cap_changes(cap)
        return self.claim(worker, limit)

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self.disconnect()
            self.runner.close()
            self.drop_database()

    # ---- where the state is

    def make_database(self) -> None:
        self.stores.renew()

    def drop_database(self) -> None:
        """The next one takes its place."""

    def connected(self) -> SqlStore:
        self.store = self.stores.of(0)
        self.runner.run(self.store.open())
        return self.store

    def disconnect(self) -> None:
        self.runner.run(self.store.aclose())

    def leave_what_a_crash_leaves(self) -> None:
        """The files as they lie, and nothing that closing would still have written."""
        path = self.stores.path
        left = {
            file: file.read_bytes()
            for file in path.parent.glob(f"{path.name}*")
            if not file.name.endswith("-shm")
        }
        self.disconnect()
        self.stores.remove()
        for file, content in left.items():
            file.write_bytes(content)

    # ---- what may happen

    @rule(target=leases, worker=WORKERS, limit=st.integers(1, 3))
    def claim(self, worker: str, limit: int):
        found = self.runner.run(self.world.claim(limit, worker=worker, models=("m", "n")))
        waiting = [
            seq
            for seq in range(len(SIZES))
            if self.owner[seq] is None and len(self.done[seq]) < SIZES[seq]
        ]
        runs = self.status == "in_progress" and self.paused_at is None
        expected = waiting[:limit] if runs else []
        assert [lease.key.seq for lease in found] == expected
        for lease in found:
            seq = lease.key.seq
            assert set(missing(lease.done, lease.count)) == set(range(SIZES[seq])) - set(
                self.done[seq]
            )
            self.owner[seq] = (worker, lease.token)
            self.expiry[seq] = lease.expires_at
        return multiple(*((worker, lease) for lease in found))

    @rule(
        target=beats,
        held=leases,
        picks=PICKS,
        prices=st.sampled_from(PRICES),
        end=st.sampled_from(["hold", "release", "forget"]),
    )
    def beat(
        self,
        held: tuple[str, ChunkLease],
        picks: dict[int, bool],
        prices: dict[str, ModelPrices],
        end: str,
    ) -> GroupCommit:
        """Finish what this lease has left of the picked requests, as a real worker would."""
        self.world.prices = prices
        worker, lease = held
        stored = self.done[lease.key.seq] if self._owns(worker, lease) else {}
        picks = {i: ok for i, ok in picks.items() if i < lease.count and i not in stored}
        failed = [index for index, ok in picks.items() if not ok]
        beat = self.world.beat(
            *([outcomes(lease, picks, failed=failed)] if picks else []),
            held=[lease] if end == "hold" else [],
            released=[lease] if end == "release" else [],
            worker=worker,
        )
        self._commit(beat, lease, picks)
        return beat

    @rule(worker=WORKERS, picks=PICKS, prices=st.sampled_from(PRICES))
    def claim_and_finish_some(
        self, worker: str, picks: dict[int, bool], prices: dict[str, ModelPrices]
    ) -> None:
        """What a worker mostly does; its lease is left to run out, if it is not done with it."""
        found = self.runner.run(self.world.claim(1, worker=worker, models=("m", "n")))
        for lease in found:
            self.owner[lease.key.seq] = (worker, lease.token)
            self.expiry[lease.key.seq] = lease.expires_at
            self.beat((worker, lease), picks, prices, "forget")

    @rule(beat=beats)
    def repeat_a_beat(self, beat: GroupCommit) -> None:
        """An old commit again: its outcomes are stored or refused by now, and stay what they
        are."""
        counts = self.runner.run(self.world.see(self.batch)).counts
        receipt = self.runner.run(self.store.work.commit_group(beat))
        assert self.runner.run(self.world.see(self.batch)).counts == counts
        assert receipt.settled == frozenset()
        self._after_release_or_renewal(beat)

    @rule(seconds=st.sampled_from([1.0, TTL_S / 2, TTL_S]))
    def time_passes_and_leases_are_reaped(self, seconds: float) -> None:
        self.world.pass_time(seconds)
        late = [
            seq
            for seq, owner in enumerate(self.owner)
            if owner is not None and self.expiry[seq] <= self.world.now
        ]
        assert self.runner.run(self.store.work.reap(self.world.now)) == len(late)
        for seq in late:
            self.owner[seq] = None

    @rule(event=st.sampled_from([None] * 9 + ["cancel", "cancel", "expire"]))
    def stop(self, event: str | None) -> None:
        """Seldom: most of what may go wrong does so while the batch runs."""
        if event == "cancel":
            seen = self.runner.run(self.store.batches.cancel("p1", self.batch.id, self.world.now))
            if self.status == "in_progress":
                self.status = "cancelling"
            assert seen is not None
            assert seen.status == self.status
        elif event == "expire" and self.status == "in_progress":
            due = self.batch.expires_at
            assert self.runner.run(self.store.lifecycle.expire_due(due)) == [self.batch.id]
            self.status = "expiring"

    @precondition(lambda self: self.status in ASSEMBLING)
    @rule()
    def assemble(self) -> None:
        claim = self.store.lifecycle.claim_assembly("a", self.world.now, TTL_S)
        lease = self.runner.run(claim)
        assert (lease is None) == any(owner is not None for owner in self.owner)
        if lease is not None:
            self.runner.run(self.store.lifecycle.release_task(lease))
            ended = self.runner.run(self.world.assemble(self.batch))
            assert ended.counts == Counts(sum(SIZES), self.last.completed, ended.counts.failed)
            assert ended.counts.settled == sum(SIZES)
            self.status = ended.status

    @rule()
    def crash(self) -> None:
        """The process is gone, as its files lie; a new one opens what they hold."""
        self.leave_what_a_crash_leaves()
        self.world.store = self.connected()

    # ---- money

    @precondition(lambda self: self.paused_at is not None)
    @rule(cap=st.sampled_from(CAPS))
    def the_cap_changes(self, cap: int | None) -> None:
        change = self.store.tenants.change_organization
        limits = OrganizationLimits()
        now = self.world.now
        changed = change(DEFAULT_ORGANIZATION, limits=limits, spend_cap_pico=cap, now=now)
        assert self.runner.run(changed)
        self.cap = cap
        self._resume_below_cap(now)

    @precondition(lambda self: self.paused_at is not None)
    @rule(new_month=st.booleans())
    def unpause(self, new_month: bool) -> None:
        if new_month:
            year, month = divmod(self.world.now.year * 12 + self.world.now.month, 12)
            self.world.now = self.world.now.replace(year=year, month=month + 1, day=1)
        self._resume_below_cap(self.world.now)
        resumed = self.paused_at is None and self.status == "in_progress"
        ids = self.runner.run(self.store.ledger.unpause(self.world.now))
        assert ids == ([self.batch.id] if resumed else [])

    # ---- what always holds

    @invariant()
    def counts_bitmaps_slices_and_usage_agree(self) -> None:
        if not hasattr(self, "batch"):
            return
        seen = self.runner.run(self.world.see(self.batch))
        assert seen.status == self.status
        if seen.ended_at is not None:
            return
        ok = sum(sum(chunk.values()) for chunk in self.done)
        stored = sum(len(chunk) for chunk in self.done)
        assert (seen.counts.completed, seen.counts.settled) == (ok, stored)
        assert seen.counts.completed >= self.last.completed
        assert seen.counts.failed >= self.last.failed
        self.last = seen.counts
        assert seen.usage.input_tokens == 10 * ok
        rows = self.runner.run(self.store.results.slices(self.batch.id))
        assert [row.seq for row in rows] == list(range(len(rows)))
        assert sum(row.completed for row in rows) == ok
        assert sum(row.completed + row.failed for row in rows) == stored
        bitmaps = self.runner.run(self._bitmaps())
        assert [
            set(range(size)) - set(missing(bits, size))
            for bits, size in zip(bitmaps, SIZES, strict=True)
        ] == [set(chunk) for chunk in self.done]
        assert sum(done_count(bits) for bits in bitmaps) == stored

    @invariant()
    def the_ledger_is_the_price_of_what_is_stored(self) -> None:
        if not hasattr(self, "batch"):
            return
        entries = self.runner.run(self.store.ledger.entries(self.batch.id))
        booked: Counter[tuple[str, str]] = Counter()
        for entry in entries:
            assert entry.charge_pico == entry.batch_prices.charge(entry.usage)
            booked[f"{entry.at:%Y-%m}", entry.model] += entry.charge_pico
        assert +booked == +self.charges
        successes = sum(sum(chunk.values()) for chunk in self.done)
        assert sum(entry.requests for entry in entries) == successes
        costs = self.runner.run(self.store.ledger.cost([self.batch.id]))
        assert (self.batch.id in costs) == bool(entries)
        if entries:
            cost = costs[self.batch.id]
            assert (cost.requests, cost.usage.input_tokens) == (successes, 10 * successes)
            assert cost.charge_pico == self.charges.total()
        now = self.world.now
        spent = self.runner.run(self.store.ledger.spent_pico(DEFAULT_ORGANIZATION, _month(now)))
        assert spent == self._spent(now)

    @invariant()
    def no_chunk_of_a_paused_batch_waits(self) -> None:
        if not hasattr(self, "batch"):
            return
        seen = self.runner.run(self.world.see(self.batch))
        paused = self.paused_at is not None and self.status == "in_progress"
        assert seen.holds == (("spend_cap",) if paused else ())
        states = self.runner.run(self._states())
        for seq, state in enumerate(states):
            assert (state == "leased") == (self.owner[seq] is not None)
            assert state in ("leased", "done", self._unleased_state()), states

    # ---- the model

    def _owns(self, worker: str, lease: ChunkLease) -> bool:
        return self.owner[lease.key.seq] == (worker, lease.token)

    def _commit(self, beat: GroupCommit, lease: ChunkLease, picks: dict[int, bool]) -> None:
        seq = lease.key.seq
        owns = self._owns(beat.worker_id, lease)
        named = bool(beat.slices or beat.held or beat.released)
        receipt = self.runner.run(self.store.work.commit_group(beat))
        assert receipt.lost == ({lease.key} if named and not owns else set())
        if owns:
            self.done[seq] |= picks
            self._charge(MODELS[seq], sum(picks.values()), beat)
        if self.status == "in_progress" and self._all_done():
            self.status = "finalizing"
            assert receipt.settled == {self.batch.id}
        else:
            assert receipt.settled == set()
        self._after_release_or_renewal(beat)

    def _after_release_or_renewal(self, beat: GroupCommit) -> None:
        for seq, owner in enumerate(self.owner):
            entry = (ChunkKey(self.batch.id, seq), owner[1]) if owner else None
            if owner is None or entry is None or owner[0] != beat.worker_id:
                continue
            if entry in beat.released or len(self.done[seq]) == SIZES[seq]:
                self.owner[seq] = None
            elif entry in beat.held:
                at = beat.now.timestamp() + TTL_S
                self.expiry[seq] = type(beat.now).fromtimestamp(at, tz=beat.now.tzinfo)

    def _charge(self, model: str, successes: int, beat: GroupCommit) -> None:
        price = beat.prices.get(model, FREE).batch
        charge = successes * price.charge(PER_ANSWER)
        self.charges[f"{beat.now:%Y-%m}", model] += charge
        reached = self.cap is not None and self._spent(beat.now) >= self.cap
        if charge and reached and self.paused_at is None:
            self.paused_at = beat.now

    def _spent(self, at: datetime) -> int:
        return sum(self.charges[f"{at:%Y-%m}", model] for model in set(MODELS))

    def _resume_below_cap(self, at: datetime) -> None:
        if self.cap is None or self._spent(at) < self.cap:
            self.paused_at = None

    def _unleased_state(self) -> str:
        if self.status != "in_progress":
            return "dropped"
        return "waiting" if self.paused_at is None else "paused"

    async def _states(self) -> list[str]:
        async with self.store._db.read() as conn:
            statement = select(chunks.c.state).where(chunks.c.batch_id == self.batch.id)
            return list(await conn.scalars(statement.order_by(chunks.c.seq)))

    def _all_done(self) -> bool:
        return all(len(chunk) == size for chunk, size in zip(self.done, SIZES, strict=True))

    async def _bitmaps(self) -> list[bytes]:
        async with self.store._db.read() as conn:
            statement = select(chunks.c.done).where(chunks.c.batch_id == self.batch.id)
            return list(await conn.scalars(statement.order_by(chunks.c.seq)))


def _month(at: datetime) -> datetime:
    return at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


class WorkCycleOnPostgres(WorkCycle):
    """The same walk; a crash is the end of the process, the server lives on."""

    server: PostgresServer

    def make_database(self) -> None:
        self.made = ExitStack()
        self.name = self.made.enter_context(self.server.database("head"))

    def drop_database(self) -> None:
        self.made.close()

    def connected(self) -> SqlStore:
        self.store = SqlStore(self.server.url(self.name))
        self.runner.run(self.store.open())
        return self.store

    def leave_what_a_crash_leaves(self) -> None:
        self.disconnect()


_WALKS = settings(
    max_examples=examples(50, factor=4),
    stateful_step_count=25,
    suppress_health_check=unhurried(HealthCheck.filter_too_much),
)


class TestWorkCycle(WorkCycle.TestCase):
    settings = _WALKS

    @pytest.fixture(autouse=True)
    def on_these_stores(self) -> Iterator[None]:
        with sim_folder() as folder:
            WorkCycle.stores = Stores(folder)
            yield


class TestWorkCycleOnPostgres(WorkCycleOnPostgres.TestCase):
    # Fewer walks: a round trip to a server costs more than a call, and the walk is the same.
    settings = settings(_WALKS, max_examples=examples(12, factor=4))

    @pytest.fixture(autouse=True)
    def on_this_server(self, postgres: PostgresServer) -> None:
        WorkCycleOnPostgres.server = postgres
