"""The BlobWriter of both adapters: small pieces gather here until a block is worth a thread hop.

An upload arrives in pieces of the network's size, 64 KB or less. Guards bounded memory: never two
blocks are held, and a piece that is a block by itself passes through without a copy.
"""

from collections.abc import Awaitable, Callable


class BufferedBlobWriter:
    """Passes blocks of about `block_bytes` or more to `append`; the rest is for `take`."""

    def __init__(
        self, append: Callable[[bytes | bytearray], Awaitable[None]], block_bytes: int
    ) -> None:
        self._append = append
        self._block_bytes = block_bytes
        self._pending = bytearray()

    async def write(self, data: bytes) -> None:
        if len(data) < self._block_bytes:
            self._pending += data
            if len(self._pending) >= self._block_bytes:
                await self._append(self.take())
            return
        if self._pending:
            await self._append(self.take())
        await self._append(data)

    def take(self) -> bytearray:
        """Removes and returns what is left at the end."""
        pending, self._pending = self._pending, bytearray()
        return pending
