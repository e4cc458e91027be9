"""Workers that share replicas over one real store, each with a clock of its own."""

from datetime import UTC, datetime, timedelta

from lowtide.core.dispatch.replica import Replica
from lowtide.loops.replicas.ownership import OwnershipLoop
from lowtide.ports.ownership import OwnershipStore

TTL_S = 30.0
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


class Turned:
    """A clock that begins anywhere and runs at a rate of its own (ports/clock.py)."""

    def __init__(self, harness: "Fleet", begins_s: float, rate: float) -> None:
        self._yard = harness
        self._begins_s = begins_s
        self._rate = rate

    def now(self) -> datetime:
        return NOON + timedelta(seconds=self._begins_s)  # wrong, and of no consequence

    def monotonic(self) -> float:
        return self._begins_s + self._yard.at_s * self._rate

    async def sleep(self, seconds: float) -> None:
        raise AssertionError(f"a tick does not sleep ({seconds} s)")


class Worker:
    """A loop and the hands that it moves."""

    def __init__(
        self, harness: "Fleet", worker_id: str, names: tuple[str, ...], begins_s: float, rate: float
    ) -> None:
        self.id = worker_id
        self.clock = Turned(harness, begins_s, rate)
        self.replicas = {name: Replica(name, frozenset({f"of {name}"}), 4) for name in names}
        self.announced = 0
        self.retreats: list[tuple[frozenset[str], frozenset[str]]] = []
        self.loop = OwnershipLoop(
            worker_id, harness.store, self.clock, self.replicas, (), self, lease_ttl_s=TTL_S
        )

    def announce(self) -> None:
        self.announced += 1

    def release_replicas(self, replica_names: frozenset[str], models: frozenset[str]) -> None:
        self.retreats.append((replica_names, models))
        for name in replica_names:
            self.replicas[name].in_flight = 0

    @property
    def sends_to(self) -> set[str]:
        now_s = self.clock.monotonic()
        return {name for name, replica in self.replicas.items() if replica.has_room(now_s)}

    def relist(self, *names: str) -> None:
        """Gets a new list, as the replica set tells it."""
        for name in names:
            if name not in self.replicas:
                self.replicas[name] = Replica(name, frozenset({f"of {name}"}), 4)
        for name in self.replicas.keys() - set(names):
            self.replicas[name].own_until(float("-inf"))
        self.loop.replicas_changed({name: self.replicas[name] for name in names}, ())

    async def tick(self) -> float:
        """How many seconds later it wants to be asked again."""
        again_at = await self.loop.tick(self.clock.now())
        assert again_at is not None
        return (again_at - self.clock.now()).total_seconds()

    async def hear(self) -> float:
        """A tick after an announcement."""
        self.loop.announce()
        return await self.tick()


class Fleet:
    """`at_s` is the time that is really passing."""

    def __init__(self, store: OwnershipStore) -> None:
        self.store = store
        self.at_s = 0.0

    def worker(
        self, worker_id: str, *names: str, begins_s: float = 0.0, rate: float = 1.0
    ) -> Worker:
        return Worker(self, worker_id, names or ("r0", "r1"), begins_s, rate)

    async def settle(self, *workers: Worker) -> None:
        """Everybody hears of everything until nothing moves any more."""
        for _ in range(4):
            for worker in workers:
                await worker.hear()
