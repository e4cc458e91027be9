"""Shared prefixes over eight replicas: the order of the plan and the places of chunks.

Files of real lines go through the product's validation; the plan's order and chunks are what a
worker then deals out with core.dispatch.dispatch, over its real replicas. Prefix work is the prompt
tokens that engines computed, over those of the trie (1.0: each distinct block once).
"""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from lowtide.core.batches.chunk import NOTHING_DONE, ChunkKey, ChunkLease
from lowtide.core.batches.plan import Plan, unpack_entries
from lowtide.core.dispatch.dispatch import Dispatch
from lowtide.core.dispatch.replica import Replica
from lowtide.core.dispatch.request import Request
from lowtide.core.faults.outcome import Succeeded
from lowtide.core.usage import NO_USAGE
from lowtide.core.validation.rules import ValidationRules
from lowtide.core.validation.validator import Validator
from lowtide.engine_sim.benchmarks.bound import demand_of, makespan_bound
from lowtide.engine_sim.benchmarks.virtual import GatewayPolicy, VirtualWorld
from lowtide.engine_sim.engine import STEP_NOISE, SimEngine
from lowtide.engine_sim.profiles import PROFILES
from lowtide.engine_sim.scheduling.scheduler_config import SchedulerConfig
from lowtide.engine_sim.state.requests import SimRequest

REPLICAS: Final = 8
WINDOW: Final = 128
CHARS_A_TOKEN: Final = 4
ANSWER_TOKENS: Final = 60


@dataclass(frozen=True, slots=True)
class Shape:
    """`groups` prefixes of `shared` tokens, each asked `each` times with `own` tokens more."""

    groups: int
    each: int
    shared: int
    own: int


SHAPES: Final = {
    "800 documents x 10 questions, 3,000 shared": Shape(800, 10, 3_000, 60),
    "2,000 documents x 4 questions, 2,000 shared": Shape(2_000, 4, 2_000, 60),
    "40 templates x 150, 1,500 shared": Shape(40, 150, 1_500, 400),
    "one system prompt of 800, 6,000 questions": Shape(1, 6_000, 800, 300),
}
Order = Callable[[list[int], random.Random], list[int]]
ORDERS: Final = ("question-major file", "random file", "Lowtide")


class _Batch:
    """Lines of one file, in an order, and the same requests for the simulator."""

    def __init__(self, shape: Shape, seed: int, order: str) -> None:
        rng = random.Random(f"{shape} {seed}")
        pairs = [(group, turn) for turn in range(shape.each) for group in range(shape.groups)]
        if order == "random file":
            rng.shuffle(pairs)
        self.shape, self.pairs = shape, pairs
        self._texts = [_text(rng, shape.shared * CHARS_A_TOKEN) for _ in range(shape.groups)]

    def lines(self) -> Iterator[bytes]:
        for number, (group, turn) in enumerate(self.pairs):
            rng = random.Random(f"{group} {turn}")
            prompt = self._texts[group] + _text(rng, self.shape.own * CHARS_A_TOKEN)
            body = {"model": "m", "messages": [{"role": "user", "content": prompt}]}
            yield json.dumps({"custom_id": f"{number}", "body": body}).encode() + b"\n"

    def request(self, number: int) -> SimRequest:
        group, turn = self.pairs[number]
        pieces = [(("shared", group), self.shape.shared), (("own", group, turn), self.shape.own)]
        return SimRequest(number, pieces, ANSWER_TOKENS)


def _text(rng: random.Random, chars: int) -> str:
    return f"{rng.getrandbits(4 * chars):0{chars}x}"


def _plan(batch: _Batch) -> Plan:
    validator = Validator(
        ValidationRules(endpoint="/v1/chat/completions", dialect="together", models={"m": "m"})
    )
    for line in batch.lines():
        validator.feed(line)
    plan = validator.finish()
    assert isinstance(plan, Plan), plan
    return plan


class _Worker(GatewayPolicy):
    """Deals requests out as a worker does: chunks a little ahead, windows kept full."""

    def __init__(self, chunks: Iterator[tuple[ChunkLease, list[int]]], batch: _Batch) -> None:
        self._chunks, self._batch = chunks, batch
        self._core = Dispatch()
        self._replicas = [Replica(f"r{n}", frozenset({"m"}), WINDOW) for n in range(REPLICAS)]
        self._at_work: dict[str | int, tuple[Request, int]] = {}

    def on_start(self, world: VirtualWorld) -> None:
        self._lease()
        sent = True
        while sent:
            sent = sum(self._send(world, replica) for replica in range(REPLICAS)) > 0

    def on_finished(self, world: VirtualWorld, replica: int, request: SimRequest) -> None:
        asked, _ = self._at_work.pop(request.id)
        done = Succeeded(200, b"{}", NO_USAGE)
        self._core.settle(asked, self._replicas[replica], done, world.now, 0.0)
        if not asked.run.unfinished:
            self._core.remove(asked.run.key)
        self._send(world, replica)

    def holds_work(self) -> bool:
        return False

    def _send(self, world: VirtualWorld, replica: int) -> bool:
        self._lease()
        asked = self._core.take(self._replicas[replica], world.now)
        if asked is None:
            return False
        self._at_work[asked.line] = asked, replica
        world.submit(replica, self._batch.request(asked.line))
        return True

    def _lease(self) -> None:
        while self._core.ready.get("m", 0) < WINDOW * REPLICAS:
            leased = next(self._chunks, None)
            if leased is None:
                return
            lease, numbers = leased
            self._core.add(lease, [(i, number, b"") for i, number in enumerate(numbers)])


def _chunks(plan: Plan) -> Iterator[tuple[ChunkLease, list[int]]]:
    entries = unpack_entries(plan.data)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    for spec in plan.chunks:
        lease = ChunkLease(
            key=ChunkKey("batch", spec.seq), token=1, expires_at=now, project_id="p",
            dialect="together", endpoint="/v1/chat/completions", model="m", first=spec.first,
            count=spec.count, done=NOTHING_DONE, plan_key="", input_key="", deadline_at=now,
        )  # fmt: skip
        these = entries[spec.first : spec.first + spec.count]
        yield lease, [entry.line - 1 for entry in these]


def _in_order_of_file(plan: Plan) -> Iterator[tuple[ChunkLease, list[int]]]:
    numbers = iter(range(plan.requests))
    for lease, these in _chunks(plan):
        yield lease, [next(numbers) for _ in these]


def play_prefixes(shape_name: str, order: str, seed: int) -> dict[str, Any]:
    """Eight replicas run the file; with `order` "Lowtide" as planned, else as the file lies."""
    shape = SHAPES[shape_name]
    batch = _Batch(shape, seed, order)
    plan = _plan(batch)
    chunks = _chunks(plan) if order == "Lowtide" else _in_order_of_file(plan)
    engines = [_engine(seed + number) for number in range(REPLICAS)]
    took_s = VirtualWorld(engines, _Worker(chunks, batch), poll_s=None).run()
    demand = demand_of([batch.request(number) for number in range(len(batch.pairs))])
    prompts = sum(e.counters.prompt_tokens - e.counters.prompt_tokens_cached for e in engines)
    trie = demand.tokens - (demand.generated - len(batch.pairs))
    bound_s = makespan_bound(demand, engines[0].profile, engines[0].config, replicas=REPLICAS)
    return {
        "shape": shape_name, "order": order, "seed": seed, "seconds": took_s,
        "prefix_work": prompts / trie, "of_bound": bound_s / took_s,
    }  # fmt: skip


def _engine(seed: int) -> SimEngine:
    return SimEngine(PROFILES["8b-h100"], SchedulerConfig(), noise=STEP_NOISE, seed=seed)


def prefix_runs(seeds: Sequence[int]) -> list[tuple[str, str, int]]:
    return [(shape, order, seed) for shape in SHAPES for order in ORDERS for seed in seeds]
