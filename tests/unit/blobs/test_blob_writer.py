"""Pieces of any size leave as blocks, in order, with never more than a block held."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from lowtide.blobs.writer import BufferedBlobWriter

BLOCK = 100


@given(st.lists(st.binary(max_size=250), max_size=30))
async def test_blocks_and_rest_are_the_pieces_in_order(pieces: list[bytes]) -> None:
    blocks: list[bytes] = []

    async def append(data: bytes | bytearray) -> None:
        blocks.append(bytes(data))

    writer = BufferedBlobWriter(append, BLOCK)
    for piece in pieces:
        await writer.write(piece)
    rest = writer.take()
    assert len(rest) < BLOCK
    assert b"".join([*blocks, rest]) == b"".join(pieces)
    # Two blocks in a row are worth at least one full block: small pieces never pass singly.
    assert all(len(a) + len(b) >= BLOCK for a, b in pairwise(blocks))


async def test_a_large_piece_passes_through_without_a_copy() -> None:
    passed: list[bytes | bytearray] = []

    async def append(data: bytes | bytearray) -> None:
        passed.append(data)

    large = bytes(BLOCK * 3)
    await BufferedBlobWriter(append, BLOCK).write(large)
    assert passed[0] is large
