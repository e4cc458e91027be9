"""core/integrity/backup_manifest.py: what a backup says of itself, and lists that are compared in
one pass."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowtide.core.integrity.backup_manifest import (
    FORMAT,
    Known,
    Manifest,
    ManifestError,
    decode_manifest,
    encode_manifest,
    list_line,
    read_list,
)

MANIFEST = Manifest(
    lowtide="0.1.0",
    schema="0007",
    created_at=datetime(2026, 11, 21, tzinfo=UTC),
    data_dir="/data",
    database_bytes=1,
    database_sha256="a" * 64,
    list_sha256="b" * 64,
    blobs=2,
    blob_bytes=3,
)


def test_a_manifest_comes_back_as_it_was_written() -> None:
    assert decode_manifest(encode_manifest(MANIFEST)) == MANIFEST


@pytest.mark.parametrize("data", [b"", b"{}", b'{"format": 1}', encode_manifest(MANIFEST)[:-9]])
def test_a_damaged_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(ManifestError, match="cannot be read"):
        decode_manifest(data)


def test_a_newer_format_names_the_version_that_made_it() -> None:
    data = encode_manifest(MANIFEST).replace(b'"format": 1', b'"format": %d' % (FORMAT + 1))
    with pytest.raises(ManifestError, match=r"newer Lowtide \(0\.1\.0\)"):
        decode_manifest(data)


def test_a_list_is_read_as_it_was_written() -> None:
    lines = [list_line("files/a", "0" * 64), list_line("segments/seg_1", "1" * 64)]
    assert list(read_list(lines)) == [("files/a", "0" * 64), ("segments/seg_1", "1" * 64)]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "0" * 64,
        list_line("a", "0" * 63),
        list_line("a", "0" * 64)[:-1],
        list_line("../../etc/passwd", "0" * 64),
        list_line("/etc/passwd", "0" * 64),
        list_line("a/../../b", "0" * 64),
        list_line("a b", "0" * 64),
    ],
)
def test_a_line_that_is_damaged_or_leads_elsewhere_is_refused(line: str) -> None:
    with pytest.raises(ManifestError, match="line 2"):
        list(read_list([list_line("a", "0" * 64), line]))
    assert [key for key, _ in read_list([line, list_line("a", "0" * 64)], strict=False)] == ["a"]


@given(st.sets(st.text("abc", min_size=1)), st.sets(st.text("abc", min_size=1)))
def test_known_digests_are_found_in_one_pass(listed: set[str], asked: set[str]) -> None:
    known = Known((key, f"digest of {key}") for key in sorted(listed))
    for key in sorted(asked):
        assert known.digest(key) == (f"digest of {key}" if key in listed else None)
        assert known.digest(key) == (f"digest of {key}" if key in listed else None), "again"
