"""The port to uploads in parts: what was announced, what has arrived, which process
puts it together.

Same contract as ports/store.py: each method one transaction, durable when it returns, foreign
exceptions mapped. Bytes are in the object store under `UploadPart.blob_key`.

- **One file.** An upload leaves `pending` once. With `complete` its file appears, whole, in that
  same transaction; with any other event there never is one.
- **One at a time.** The process that puts the parts together holds the upload under a token, for a
  limited time. While it is held it takes no parts, and no sweep expires it; a token that was
  superseded completes nothing.
- **Parts go when no upload needs them.** A part that is replaced, and all parts of an upload that
  leaves `pending`, become garbage (ports/store.py, `ResultStore.garbage`) in that same transaction.
  `ResultStore.sweep` takes the event `expire` for uploads past their time, and forgets ended ones.
- Bytes announced by pending uploads count as stored, or those of their parts where these are more
  (`TenantStore.storage_use`).
"""

from datetime import datetime
from typing import Literal, Protocol

from lowtide.core.files.file import File
from lowtide.core.files.storage_quota import StorageQuota
from lowtide.core.files.upload import Upload, UploadPart
from lowtide.core.idempotency.request_key import RequestKey

PartAnswer = Literal["kept", "closed", "full"]
"""closed: the upload takes no parts (any more). full: its parts would have more bytes
than its room, or be more than `limits.UPLOAD_PARTS_MAX`."""


class UploadStore(Protocol):
    """Rows of uploads and of their parts."""

    async def add(
        self, upload: Upload, quota: StorageQuota | None = None, key: RequestKey | None = None
    ) -> str | None:
        """Inserts, unless `key` made an upload: its id. The ids are fresh. Raises QuotaReached,
        KeyTaken.
        """

    async def get(self, project_id: str, upload_id: str) -> Upload | None:
        """None when unknown, forgotten, or another project's."""

    async def by_id(self, upload_id: str) -> Upload | None:
        """The upload of any project, for signed addresses: the signature is the permission."""

    async def add_part(
        self, part: UploadPart, now: datetime, quota: StorageQuota | None = None
    ) -> PartAnswer:
        """Inserts, in place of the part with the same number if there is one.

        When the answer is not "kept", nothing has changed. Raises QuotaReached when the parts would
        have more bytes than were announced, and the quota no room for them.
        """

    async def parts(self, upload_id: str) -> list[UploadPart]:
        """The parts in the order of arrival."""

    async def hold(self, upload_id: str, now: datetime, ttl_s: float) -> int | None:
        """A token for putting it together; None when it takes nothing any more, or is held."""

    async def keep_hold(self, upload_id: str, token: int, now: datetime, ttl_s: float) -> bool:
        """False when the hold was lost, or the upload is not pending any more."""

    async def let_go(self, upload_id: str, token: int) -> None:
        """Gives up the hold at once; nothing happens when it was lost."""

    async def let_all_go(self) -> int:
        """Gives up every hold: for the one process of a machine, whose holders died with the former
        one. How many there were."""

    async def complete(
        self, upload_id: str, token: int, file: File, choice_digest: str, now: datetime
    ) -> bool:
        """Event `complete`: insert `file`, let go of the parts. False when the hold was lost."""

    async def cancel(self, project_id: str, upload_id: str, now: datetime) -> Upload | None:
        """Takes the event `cancel` where the state allows it; the upload as it then is."""
