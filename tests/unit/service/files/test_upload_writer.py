"""The one pass over an upload: bytes, lines, hash, bound."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowtide.blobs.url import open_blobs
from lowtide.core.errors import LowtideError
from lowtide.ports.blobs import BlobNotFound
from lowtide.service.files.upload_writer import UploadWriter, open_upload


class Writer:
    def __init__(self) -> None:
        self.data = b""

    async def write(self, data: bytes) -> None:
        self.data += data


@given(st.lists(st.binary(max_size=8) | st.sampled_from([b"\n", b"a\nb", b"a\n"]), max_size=8))
async def test_bytes_lines_and_hash_are_of_the_whole_however_it_came(
    pieces: Sequence[bytes],
) -> None:
    writer = Writer()
    intake = UploadWriter(writer, "key", 10_000)
    for piece in pieces:
        await intake.write(piece)
    whole = b"".join(pieces)
    assert writer.data == whole
    assert intake.content.bytes == len(whole)
    assert intake.content.lines == len(_lines(whole))
    assert intake.content.sha256 == hashlib.sha256(whole).hexdigest()


def stored(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file()]


def _lines(whole: bytes) -> list[bytes]:
    return whole.removesuffix(b"\n").split(b"\n") if whole else []


async def test_a_file_at_the_bound_is_taken_and_one_byte_more_leaves_nothing(
    tmp_path: Path,
) -> None:
    blobs = open_blobs("file", tmp_path)
    async with open_upload(blobs, "files/a", 10) as intake:
        await intake.write(b"12345")
        await intake.write(b"67890")
    assert await blobs.size("files/a") == 10
    with pytest.raises(LowtideError) as refused:
        async with open_upload(blobs, "files/b", 10) as intake:
            await intake.write(b"12345678")
            await intake.write(b"901")
    assert refused.value.code == "file_too_large"
    assert "10 bytes" in refused.value.message
    with pytest.raises(BlobNotFound):
        await blobs.size("files/b")
    assert stored(tmp_path) == ["a"]
