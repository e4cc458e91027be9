"""An engine without a network: the port alone (ports/engine.py), for tests of the loops.

Answers at once by its script and then `otherwise`, or holds every call until the test lets it go.
What needs sockets is for `scripted_engine`.
"""

import asyncio
from collections import deque
from collections.abc import Callable

import msgspec

from lowtide.core.faults.outcome import Attempt, Reply
from testkit.patience import PATIENCE_S

ANSWER = Reply(
    200,
    b'{"object":"chat.completion","choices":[{"index":0,"message":{"content":"Hi"}}],'
    b'"usage":{"prompt_tokens":3,"completion_tokens":1}}',
)


class FakeCall(msgspec.Struct, eq=False):
    """One `post` that waits for its answer, or had it."""

    path: str
    body: bytes
    answered: asyncio.Future[Attempt]


class FakeEngine:
    """An engine double. Set `holds` to keep calls in flight; `waiting` are those."""

    def __init__(self, *script: Attempt, url: str = "http://fake/v1") -> None:
        self._url = url
        self.script = deque(script)
        self.otherwise: Attempt = ANSWER
        self.holds = False
        self.calls: list[FakeCall] = []
        self.waiting: list[FakeCall] = []
        self.cancelled: list[FakeCall] = []
        self.peak = 0
        self._changed = asyncio.Condition()

    @property
    def url(self) -> str:
        return self._url

    async def post(
        self,
        path: str,
        body: bytes,
        timeout_s: float,  # noqa: ARG002
        owner: str = "",  # noqa: ARG002
    ) -> Attempt:
        call = FakeCall(path, body, asyncio.get_running_loop().create_future())
        self.calls.append(call)
        self.waiting.append(call)
        self.peak = max(self.peak, len(self.waiting))
        if not self.holds:
            call.answered.set_result(self._next())
        await self._notify()
        try:
            return await call.answered
        except asyncio.CancelledError:
            self.cancelled.append(call)
            raise
        finally:
            self.waiting.remove(call)

    async def get(self, path: str, timeout_s: float) -> Attempt:  # noqa: ARG002
        return ANSWER

    async def aclose(self) -> None:
        pass

    def let_go(self, answer: Attempt | None = None) -> None:
        """Answer all calls that wait."""
        for call in self.waiting:
            if not call.answered.done():
                call.answered.set_result(answer or self._next())

    async def saw(self, fact: Callable[[], bool]) -> None:
        """Wait until `fact` holds; asked again at each call."""
        async with asyncio.timeout(PATIENCE_S), self._changed:
            await self._changed.wait_for(fact)

    def _next(self) -> Attempt:
        return self.script.popleft() if self.script else self.otherwise

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()
