"""Leases chunks ahead of the windows.

How far ahead: about a second of work at the present rate, and more where claims take long; at least
one chunk, and never more input in memory than `LEASED_INPUT_BYTES_MAX`. After a claim that found
less than it asked for, the queue is dry: no more claims until work is announced or a poll is due.

What is leased ahead may be one organization's alone. So when work is announced, when an
organization's part runs short, and at each poll, a second claim looks for chunks of those that have
little or nothing ready here; their places at replicas are divided in core/dispatch/place_turns.py.
Called by loops/dispatch/dispatch.py.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime

from lowtide import limits
from lowtide.core.batches.chunk import ChunkKey, ChunkLease
from lowtide.core.scheduling.operating_hours import OperatingHours
from lowtide.loops.dispatch.attempt import Upstream
from lowtide.loops.dispatch.chunks import ChunkClaims, ChunkReader

_Takes = tuple[frozenset[str], frozenset[tuple[str, str]]]
"""Models that are served, and of these the (model, endpoint) of which no calls are taken."""


class Leasing:
    """Keeps the core supplied with leased chunks."""

    def __init__(
        self,
        claims: ChunkClaims,
        reader: ChunkReader,
        upstreams: Sequence[Upstream],
        hours: Callable[[], Mapping[str, OperatingHours]] = dict,
    ) -> None:
        """`reader` brings the core that it reads into. `hours` are asked at each claim, for
        settings change at run time; models that have some are claimed for in these alone."""
        self._claims = claims
        self._reader = reader
        self.core = self._core = core = reader.core
        self.upstreams = self._upstreams = upstreams
        self._hours = hours
        self._dry_until_s = float("-inf")
        self._announced = 0
        self._rate_per_s = 0.0
        self._claim_s = 0.0
        self._claim_below = self._claim_threshold()
        self._finished = core.finished
        self._measured_at_s: float | None = None
        self._seeks_others = False
        self._sought_at_s = float("-inf")
        self._claimed_at_s = float("-inf")
        self.waits_for_commit = False
        """Whether the last claim found no room in memory that a commit would give."""

    def announce(self) -> None:
        """Asks for a claim at the next tick: there may be new work."""
        self._dry_until_s = float("-inf")
        self._announced += 1
        self._seeks_others = True

    def record_claim_time(self, seconds: float) -> None:
        """Records the duration of a claim and its reads in seconds. The slowest recent one sets how
        far ahead to lease, because windows must not run dry meanwhile.
        """
        self._claim_s = max(seconds, limits.CLAIM_FADE * self._claim_s)
        self._claim_below = self._claim_threshold()

    def pop_unread_leases(self) -> list[tuple[ChunkKey, int]]:
        """Removes and returns the leases of chunks that were claimed and not read:
        to be given back.
        """
        return self._reader.pop_unread_leases()

    @property
    def dry_until_s(self) -> float:
        """No claim makes sense before; in the past when the queue is not known to be dry."""
        return self._dry_until_s

    def needs_claim(self, model: str, now_s: float) -> bool:
        """Whether the supply for that model's replicas needs a claim now."""
        if now_s < self._dry_until_s:
            return False
        return self._core.ready.get(model, 0) < self._claim_below or self._core.runs_short

    @property
    def seeks_at_s(self) -> float:
        """When a claim looks for other organizations' chunks, whatever is ready."""
        if self._seeks_others:
            return self._sought_at_s + limits.SUPPLY_POLL_S
        return max(self._sought_at_s, self._claimed_at_s) + limits.IDLE_POLL_S

    async def claim(self, now: datetime, now_s: float) -> bool:
        """Leases and loads what the windows could soon use. Returns whether any chunk came.

        Raises BlobError when lines cannot be read, and StoreError.
        """
        if now_s < self._dry_until_s:
            return False
        self._measure(now_s)
        came, short, announced = False, False, self._announced
        for takes, chunks in self._wanted(now_s):
            if models := self._open_models(takes, now):
                leases = await self._lease(models, takes, chunks, now)
                came = came or bool(leases)
                short = short or len(leases) < chunks
                self._claimed_at_s = now_s
        if short and announced == self._announced:  # else something came while we looked
            self._dry_until_s = now_s + limits.IDLE_POLL_S
        return await self._claim_for_others(now, now_s) or came

    async def _claim_for_others(self, now: datetime, now_s: float) -> bool:
        """Leases chunks of organizations that have little ready here, where others have enough."""
        if self._core.runs_short:
            self._seeks_others, self._core.runs_short = True, False
        if now_s < max(self.seeks_at_s, self._dry_until_s):
            return False
        self._sought_at_s, self._seeks_others = now_s, False
        came = False
        for takes in self._free_places(now_s):
            models = self._open_models(takes, now)
            supplied = self._core.supplied(models, limits.SUPPLY_LOW)
            chunks = self._room_for_others(models) if supplied else 0
            if chunks > 0:
                came = bool(await self._lease(models, takes, chunks, now, supplied)) or came
        self._seeks_others = self._seeks_others or came  # perhaps there are more
        return came

    async def _lease(
        self,
        models: Sequence[str],
        takes: _Takes,
        chunks: int,
        now: datetime,
        supplied: Collection[str] = (),
    ) -> Sequence[ChunkLease]:
        leases = await self._claims.claim(models, chunks, now, takes[1], supplied)
        await self._reader.read(leases, now)
        return leases

    def _open_models(self, takes: _Takes, now: datetime) -> list[str]:
        """The models among those in `takes` whose operating hours are open."""
        hours = self._hours()
        return sorted(m for m in takes[0] if (of := hours.get(m)) is None or of.is_open(now))

    def _claim_threshold(self) -> float:
        """The number of ready requests below which a claim is worth its cost: half of what should
        be ready. The result is kept, because it is compared with after each answer.
        """
        ahead_s = limits.CLAIM_AHEAD_S + limits.CLAIM_AHEAD_CLAIMS * self._claim_s
        ahead = self._rate_per_s * min(ahead_s, limits.CLAIM_AHEAD_S_MAX)
        return max(float(limits.CHUNK_REQUESTS_MAX), ahead) / 2

    def _wanted(self, now_s: float) -> list[tuple[_Takes, int]]:
        """What to claim, and how many chunks; replicas that take the same calls ask together."""
        wanted: list[tuple[_Takes, int]] = []
        self.waits_for_commit = False
        for takes, places in self._free_places(now_s).items():
            ready = sum(self._core.ready.get(model, 0) for model in takes[0])
            short = places + 2 * self._claim_below - ready
            if short < self._claim_below:
                continue
            room = self._room_for_chunks(limits.LEASED_INPUT_BYTES_MAX)
            self.waits_for_commit |= room == 0 and not all(
                run.unfinished for run in self._core.runs.values()
            )
            chunks = min(-int(-short // limits.CHUNK_REQUESTS_MAX), room)
            if chunks > 0:
                wanted.append((takes, min(chunks, limits.CLAIM_CHUNKS_MAX)))
        return wanted

    def _free_places(self, now_s: float) -> dict[_Takes, int]:
        """Frees places in the windows of the replicas that take calls, by the calls that they take.

        One whose engine has been away for a while takes none until a trial call is answered.
        """
        places: dict[_Takes, int] = {}
        for upstream in self._upstreams:
            replica = upstream.replica
            if replica.takes_calls(now_s) and not replica.is_out(now_s):
                free = max(0, int(replica.window) - replica.in_flight)
                takes = (replica.models, replica.held_scopes)
                places[takes] = places.get(takes, 0) + free
        return places

    def _room_for_chunks(self, bytes_max: int) -> int:
        """How many more chunks, as large as those held, fit the bound on input in memory."""
        held = len(self._core.runs)
        if not held:
            return 2
        per_chunk = max(1, self._core.input_bytes // held)
        return max(0, (bytes_max - self._core.input_bytes) // per_chunk)

    def _room_for_others(self, models: Collection[str]) -> int:
        """How many chunks of organizations that have little ready may come on top."""
        ready = sum(self._core.ready.get(model, 0) for model in models)
        ahead = limits.SUPPLY_AHEAD + 2 * self._claim_below - ready
        in_memory = limits.LEASED_INPUT_BYTES_MAX + limits.SUPPLY_BYTES_MAX
        return min(
            -int(-ahead // limits.CHUNK_REQUESTS_MAX),
            self._room_for_chunks(in_memory),
            limits.CLAIM_CHUNKS_MAX,
        )

    def _measure(self, now_s: float) -> None:
        """Requests finished per second since the last claim, smoothed."""
        if self._measured_at_s is None:
            self._measured_at_s = now_s
        elapsed_s = now_s - self._measured_at_s
        if elapsed_s >= 0.2:
            sample = (self._core.finished - self._finished) / elapsed_s
            self._rate_per_s += 0.5 * (sample - self._rate_per_s)
            self._claim_below = self._claim_threshold()
            self._finished, self._measured_at_s = self._core.finished, now_s
