"""A file: an uploaded or produced JSONL, as the store keeps it."""

from datetime import datetime
from typing import Final, Literal

import msgspec

from lowtide.core.batches.batch import Dialect, Flex

FileStatus = Literal["pending", "uploaded", "growing", "lost"]
"""pending: announced, bytes not here yet (Together's step 1). uploaded: complete, in the object
store.
growing: results of a batch that still runs; its bytes are the committed segments.
lost: was complete, and its bytes are gone or damaged."""

PURPOSES: Final = frozenset({"batch", "batch-api"})
"""What an upload may be for. Produced files have `batch_output`."""


def dialect_of_purpose(purpose: str) -> Dialect:
    """`batch-api` is Together's word, `batch` OpenAI's (protocol.md section 1, rule 2b)."""
    return "together" if purpose == "batch-api" else "openai"


class File(msgspec.Struct, frozen=True, kw_only=True):
    """`bytes`, `lines` and `sha256` are of the content; 0 and "" while it is not complete."""

    id: str
    project_id: str
    purpose: str
    filename: str
    status: FileStatus
    dialect: Dialect
    created_at: datetime
    expires_at: datetime | None = None
    bytes: int = 0
    lines: int = 0
    sha256: str = ""
    blob_key: str = ""
    batch_id: str | None = None
    """The batch that produces this file; None for an upload."""
    flex: Flex | None = None
    """The flex setting of the batch that reads or makes the file; lists show files without it."""
