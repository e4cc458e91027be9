"""Engines across a simulated network: they answer, refuse, hang, die, and send invalid bytes.

An `EngineMachine` is shared by all workers; a `NetworkedEngine` is one worker's client of it and
keeps the contract of ports/engine.py. Each answer carries a number of its own and a drawn usage,
and is remembered: so a checker knows whether a line in a result file was said by an engine, and
what it may cost. A fault is counted when the call that it hits is seen.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextvars import Context
from random import Random
from typing import Any, Final

import msgspec

from lowtide.core.faults.outcome import Attempt, NoReply, Reply
from testkit.sim.evidence import Evidence
from testkit.sim.fault_kinds import FaultKind
from testkit.sim.field import (
    FAILS,
    LIVE,
    MISTAKEN,
    REPLIES,
    Ailment,
    answer_time_s,
    cut_after_s,
)
from testkit.sim.process import PROCESS, Process
from testkit.sim.scenario import Scenario
from testkit.sim.serial_queue import SerialQueue
from testkit.sim.trace import Trace

_HANG_S: Final = 3600.0
_Mood = tuple[FaultKind, Attempt]
_MOODS: Final[Sequence[_Mood]] = (
    (FaultKind.ENGINE_FAILED, Reply(500, b'{"error":{"message":"hiccup"}}')),
    (FaultKind.ENGINE_FAILED, Reply(500, b"<html>")),
    (FaultKind.ENGINE_RUBBISH, Reply(200, b"<html>rubbish</html>")),
    (FaultKind.ENGINE_RUBBISH, Reply(200, b"[1, 2]")),
    (FaultKind.ENGINE_HALF_REPLY, Reply(200, b'{"half": "an ans')),
    (FaultKind.ENGINE_HALF_REPLY, NoReply("broken", "half a reply")),
    (FaultKind.ENGINE_REFUSED, Reply(400, b'{"error":{"message":"bad request"}}')),
    (FaultKind.ENGINE_FULL, Reply(429, b"", 0.5)),
    (FaultKind.ENGINE_FULL, Reply(503, b"{}")),
    (FaultKind.ENGINE_HUNG, NoReply("timeout", "no reply")),
    (FaultKind.ENGINE_OVERSIZE, NoReply("oversize", "too large")),
)

_LIVE_ROOM: Final = 8


class EngineMachine:
    """One engine, up or down."""

    def __init__(
        self,
        number: int,
        scenario: Scenario,
        answers: dict[str, list[Any]],
        evidence: Evidence,
        trace: Trace,
    ) -> None:
        name = f"e{number}"
        self._number = number
        self._field = scenario.field
        self._ailments = scenario.field.of(number)
        self._attempt_timeout_s = scenario.attempt_timeout_s
        self._evidence = evidence
        self._trace = trace
        self.url = f"http://{name}/v1"
        self.up = True
        self.lives = 0
        self.failure_rate = scenario.rates.engine_failure_rate
        self.answered = 0
        self._random = Random(f"engine {name} {scenario.seed}")
        self._answer_s = scenario.answer_s * self._random.choice([0.5, 1.0, 4.0])
        self._room = scenario.window * self._random.choice([1, 2, scenario.workers])
        if scenario.live_gap_s:  # a live user fills no engine: that is none of a bad line's doing
            self._room += _LIVE_ROOM
        self._queue = SerialQueue() if number in scenario.field.serial else None
        self._models = scenario.models
        self._callers: list[Process] = []
        self._answers = answers

    @property
    def in_flight(self) -> int:
        """Calls whose caller lives: the kernel closes the connections of a dead one."""
        return sum(caller.alive for caller in self._callers)

    def is_called_by(self, process: Process) -> bool:
        """Whether the process waits for an answer now."""
        return process in self._callers

    def stop(self) -> None:
        """Stops the engine: calls in flight end unanswered."""
        if self.in_flight:
            self._trace.fault(FaultKind.RESTARTED_AT_WORK, self.url)
        self.up = False
        self.lives += 1

    async def answer(self, data: bytes, caller: Process) -> Attempt:
        """The result of one call, however long it takes."""
        body = msgspec.json.decode(data)
        if not self.up:
            self._trace.fault(FaultKind.ENGINE_UNREACHABLE, self.url)
            return NoReply("connect", "connection refused")
        if (ailment := self._ailment(body["model"])) is not None:
            self._trace.fault(ailment.kind, self.url)
            return ailment.reply
        prompt: str = body["messages"][-1]["content"]
        is_full = self.in_flight >= self._room and not prompt.startswith(LIVE)
        if is_full and self._queue is None:
            self._trace.fault(FaultKind.ENGINE_FULL, self.url)
            after = self._random.choice([None, 0.2, 1.0])
            return Reply(self._random.choice([429, 503]), b'{"error":"full"}', after)
        self._callers.append(caller)
        try:
            return await self._take(prompt, body["model"], caller)
        finally:
            self._callers.remove(caller)

    def page(self, path: str) -> Attempt:
        """The answer to a GET: health, or the list of models."""
        if not self.up:
            return NoReply("connect", "connection refused")
        ailments = [each for each in self._ailing() if each.model is None]
        if ailments and ailments[0].kind is not FaultKind.ERROR_IN_200:
            return ailments[0].reply
        if path != "/models":
            return Reply(200, b"{}") if path == "/health" else Reply(404, b"{}")
        missing = {each.model for each in self._ailing()}
        served = [f"m{n}" for n in range(self._models) if f"m{n}" not in missing]
        data = [{"id": model, "object": "model"} for model in served]
        return Reply(200, msgspec.json.encode({"object": "list", "data": data}))

    def _ailing(self) -> list[Ailment]:
        now_s = asyncio.get_running_loop().time()
        return [each for each in self._ailments if each.begins_s <= now_s < each.ends_s]

    def _ailment(self, model: str) -> Ailment | None:
        ailing = self._ailing() if self._ailments else []
        return next((each for each in ailing if each.model in (None, model)), None)

    async def _take(self, prompt: str, model: str, caller: Process) -> Attempt:
        """Serves the call; its result is written down if it may count against its line."""
        served = False
        mood = self._mood() if self._random.random() < self.failure_rate else None
        drawn_s = self._random.expovariate(1 / self._answer_s)
        works_s = answer_time_s(self._field, self._number, prompt, drawn_s, self._attempt_timeout_s)
        life = self.lives
        try:
            if self._queue is not None:
                await self._queue.turn(caller, works_s)
            served = True
            return await self._serve(prompt, model, works_s, life, mood)
        except asyncio.CancelledError:
            if served:
                self._evidence.failed[prompt] += 1
            elif caller.alive:
                self._trace.fault(FaultKind.QUEUE_TIMED_OUT, self.url)
            raise

    async def _serve(
        self, prompt: str, model: str, works_s: float, life: int, mood: _Mood | None
    ) -> Attempt:
        cut_s = cut_after_s(self._field, self._number, self._attempt_timeout_s)
        if cut_s is not None and works_s > cut_s:
            await asyncio.sleep(cut_s)
            self._trace.fault(FaultKind.BALANCER_CUT, self.url)
            return NoReply("broken", "connection reset")
        await asyncio.sleep(works_s)
        if "poison" in prompt and self.lives == life:
            self._trace.fault(FaultKind.ENGINE_CRASHED, self.url)
            self.stop()
            loop = asyncio.get_running_loop()
            loop.call_later(0.5, self.start, context=Context())  # not in its victim's process
        if self.lives != life:
            self._trace.fault(FaultKind.ENGINE_BROKE_OFF, self.url)
            self._evidence.cut[prompt] += 1
            return NoReply("broken", "connection reset")
        if mood is not None:
            return await self._show(mood, prompt)
        return self._own_failure(prompt) or self._good(prompt, model)

    async def _show(self, mood: _Mood, prompt: str) -> Attempt:
        kind, reply = mood
        self._trace.fault(kind, self.url)
        if isinstance(reply, NoReply) and reply.kind == "timeout":
            await asyncio.sleep(_HANG_S)
        if kind in (FaultKind.ENGINE_REFUSED, FaultKind.ENGINE_OVERSIZE):
            self._evidence.refused[prompt] += 1
        elif kind is not FaultKind.ENGINE_FULL:
            self._evidence.failed[prompt] += 1
        return reply

    def _own_failure(self, prompt: str) -> Attempt | None:
        """The failure of a line that fails wherever it goes; None for any other."""
        if FAILS in prompt:
            self._trace.fault(FaultKind.LINE_FAILED, self.url)
            return self._field.failure
        if MISTAKEN in prompt:
            self._trace.fault(FaultKind.LINE_MISTAKEN, self.url)
            return REPLIES[FaultKind.ERROR_IN_200][0]
        return None

    def start(self) -> None:
        self.up = True

    def _mood(self) -> _Mood:
        return self._random.choice(_MOODS)

    def _good(self, prompt: str, model: str) -> Attempt:
        self.answered += 1
        tokens = {"prompt_tokens": 5 + len(prompt), "completion_tokens": self._random.randint(1, 9)}
        cached = self._random.randint(0, 5)
        answer = {
            "id": f"{self.url} {self.answered}",
            "model": model,
            "object": "chat.completion",
            "choices": [{"message": {"role": "assistant", "content": f"re: {prompt}"}}],
            "usage": tokens | {"prompt_tokens_details": {"cached_tokens": cached}},
        }
        self._answers.setdefault(prompt, []).append(answer)
        return Reply(200, msgspec.json.encode(answer))


class NetworkedEngine:
    """One process's connections to an engine."""

    def __init__(self, machine: EngineMachine, called: Callable[[str], None]) -> None:
        """`called` is called with each call that begins."""
        self._machine = machine
        self._called = called

    @property
    def url(self) -> str:
        return self._machine.url

    async def post(
        self,
        path: str,  # noqa: ARG002
        body: bytes,
        timeout_s: float,
        owner: str = "",  # noqa: ARG002
    ) -> Attempt:
        process = PROCESS.get()
        assert process is not None, "engines are called by workers"
        process.exit_if_dead()
        self._called(self.url)
        try:
            async with asyncio.timeout(timeout_s):
                reply = await self._machine.answer(body, process)
        except TimeoutError:
            return NoReply("timeout", f"no answer within {timeout_s} s")
        process.exit_if_dead()
        return reply

    async def get(self, path: str, timeout_s: float) -> Attempt:  # noqa: ARG002
        return self._machine.page(path)

    async def aclose(self) -> None:
        """Does nothing: no connection is kept open."""
