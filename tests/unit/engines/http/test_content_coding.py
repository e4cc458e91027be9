"""Replies that were compressed although nobody asked for it."""

import gzip
import zlib

import pytest

from lowtide.engines.http import content_coding
from lowtide.engines.http.content_coding import Unpacker

TEXT = b'{"choices": [{"text": "' + b"tide " * 1_000 + b'"}]}'


def bare(data: bytes) -> bytes:
    coder = zlib.compressobj(wbits=-15)
    return coder.compress(data) + coder.flush()


def fed(coding: bytes, data: bytes, size: int) -> bytes:
    unpacker = Unpacker(coding)
    parts = [unpacker.feed(data[at : at + size]) for at in range(0, len(data), size)]
    assert None not in parts
    return b"".join(part for part in parts if part)


@pytest.mark.parametrize("size", [7, 64, 100_000])
@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        (b"gzip", gzip.compress(TEXT, mtime=0)),
        (b" X-GZip ", gzip.compress(TEXT, mtime=0)),
        (b"deflate", zlib.compress(TEXT)),
        (b"deflate", bare(TEXT)),
        (b"identity", TEXT),
    ],
)
def test_what_a_proxy_packed_is_unpacked_however_it_is_cut(
    coding: bytes, packed: bytes, size: int
) -> None:
    assert fed(coding, packed, size) == TEXT


def test_bytes_that_are_not_of_their_coding_pass_unchanged() -> None:
    assert fed(b"gzip", TEXT, 100_000) == TEXT
    assert fed(b"br", TEXT, 100_000) == TEXT


def test_what_unpacks_to_more_than_a_reply_may_be_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(content_coding, "REPLY_BYTES_MAX", 100_000)
    packed = gzip.compress(bytes(1_000_000))
    assert Unpacker(b"gzip").feed(packed) is None
