"""A file in each vendor's shape."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from lowtide.api.files.file_objects import file_object
from lowtide.core.batches.batch import Dialect
from lowtide.core.files.file import File, FileStatus


def shown(file: File, dialect: Dialect) -> dict[str, Any]:
    """As clients read it."""
    return dict(msgspec.json.decode(msgspec.json.encode(file_object(file, dialect))))


def a_file(status: FileStatus = "uploaded", name: str = "x.jsonl", purpose: str = "batch") -> File:
    return File(
        id="file-1",
        project_id="p",
        purpose=purpose,
        filename=name,
        status=status,
        dialect="openai",
        created_at=datetime(2026, 11, 21, 1, 4, 35, 999999, tzinfo=UTC),
        bytes=10,
        lines=2,
    )


def test_openai_reads_whole_seconds_and_null_where_nothing_is_known() -> None:
    assert shown(a_file(), "openai") == {
        "id": "file-1",
        "object": "file",
        "bytes": 10,
        "created_at": 1795223075,
        "expires_at": None,
        "filename": "x.jsonl",
        "purpose": "batch",
        "status": "processed",
        "status_details": None,
    }


@pytest.mark.parametrize("purpose", ["batch", "batch-api", "batch_output"])
def test_together_reads_one_purpose_only(purpose: str) -> None:
    assert shown(a_file(purpose=purpose), "together") == {
        "id": "file-1",
        "object": "file",
        "created_at": 1795223075,
        "filename": "x.jsonl",
        "bytes": 10,
        "purpose": "batch-api",
        "FileType": "jsonl",
        "Processed": True,
        "LineCount": 2,
        "processing_status": "COMPLETED",
    }


@pytest.mark.parametrize(
    ("status", "openai", "together"),
    [
        ("pending", "uploaded", "PENDING"),
        ("growing", "uploaded", "RUNNING"),
        ("uploaded", "processed", "COMPLETED"),
    ],
)
def test_a_file_is_processed_when_its_bytes_are_here(
    status: FileStatus, openai: str, together: str
) -> None:
    assert shown(a_file(status), "openai")["status"] == openai
    answer = shown(a_file(status), "together")
    assert answer["processing_status"] == together
    assert answer["Processed"] is (status == "uploaded")


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.csv", "csv"), ("a.PARQUET", "parquet"), ("upload", "jsonl"), ("a.txt", "jsonl")],
)
def test_a_file_type_is_one_of_three_words(name: str, kind: str) -> None:
    assert shown(a_file(name=name), "together")["FileType"] == kind
