"""What a seed stands for: how many of everything, how many faults, how small the bounds.

Drawn once, before anything runs. Bounds that only a large system reaches are scaled down for the
run, so that a small one reaches them all the time.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any, Final
from unittest.mock import patch

import msgspec

from lowtide import limits
from testkit.sim.field import CALM, FieldConditions, draw_field


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Chances per event; waits in seconds, means of an exponential distribution."""

    wait: float
    wait_s: float
    db_error: float
    db_late: float
    blob_error: float
    blob_late: float
    kill: float
    freeze: float
    """How often a worker freezes between putting a segment and committing it, for
    longer than its lease.
    """
    reply_lost: float
    reply_late: float
    beat_doubled: float
    engine_failure_rate: float


_TOKENS_EACH: Final = 16
_TOKENS_MORE: Final = 40
"""More than the tokens of a line, and of a few strange ones."""

CLEAR_SKY: Final = Rates(
    wait=0.0,
    wait_s=0.0,
    db_error=0.0,
    db_late=0.0,
    blob_error=0.0,
    blob_late=0.0,
    kill=0.0,
    freeze=0.0,
    reply_lost=0.0,
    reply_late=0.0,
    beat_doubled=0.0,
    engine_failure_rate=0.0,
)


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters of one world."""

    seed: int
    workers: int
    together: bool
    """The HTTP API is in the first worker's process, as in `lowtide serve`."""
    engines: int
    models: int
    window: int
    batches: int
    lines_max: int
    chunk_requests: int
    chaos_s: float
    """Seconds of storm at least; it goes on, for up to `STORM_MAX` times that,
    while there is work.
    """
    storm_waits: bool
    """Whether the storm begins when all batches are created: so that it finds them at work."""
    storm_gap_s: float
    lease_ttl_s: float
    commit_interval_s: float
    attempt_timeout_s: float
    patience_s: float
    """Seconds that a client gives one call before it gives up and asks again."""
    answer_s: float
    poison: float
    rates: Rates
    field: FieldConditions = CALM
    live_gap_s: float | None = None
    """Seconds between the live calls of one user; None: there are none."""
    steers: bool = False
    """Submitters pause, resume, change and retry their batches."""
    tokens_max: int | None = None
    """Tokens of a model that may be enqueued; batches beyond wait. None: all that the default
    allows, which no world reaches."""
    storms: bool = True
    """False: no faults are injected; only its lines and engines may fail."""


def draw_scenario(seed: int) -> Scenario:
    """The scenario of a seed. Every kind of failure is absent from some seeds."""
    random = Random(f"scenario {seed}")

    def sometimes(low: float, high: float) -> float:
        """A chance or rate, on a scale of ratios; zero in a third of the seeds."""
        return 0.0 if random.random() < 0.33 else low * (high / low) ** random.random()

    workers, engines = random.choice([1, 2, 2, 3, 4]), random.randint(1, 3)
    window, batches = random.choice([1, 2, 4, 8]), random.randint(1, 4)
    lines_max, chaos_s = random.choice([1, 10, 30, 60, 100, 200]), random.uniform(8.0, 30.0)
    # So slow that kills and pauses find the work under way; failures make it last much longer.
    work_s = chaos_s * random.choice([0.05, 0.2, 0.5])
    answer_s = work_s * window * engines / max(1.0, batches * lines_max / 2)
    scenario = Scenario(
        seed=seed,
        workers=workers,
        together=workers == 1 or random.random() < 0.3,
        engines=engines,
        models=random.randint(1, 3),
        window=window,
        batches=batches,
        lines_max=lines_max,
        chunk_requests=random.choice([1, 4, 8, 16, 128]),
        chaos_s=chaos_s,
        storm_waits=random.random() < 0.6,
        storm_gap_s=random.choice([0.5, 2.0, 5.0]),
        lease_ttl_s=random.choice([2.0, 5.0, 10.0]),
        commit_interval_s=random.choice([0.2, 1.0]),
        attempt_timeout_s=random.choice([2.0, 8.0]),
        patience_s=random.choice([4.0, 15.0, 600.0]),
        answer_s=min(1.5, max(0.005, answer_s)),
        poison=sometimes(0.002, 0.02),
        rates=Rates(
            wait=random.choice([0.0, 0.05, 0.3, 1.0]),
            wait_s=random.choice([0.0, 0.001, 0.02, 0.3]),
            db_error=sometimes(0.001, 0.02),
            db_late=sometimes(0.002, 0.1),
            blob_error=sometimes(0.005, 0.2),
            blob_late=sometimes(0.01, 0.2),
            kill=sometimes(0.0005, 0.005),
            freeze=sometimes(0.01, 0.3),
            reply_lost=sometimes(0.01, 0.3),
            reply_late=sometimes(0.01, 0.3),
            beat_doubled=sometimes(0.02, 0.5),
            engine_failure_rate=sometimes(0.02, 0.5),
        ),
    )
    field = draw_field(seed, engines, scenario.models, chaos_s)
    return msgspec.structs.replace(scenario, field=field)


def steered(scenario: Scenario) -> Scenario:
    """The same world with submitters that steer, and so little room for tokens that batches wait
    for each other; each fits alone.
    """
    tokens_max = _TOKENS_EACH * scenario.lines_max + _TOKENS_MORE
    return msgspec.structs.replace(scenario, steers=True, tokens_max=tokens_max)


@contextmanager
def scaled_limits(scenario: Scenario) -> Iterator[None]:
    """Bounds of a small world, for the time of a run."""
    random = Random(f"limits {scenario.seed}")
    scaled: dict[str, Any] = {
        "CHUNK_REQUESTS_MAX": scenario.chunk_requests,
        "SEGMENT_BYTES_MAX": random.choice([2_000, 20_000, limits.SEGMENT_BYTES_MAX]),
        "UNCOMMITTED_BYTES_MAX": random.choice([8_000, 80_000, limits.UNCOMMITTED_BYTES_MAX]),
        "LEASED_INPUT_BYTES_MAX": random.choice([10_000, limits.LEASED_INPUT_BYTES_MAX]),
        "ASSEMBLE_RUN_BYTES": random.choice([500, 10_000]),
        "CLAIM_CHUNKS_MAX": random.choice([1, 4, limits.CLAIM_CHUNKS_MAX]),
        "COMPLETION_WINDOW_S_MIN": 60,
        "ORPHAN_AGE_S": 120.0,
        "SEGMENTS_KEEP_S": 120.0,
        "ORPHAN_DOUBT_S": 3 * scenario.lease_ttl_s + 5.0,
        "CUT_AGE_S_MIN": 0.2 * scenario.attempt_timeout_s,
        "CUT_AGE_SLACK_S": 0.05 * scenario.attempt_timeout_s,
        "SWEEP_S": random.choice([3.0, 15.0, 60.0]),
        "IDLE_POLL_S": random.choice([1.5, 4.0]),
        "WEBHOOK_RETRIES_S": (0.5, 2.0, 5.0, 5.0, 5.0, 5.0),
        "WEBHOOK_LEASE_S": 2 * scenario.lease_ttl_s,
        "WEBHOOKS_POLL_S": 2.0,
    }
    with patch.multiple(limits, **scaled):
        yield
