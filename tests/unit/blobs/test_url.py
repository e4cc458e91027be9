"""Which adapter a `blob_url` opens, and what is said to a wrong one."""

import socket
from pathlib import Path

import pytest

from lowtide.blobs.bucket.object_blobs import ObjectBlobs
from lowtide.blobs.folder.folder_blobs import FolderBlobs
from lowtide.blobs.url import open_blobs
from lowtide.ports.blobs import BlobsUnavailable


def test_file_opens_the_folder_and_creates_nothing(tmp_path: Path) -> None:
    assert isinstance(open_blobs("file", tmp_path / "blobs"), FolderBlobs)
    assert not (tmp_path / "blobs").exists()


def test_a_file_url_opens_the_folder_it_names(tmp_path: Path) -> None:
    shared = tmp_path / "shared by all"
    blobs = open_blobs(shared.as_uri(), tmp_path / "own")
    assert isinstance(blobs, FolderBlobs)
    assert blobs._folder == shared


def test_a_bucket_url_opens_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    assert isinstance(open_blobs("s3://bucket/prefix", tmp_path), ObjectBlobs)


@pytest.mark.parametrize(
    "url", ["", "folder", "file://host/tmp", "file:tmp", "memory:///", "http://host/x"]
)
def test_another_url_is_refused_with_what_to_use(tmp_path: Path, url: str) -> None:
    with pytest.raises(ValueError, match=r'use "file", file:///absolute/path, or s3://'):
        open_blobs(url, tmp_path)


async def test_a_store_that_nobody_answers_for_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lowtide.limits.BLOB_RETRIES_MAX", 0)
    with socket.socket() as held:  # bound but not listening: connections are refused
        held.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT", f"http://127.0.0.1:{held.getsockname()[1]}")
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        with pytest.raises(BlobsUnavailable, match=r"s3://bucket.*Check blob_url"):
            await open_blobs("s3://bucket", tmp_path).probe()
