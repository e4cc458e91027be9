"""Calls of a server with the scheduler class, live or of batch priority, for the trials.

Called by `bench.step_bound_vllm.features`. Texts are as vLLM returns them; a call that fails
raises `Failed` with what the server said.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx

from bench.step_bound_vllm.engine import BATCH_PRIORITY, NAME, Engine

CALL_S: Final = 60.0
LIVE: Final = 0
BATCH: Final = BATCH_PRIORITY


class Failed(Exception):
    """A call that was refused or broke, or a fact that does not hold."""


class Caller:
    """Speaks to one engine, by one pool of connections."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._http = httpx.AsyncClient(base_url=f"{engine.address}/v1", timeout=CALL_S)

    async def aclose(self) -> None:
        await self._http.aclose()

    async def complete(self, prompt: str, priority: int, **more: Any) -> dict[str, Any]:
        """The answer to one greedy call of /completions, unless `more` says otherwise."""
        return await self._post("/completions", {"prompt": prompt, **_asked(priority, more)})

    async def chat(self, said: str, priority: int, **more: Any) -> dict[str, Any]:
        messages = [{"role": "user", "content": said}]
        asked = {"messages": messages, **_asked(priority, more)}
        return await self._post("/chat/completions", asked)

    async def _post(self, path: str, asked: dict[str, Any]) -> dict[str, Any]:
        answer = await self._http.post(path, json=asked)
        if answer.status_code != 200:
            raise Failed(f"{answer.status_code}: {answer.text[:300]}")
        answered: dict[str, Any] = answer.json()
        return answered

    async def streamed(
        self, prompt: str, priority: int, **more: Any
    ) -> AsyncIterator[dict[str, Any]]:
        """The events of a streamed call. The call is aborted when the iterator is closed."""
        asked = {"prompt": prompt, "stream": True, **_asked(priority, more)}
        async with self._http.stream("POST", "/completions", json=asked) as answer:
            if answer.status_code != 200:
                raise Failed(f"{answer.status_code}: {(await answer.aread())[:300]!r}")
            async for line in answer.aiter_lines():
                if line.startswith("data: {"):
                    yield json.loads(line.removeprefix("data: "))

    @asynccontextmanager
    async def work(self, priority: int, calls: int, *, model: str = NAME) -> AsyncIterator[None]:
        """So many calls under way, one after the other, as long as the context lasts. Raises Failed
        when one of them failed.
        """

        async def loop(number: int) -> None:
            for turn in range(1000):
                prompt = f"{number} {turn} a call that runs beside others " * 3
                await self.complete(prompt, priority, max_tokens=120, model=model)

        loops = [asyncio.create_task(loop(number)) for number in range(calls)]
        try:
            while await self.engine.counted("vllm:num_requests_running") < calls:
                if any(task.done() for task in loops):
                    break
                await asyncio.sleep(0.05)
            yield
        finally:
            for task in loops:
                task.cancel()
            ended = await asyncio.gather(*loops, return_exceptions=True)
        for error in ended:
            if isinstance(error, Exception):
                raise Failed(f"beside it: {error}")


def _asked(priority: int, more: dict[str, Any]) -> dict[str, Any]:
    return {"model": NAME, "temperature": 0, "max_tokens": 32, "priority": priority, **more}


def text(answer: dict[str, Any]) -> str:
    """Of the one choice that was asked for."""
    (choice,) = answer["choices"]
    return str(choice["text"])
