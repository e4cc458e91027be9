"""One reply on its way through: the head when it is known, then the body block by block.

`Connection` puts in what arrives, the live API takes it out at its client's pace. It guards
the bound on memory: when more than `LIVE_BUFFER_BYTES` wait to be read, the socket is not read
until half of it is gone, so a slow client slows down the engine and nothing piles up between them.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from lowtide.core.faults.outcome import NoReply
from lowtide.limits import LIVE_BUFFER_BYTES


class HttpReplyStream:
    """A `ports.engine.ReplyStream`; one exchange of one connection."""

    __slots__ = (
        "_blocks",
        "_buffered",
        "_end",
        "_ended",
        "_opened",
        "_pause",
        "_paused",
        "_waiter",
        "content_type",
        "hide",
        "retry_after_s",
        "silence_s",
        "status",
    )

    def __init__(self, silence_s: float) -> None:
        """`silence_s`: how long the engine may take for its head, and between two blocks."""
        self.silence_s = silence_s
        self.status = 0
        self.content_type = ""
        self.retry_after_s: float | None = None
        self.hide: Callable[[bytes], bytes] = bytes
        """Removes secrets from what is no success."""
        self._opened = False
        self._ended = False
        self._end: NoReply | None = None
        self._paused = False
        self._buffered = 0
        self._blocks: deque[bytes] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._pause: Callable[[bool], None] = lambda _: None

    # ---- for the client ----

    async def head(self) -> NoReply | None:
        """Waits for status and headers; what came instead, if they do not come."""
        while not self._opened and not self._ended:
            await self._wait()
        return None if self._opened else self._end

    async def read(self) -> bytes | NoReply:
        """See the port."""
        while not self._blocks and not self._ended:
            await self._wait()
        if not self._blocks:
            return self._end or b""
        blocks = self._blocks
        block = blocks.popleft() if len(blocks) == 1 else b"".join(blocks)
        blocks.clear()
        self._buffered = 0
        if self._paused and not self._ended:
            self._paused = False
            self._pause(False)
        return block if self.status < 300 else self.hide(block)

    # ---- for the connection ----

    @property
    def is_paused(self) -> bool:
        """The socket waits for the reader: silence is not the engine's."""
        return self._paused

    def attach(self, pause: Callable[[bool], None]) -> None:
        """Connects the stream with the connection that carries it; `pause(True)`
        stops its reading.
        """
        self._pause = pause

    def opened(self, status: int, content_type: bytes, retry_after_s: float | None) -> None:
        self.status = status
        self.content_type = content_type.decode("latin-1")
        self.retry_after_s = retry_after_s
        self._opened = True
        self._wake()

    def fed(self, data: bytes) -> None:
        self._blocks.append(data)
        self._buffered += len(data)
        if self._buffered > LIVE_BUFFER_BYTES and not self._paused:
            self._paused = True
            self._pause(True)
        self._wake()

    def ended(self, why: NoReply | None) -> None:
        """Ends the stream; None: the reply is complete."""
        if not self._ended:
            self._ended = True
            self._end = why
            self._wake()

    # ---- inside ----

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
