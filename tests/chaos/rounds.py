"""One round: a few batches side by side, one to three faults at random moments, then the account.

All chance comes from the round's seed; what the machine makes of it differs from run to run, so a
seed gives the same plan, not the same history.
"""

import asyncio
import signal
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from types import MappingProxyType
from typing import Any, Final

from calls import repeats
from children import Child
from client import PHASES, Client, Job, Phase, Watch, WrongAnswer
from faults import Fault, lay_repeats, time_resumption
from installations import LEASE_TTL_S, Env, kill_postgres
from verdict import Verdict, judge

from testkit.postgres import PostgresServer

ROUND_S: Final = 120.0
TRIED_AGAIN_S: Final = 600.0
"""Longer, where lines fail: each is tried again, and more than a few are spread over minutes."""
PHASE_S: Final = 20.0
RESUMES_S: Final = 5.0
"""Seconds to resume on one machine; where a worker was lost, a lease time-out comes on top."""

HEARD_S: Final = 3.0
"""Who was stopped past its lease hears by then, with its next commit, what it has lost."""

SPREAD_S: Final[dict[Phase, float]] = {
    "upload": 0.03, "validation": 0.15, "dispatch": 2.0, "assembly": 0.1, "download": 0.03,
    "done": 0.0,
}  # fmt: skip
"""How long after a phase was seen to begin the fault comes at most."""

VICTIMS: Final = {
    "sqlite": ("serve",) * 4 + ("engine",) * 2 + ("stop",),
    "fleet": ("api",) * 2 + ("worker",) * 3 + ("engine",) * 2 + ("postgres",) * 2 + ("stop",),
}


@dataclass(slots=True)
class Round:
    """What a round came to."""

    env: str
    number: int
    seconds: float = 0.0
    faults: list[Fault] = field(default_factory=list)
    verdict: Verdict = field(default_factory=Verdict)
    refusals: dict[int, int] = field(default_factory=dict)


Plague = Callable[[Env, Sequence[Job], Watch, Random, list[Fault]], Coroutine[Any, Any, None]]
"""Does harm beside the jobs, mends it, and writes it down."""


async def play(
    env: Env,
    number: int,
    random: Random,
    plague: "Plague | None" = None,
    sizes: tuple[int, int] = (150, 700),
    marks: Mapping[str, float] = MappingProxyType({}),
) -> Round:
    """Play one round; what is wrong stands in its verdict. `sizes` bound the lines of a batch,
    `marks` say which share of them are of a kind of their own (engine.py).
    """
    played, watch, begun = Round(env.name, number), Watch(), time.monotonic()
    env.calls.forget()
    jobs = [_job(number, place, random, sizes, marks) for place in range(random.randint(2, 3))]
    env.batches += len(jobs)
    client = Client(env.http, watch)
    try:
        within_s = TRIED_AGAIN_S if marks else ROUND_S
        async with asyncio.timeout(within_s), asyncio.TaskGroup() as group:
            for job in jobs:
                group.create_task(_later(client, job, random.random() * 0.5))
            group.create_task((plague or _plague)(env, jobs, watch, random, played.faults))
        played.verdict = await judge(env, jobs)
    except* (WrongAnswer, TimeoutError, OSError, RuntimeError) as errors:
        phases = [(job.name, job.phase, job.settled, job.batch.get("status")) for job in jobs]
        played.verdict.wrong.append(f"{[repr(each) for each in errors.exceptions]} at {phases}")
    _measure(env, played, watch)
    played.refusals = watch.refusals
    played.seconds = time.monotonic() - begun
    return played


def _job(
    number: int,
    place: int,
    random: Random,
    sizes: tuple[int, int],
    marks: Mapping[str, float],
) -> Job:
    name = f"{random.randrange(1 << 32):08x}.{number}.{place}"
    texts = [f"{name}.{line}" for line in range(1, random.randint(*sizes) + 1)]
    for mark, share in marks.items():
        for line in random.sample(range(len(texts)), int(share * len(texts))):
            texts[line] = f"{name}.{line + 1}{mark}"
    return Job(name, texts)


async def _later(client: Client, job: Job, delay_s: float) -> None:
    await asyncio.sleep(delay_s)
    await client.live(job)


def _measure(env: Env, played: Round, watch: Watch) -> None:
    calls = env.calls.all()
    unexplained = lay_repeats(repeats(calls), played.faults, calls, watch)
    must = played.verdict.must
    must(unexplained == 0, f"{unexplained} requests ran again and nothing had been killed")
    again, allowed = (
        sum(fault.again for fault in played.faults),
        sum(fault.allowed for fault in played.faults),
    )
    if again > allowed:
        played.verdict.late.append(f"{again} ran again, {allowed} were in flight or within a beat")
    for fault in played.faults:
        time_resumption(fault, played.faults, calls, watch)
        what = f"{fault.kind} {fault.name}"
        bound_s = RESUMES_S
        if fault.is_for_others:
            bound_s += LEASE_TTL_S
        took_s = fault.resumed_s
        if took_s is not None and took_s - fault.starved_s >= bound_s:
            played.verdict.late.append(
                f"{what}: resumed after {took_s:.1f} s, {fault.starved_s:.1f} s without a processor"
            )


async def _plague(
    env: Env, jobs: Sequence[Job], watch: Watch, random: Random, faults: list[Fault]
) -> None:
    """Plant the faults, one after the other, while something is under way."""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        kind, phase = random.choice(VICTIMS[env.name]), random.choice(PHASES[:-1])
        wait_s, rest_s = random.random() * SPREAD_S[phase], random.random() * 0.3
        if random.random() < 0.4:
            phase = "dispatch"  # the longest, in life
        place = PHASES.index(phase)

        def is_there(place: int = place) -> bool:
            return any(PHASES.index(job.phase) >= place for job in jobs)

        await watch.until(is_there, PHASE_S)
        await asyncio.sleep(wait_s)
        if all(job.phase == "done" for job in jobs):
            return
        now = "+".join(sorted({job.phase for job in jobs if job.phase != "done"}))
        faults.append(await _strike(env, kind, now, random, rest_s))


async def _strike(env: Env, kind: str, phase: str, random: Random, rest_s: float) -> Fault:
    """Do it, and mend it as an init system would: what is gone is started again after a moment."""
    if kind == "postgres":
        assert isinstance(env.database, PostgresServer)
        whole = random.random() < 0.6
        at, back_at = await kill_postgres(env.database, whole=whole)
        return Fault(kind, "all" if whole else "backend", at, phase, back_at, back_at)
    if kind == "stop":
        victim = random.choice([*env.of_role("worker"), *env.of_role("serve")])
        at = victim.send(signal.SIGSTOP)
        await asyncio.sleep(LEASE_TTL_S * (1.2 + random.random()))
        on_at = victim.send(signal.SIGCONT)
        until = on_at + HEARD_S
        is_one_of_many = victim.name != "serve"
        return Fault(kind, victim.name, at, phase, on_at, on_at, until, is_one_of_many)
    return await restart(random.choice(env.of_role(kind)), kind, phase, rest_s)


async def restart(victim: Child, kind: str, phase: str, rest_s: float) -> Fault:
    """Kill a process, and start it again after `rest_s` seconds."""
    at = await victim.kill()
    await asyncio.sleep(rest_s)
    began_at = time.monotonic()
    await victim.start()
    ready_at = time.monotonic()
    fault = Fault(kind, victim.name, at, phase, began_at, ready_at, is_for_others=kind == "worker")
    if not fault.is_for_others:
        fault.starved_s = victim.starved_s()
    return fault
