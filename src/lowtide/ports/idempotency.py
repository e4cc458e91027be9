"""The port to idempotency keys. Keys are taken by the `add` of batches, files, uploads and
retries, in the transaction that creates what they stand for; here they are looked up.

The contract is that of ports/store.py.
"""

from datetime import datetime
from typing import Protocol

from lowtide.core.idempotency.request_key import RequestKey


class IdempotencyStore(Protocol):
    """Keys of organizations."""

    async def made_by(self, key: RequestKey, now: datetime) -> str | None:
        """The id of what an earlier request with this key made, within IDEMPOTENCY_KEY_KEEP_S and
        not deleted since. Raises KeyTaken where the key stands for another request.
        """

    async def has_made(self, organization_id: str, key: str, now: datetime) -> bool:
        """Whether a request with that key, be it another one, made what is there still."""
