"""Engines across a simulated network: they answer, refuse, hang, die, and send rubbish.

An `EngineMachine` is shared by all workers; a `SimEngine` is one worker's client of it and keeps
the contract of ports/engine.py. Each answer carries a number of its own and a drawn usage, and is
remembered: so a checker knows whether a line in a result file was said by an engine, and what it
may cost. Trouble is counted when the call that it befalls is heard of.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextvars import Context
from random import Random
from typing import Any, Final

import msgspec

from lowtide.core.outcome import Attempt, NoReply, Reply
from lowtide.testing.sim.kinds import Fault
from lowtide.testing.sim.process import PROCESS, Process
from lowtide.testing.sim.scenario import Scenario
from lowtide.testing.sim.trace import Trace

_HANG_S: Final = 3600.0
_MOODS: Final[Sequence[tuple[Fault, Attempt]]] = (
    (Fault.ENGINE_FAILED, Reply(500, b'{"error":{"message":"hiccup"}}')),
    (Fault.ENGINE_FAILED, Reply(500, b"<html>")),
    (Fault.ENGINE_RUBBISH, Reply(200, b"<html>rubbish</html>")),
    (Fault.ENGINE_RUBBISH, Reply(200, b"[1, 2]")),
    (Fault.ENGINE_HALF_REPLY, Reply(200, b'{"half": "an ans')),
    (Fault.ENGINE_HALF_REPLY, NoReply("broken", "half a reply")),
    (Fault.ENGINE_REFUSED, Reply(400, b'{"error":{"message":"bad request"}}')),
    (Fault.ENGINE_FULL, Reply(429, b"", 0.5)),
    (Fault.ENGINE_FULL, Reply(503, b"{}")),
    (Fault.ENGINE_HUNG, NoReply("timeout", "no reply")),
    (Fault.ENGINE_OVERSIZE, NoReply("oversize", "too large")),
)


class EngineMachine:
    """One engine, up or down."""

    def __init__(
        self, name: str, scenario: Scenario, answers: dict[str, list[Any]], trace: Trace
    ) -> None:
        self._trace = trace
        self.url = f"http://{name}/v1"
        self.up = True
        self.lives = 0
        self.trouble = scenario.rates.engine_trouble
        self.answered = 0
        self._random = Random(f"engine {name} {scenario.seed}")
        self._answer_s = scenario.answer_s * self._random.choice([0.5, 1.0, 4.0])
        self._room = scenario.window * self._random.choice([1, 2, scenario.workers])
        self._callers: list[Process] = []
        self._answers = answers

    @property
    def in_flight(self) -> int:
        """Calls whose caller lives: the kernel closes the connections of a dead one."""
        return sum(caller.alive for caller in self._callers)

    def is_called_by(self, process: Process) -> bool:
        """Now: it waits for an answer."""
        return process in self._callers

    def stop(self) -> None:
        """Calls in flight end unanswered."""
        self.up = False
        self.lives += 1

    async def answer(self, body: bytes, caller: Process) -> Attempt:
        """What comes of one call, however long it takes."""
        if not self.up:
            self._trace.fault(Fault.ENGINE_UNREACHABLE, self.url)
            return NoReply("connect", "connection refused")
        if self.in_flight >= self._room:
            self._trace.fault(Fault.ENGINE_FULL, self.url)
            after = self._random.choice([None, 0.2, 1.0])
            return Reply(self._random.choice([429, 503]), b'{"error":"full"}', after)
        self._callers.append(caller)
        try:
            return await self._work(msgspec.json.decode(body))
        finally:
            self._callers.remove(caller)

    async def _work(self, body: dict[str, Any]) -> Attempt:
        life, prompt = self.lives, body["messages"][-1]["content"]
        mood = self._mood() if self._random.random() < self.trouble else self._good
        await asyncio.sleep(self._random.expovariate(1 / self._answer_s))
        if "poison" in prompt and self.lives == life:
            self._trace.fault(Fault.ENGINE_CRASHED, self.url)
            self.stop()
            loop = asyncio.get_running_loop()
            loop.call_later(0.5, self.start, context=Context())  # not in its victim's process
        if self.lives != life:
            self._trace.fault(Fault.ENGINE_BROKE_OFF, self.url)
            return NoReply("broken", "connection reset")
        reply = mood(prompt, body["model"])
        if isinstance(reply, NoReply) and reply.kind == "timeout":
            await asyncio.sleep(_HANG_S)
        return reply

    def start(self) -> None:
        self.up = True

    def _mood(self) -> Callable[[str, str], Attempt]:
        kind, chosen = self._random.choice(_MOODS)

        def show(_prompt: str, _model: str) -> Attempt:
            self._trace.fault(kind, self.url)
            return chosen

        return show

    def _good(self, prompt: str, model: str) -> Attempt:
        self.answered += 1
        tokens = {"prompt_tokens": 5 + len(prompt), "completion_tokens": self._random.randint(0, 9)}
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


class SimEngine:
    """One process's connections to an engine."""

    def __init__(self, machine: EngineMachine, called: Callable[[str], None]) -> None:
        """`called` is told of each call that begins."""
        self._machine = machine
        self._called = called

    @property
    def url(self) -> str:
        return self._machine.url

    async def post(self, path: str, body: bytes, timeout_s: float) -> Attempt:  # noqa: ARG002
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
        return Reply(200, b"{}")

    async def aclose(self) -> None:
        """Nothing is kept open."""
