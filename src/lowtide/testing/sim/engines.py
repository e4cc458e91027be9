"""Engines across a simulated network: they answer, refuse, hang, die, and send rubbish.

An `EngineMachine` is shared by all workers; a `SimEngine` is one worker's client of it and keeps
the contract of ports/engine.py. Each answer carries a number of its own and a drawn usage, and is
remembered: so a checker knows whether a line in a result file was said by an engine, and what it
may cost.
"""

import asyncio
from collections.abc import Callable
from contextvars import Context
from random import Random
from typing import Any, Final

import msgspec

from lowtide.core.outcome import Attempt, NoReply, Reply
from lowtide.testing.sim.process import PROCESS, Process
from lowtide.testing.sim.scenario import Scenario

_HANG_S: Final = 3600.0


class EngineMachine:
    """One engine, up or down."""

    def __init__(self, name: str, scenario: Scenario, answers: dict[str, list[Any]]) -> None:
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

    def stop(self) -> None:
        """Calls in flight end unanswered."""
        self.up = False
        self.lives += 1

    async def answer(self, body: bytes, caller: Process) -> Attempt:
        """What comes of one call, however long it takes."""
        if not self.up:
            return NoReply("connect", "connection refused")
        if self.in_flight >= self._room:
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
            self.stop()
            loop = asyncio.get_running_loop()
            loop.call_later(0.5, self.start, context=Context())  # not in its victim's process
        if self.lives != life:
            return NoReply("broken", "connection reset")
        reply = mood(prompt, body["model"])
        if isinstance(reply, NoReply) and reply.kind == "timeout":
            await asyncio.sleep(_HANG_S)
        return reply

    def start(self) -> None:
        self.up = True

    def _mood(self) -> Callable[[str, str], Attempt]:
        bad: list[Attempt] = [
            Reply(500, b'{"error":{"message":"hiccup"}}'),
            Reply(500, b"<html>"),
            Reply(200, b"<html>rubbish</html>"),
            Reply(200, b'{"half": "an ans'),
            Reply(400, b'{"error":{"message":"bad request"}}'),
            Reply(429, b"", 0.5),
            Reply(503, b"{}"),
            NoReply("broken", "half a reply"),
            NoReply("timeout", "no reply"),
            NoReply("oversize", "too large"),
        ]
        chosen = self._random.choice(bad)
        return lambda _prompt, _model: chosen

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

    def __init__(self, machine: EngineMachine) -> None:
        self._machine = machine

    @property
    def url(self) -> str:
        return self._machine.url

    async def post(self, path: str, body: bytes, timeout_s: float) -> Attempt:  # noqa: ARG002
        process = PROCESS.get()
        assert process is not None, "engines are called by workers"
        process.exit_if_dead()
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
