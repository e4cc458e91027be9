"""A File as each vendor shows it (protocol.md sections 2.6 and 3.1)."""

from typing import Final

from lowtide.api.objects.files import FileObject, TogetherFile, TogetherStatus
from lowtide.api.objects.instants import object_of
from lowtide.core.batches.batch import Dialect
from lowtide.core.files.file import File, FileStatus

_TOGETHER_STATUS: Final[dict[FileStatus, TogetherStatus]] = {
    "pending": "PENDING",
    "growing": "RUNNING",
    "uploaded": "COMPLETED",
    "lost": "FAILED",
}
_OPENAI_STATUS: Final[dict[FileStatus, str]] = {
    "pending": "uploaded",
    "growing": "uploaded",
    "uploaded": "processed",
    "lost": "error",
}
_TOGETHER_TYPES: Final = frozenset({"jsonl", "parquet", "csv"})


def file_object(file: File, dialect: Dialect) -> FileObject | TogetherFile:
    """The file in the shape of `dialect`."""
    return together_file(file) if dialect == "together" else openai_file(file)


def openai_file(file: File) -> FileObject:
    """FileObject. `status` is `processed` as soon as the bytes are here.

    It is deprecated, but `wait_for_processing` and curator wait for that word.
    """
    return object_of(
        FileObject,
        file,
        status=_OPENAI_STATUS[file.status],
        status_details="Its content was lost." if file.status == "lost" else None,
    )


def together_file(file: File) -> TogetherFile:
    """FileResponse, with every purpose shown as `batch-api`.

    together 1.x validates the purpose against its own enum, and one foreign word makes the whole
    `files.list()` raise.
    """
    suffix = file.filename.rpartition(".")[2].lower()
    return object_of(
        TogetherFile,
        file,
        purpose="batch-api",
        file_type=suffix if suffix in _TOGETHER_TYPES else "jsonl",
        is_processed=file.status == "uploaded",
        line_count=file.lines,
        processing_status=_TOGETHER_STATUS[file.status],
    )
