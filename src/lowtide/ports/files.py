"""The port to files: their rows. Bytes are in the object store under `File.blob_key`.

Same contract as ports/store.py: each method one transaction, durable when it returns, foreign
exceptions mapped; another project's id behaves as an unknown id. A file gets its bytes once, and
its blob stays as long as an unfinished batch reads it.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Literal, Protocol

from lowtide.core.files.file import File
from lowtide.core.files.storage_quota import StorageQuota
from lowtide.core.idempotency.request_key import RequestKey

Order = Literal["asc", "desc"]


class FileStore(Protocol):
    """Rows of files."""

    async def add(
        self, file: File, quota: StorageQuota | None = None, key: RequestKey | None = None
    ) -> str | None:
        """Inserts, unless `key` made a file: its id. Raises QuotaReached, KeyTaken, however
        many.
        """

    async def get(self, project_id: str, file_id: str) -> File | None:
        """None when unknown, deleted, or another project's."""

    async def get_many(self, project_id: str, file_ids: Collection[str]) -> dict[str, File]:
        """The same of many at once, by id; one that `get` would not find is missing."""

    async def by_id(self, file_id: str) -> File | None:
        """The file of any project, for signed uploads: the signature is the permission.
        None: there is none.
        """

    async def page(
        self,
        project_id: str,
        *,
        after: str | None,
        limit: int,
        order: Order = "desc",
        purpose: str | None = None,
    ) -> list[File]:
        """Up to `limit` files by `(created_at, id)`, beginning behind the id `after`, which may be
        one that was deleted. Raises UnknownCursor.
        """

    async def names(self, project_id: str, file_ids: Sequence[str]) -> Mapping[str, str]:
        """The file names of those of the project that are there, by id. A list asks at once for
        those of its page.
        """

    async def mark_uploaded(
        self,
        file_id: str,
        *,
        bytes: int,
        lines: int,
        sha256: str,
        blob_key: str,
        quota: StorageQuota | None = None,
    ) -> bool:
        """pending -> uploaded, once; False when it is not pending any more. Raises QuotaReached."""

    async def delete(self, project_id: str, file_id: str, now: datetime) -> bool:
        """Hides the row at once and lets its blob go to garbage as soon as no unfinished batch
        reads it.

        False when unknown.
        """
