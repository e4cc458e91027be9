"""A batch call whose answer is streamed, so that it is seen when the engine has read the prompt.

What comes back is the attempt that `Engine.post` would have made of it. Called by
loops/dispatch/attempt.py.
"""

import asyncio
from collections.abc import Callable

from lowtide.core.bodies.sse import CONTENT_TYPE
from lowtide.core.faults.outcome import Attempt, NoReply
from lowtide.core.faults.streamed_answer import StreamedAnswer
from lowtide.ports.engine import ReplyStream, StreamingEngine
from lowtide.service.reply_memory import OVERSIZE, ReplyMemory, whole_reply


async def post_watched(
    engine: StreamingEngine,
    path: str,
    body: bytes,
    timeout_s: float,
    on_token: Callable[[], None],
    memory: ReplyMemory,
) -> Attempt | None:
    """Posts `body`, which asks for a stream, and puts the answer together.

    `on_token` is called with the first token and whatever comes after it; `memory` counts what
    comes. None: the stream was not one that can be put together.
    """
    try:
        async with (
            asyncio.timeout(timeout_s),
            engine.open_stream(path, body, timeout_s, memory.owner) as reply,
        ):
            if isinstance(reply, NoReply):
                return reply
            if reply.status >= 300 or not reply.content_type.startswith(CONTENT_TYPE):
                return await whole_reply(reply, memory)
            return await _read_stream(reply, on_token, memory)
    except TimeoutError:
        return NoReply("timeout", f"no complete answer within {timeout_s:g} s")


async def _read_stream(
    reply: ReplyStream, on_token: Callable[[], None], memory: ReplyMemory
) -> Attempt | None:
    answer = StreamedAnswer()
    while block := await reply.read():
        if isinstance(block, NoReply):
            return block
        answer.feed(block)
        if answer.has_begun:
            on_token()
        if answer.is_oversize:
            return OVERSIZE
        await memory.add(len(block))
    return answer.finish(reply.status)
