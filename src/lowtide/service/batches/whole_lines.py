"""Blocks of bytes cut into whole lines, for the readers of result files."""

from collections.abc import AsyncGenerator, AsyncIterator


async def whole_lines(blocks: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    """The lines with their newline; a last one without it, too. Holds one line and one block."""
    held: list[bytes] = []
    async for block in blocks:
        *ends, tail = block.split(b"\n")
        for end in ends:
            held.append(end + b"\n")
            yield b"".join(held)
            held.clear()
        if tail:
            held.append(tail)
    if held:
        yield b"".join(held)
