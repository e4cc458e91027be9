"""A good batch alone, and the same batch beside one whose lines are at fault: what did it cost?

`play_duel(seed)` plays both in fair weather and in virtual time, and holds the second against the
bound: less than twice the time alone, and two commit intervals. The bad batch has to end as well, a
few minutes after the good one at the latest, and every line of both as it deserves
(final_check.py). A user of live calls is there all the time, and none of them fails or waits
(live_calls.py).
"""

from random import Random
from typing import Final

import msgspec

from lowtide.core.faults.outcome import Reply
from testkit.sim.client import Intention, write_lines
from testkit.sim.field import BAD_REPLIES, FAILS, FieldConditions
from testkit.sim.scenario import CLEAR_SKY, Scenario
from testkit.sim.simulation import Played, play_world
from testkit.sim.stores import Stores

BAD_BATCH_ENDS_S: Final = 600.0
"""Seconds after its creation: a batch of nothing but lines at fault ends in minutes."""
_GOOD, _BAD = 0, 1


def draw_duel(seed: int) -> Scenario:
    """The world of a duel: one or two workers, and engines that answer in 20 ms; no
    faults are injected.
    """
    random = Random(f"duel {seed}")
    return Scenario(
        seed=seed,
        workers=random.choice([1, 1, 2]),
        together=True,
        engines=random.randint(1, 3),
        models=1,
        window=random.choice([4, 8, 16]),
        batches=2,
        lines_max=random.choice([60, 120, 240]),
        chunk_requests=random.choice([8, 32, 128]),
        chaos_s=0.0,
        storm_waits=False,
        storm_gap_s=1.0,
        lease_ttl_s=10.0,
        commit_interval_s=random.choice([0.2, 1.0]),
        attempt_timeout_s=8.0,
        patience_s=600.0,
        answer_s=0.02,
        poison=0.0,
        rates=CLEAR_SKY,
        field=FieldConditions(failure=random.choice(BAD_REPLIES)),
        live_gap_s=random.choice([0.03, 0.3]),
        storms=False,
    )


def draw_wishes(scenario: Scenario) -> list[Intention]:
    """The good batch, and a tenth as many lines at fault, which come a moment before it."""
    random = Random(f"duel lines {scenario.seed}")
    bad = max(1, scenario.lines_max // random.choice([10, 20, 30]))
    begins_s = random.choice([0.0, 1.0, 3.0])
    return [
        _wish(_GOOD, scenario.lines_max, "", begins_s),
        _wish(_BAD, bad, FAILS, 0.0),
    ]


def play_duel(seed: int, stores: Stores, *, verbose: bool = False) -> Played:
    """Plays a duel. Raises nothing: what was broken is in the result."""
    scenario = draw_duel(seed)
    good, bad = draw_wishes(scenario)
    alone = play_world(scenario, stores, [good], verbose=verbose)
    good, bad = draw_wishes(scenario)
    beside = play_world(scenario, stores, [good, bad], verbose=verbose)
    broken = alone.broken or beside.broken or _judge(scenario, alone, beside)
    return msgspec.structs.replace(beside, broken=broken and f"duel: {broken}")


def _judge(scenario: Scenario, alone: Played, beside: Played) -> str | None:
    """Why the good batch did not get what it was promised; None when it did."""
    alone_s, beside_s = alone.took_s[_GOOD], beside.took_s[_GOOD]
    bound_s = 2 * alone_s + 2 * scenario.commit_interval_s
    if beside_s >= bound_s:
        return (
            f"{scenario.lines_max} good lines took {alone_s:.2f} s alone, {beside_s:.2f} s beside"
            f" lines that draw {_shown(scenario.field.failure)}, and may take {bound_s:.2f} s"
        )
    if beside.took_s[_BAD] >= BAD_BATCH_ENDS_S:
        return f"the bad batch took {beside.took_s[_BAD]:.0f} s"
    return None


def _shown(reply: Reply) -> str:
    return f"{reply.status} {reply.body[:40]!r}"


def _wish(number: int, lines: int, mark: str, begins_s: float) -> Intention:
    prompts = {f"r-{n}": f"b{number}-{n}{mark}" for n in range(1, lines + 1)}
    models = dict.fromkeys(prompts, "m0")
    return Intention(
        number=number,
        content="\n".join(write_lines(prompts, models)).encode(),
        prompts=prompts,
        models=models,
        valid=True,
        dialect="openai",
        window="24h",
        priority=0,
        begins_s=begins_s,
        cancels_after_s=None,
        deletes_input=False,
        repeats=False,
        reads=False,
    )
