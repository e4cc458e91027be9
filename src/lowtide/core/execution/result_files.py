"""A batch's two result files, as they are from their first line to their assembly.

Called by the decision of a commit and by the store when it finishes them. Invariant: a batch has at
most one output and one error file, under ids known from the start.
"""

from datetime import datetime

from lowtide.core.batches.batch import Batch, error_file_id, output_file_id
from lowtide.core.files.file import File


def growing_output(batch: Batch, now: datetime) -> File:
    """The output file of a batch that has its first success."""
    return _growing(batch, output_file_id(batch.id), f"{batch.id}_output.jsonl", now)


def growing_errors(batch: Batch, now: datetime) -> File:
    """The error file of a batch that has its first failure."""
    return _growing(batch, error_file_id(batch.id), f"{batch.id}_errors.jsonl", now)


def _growing(batch: Batch, file_id: str, filename: str, now: datetime) -> File:
    return File(
        id=file_id,
        project_id=batch.project_id,
        purpose="batch_output",
        filename=filename,
        status="growing",
        dialect=batch.dialect,
        created_at=now,
        batch_id=batch.id,
        flex=batch.flex,
    )
