"""The port to what an organization uses of its limits, for `GET /v1/limits`.

The contract is that of ports/store.py. Nothing is decided by these figures: the transactions that
create batches and plans count for themselves.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol


class LimitUseStore(Protocol):
    """Counts over the unfinished work of one organization."""

    async def enqueued_tokens(self, organization_id: str) -> Mapping[str, int]:
        """Estimated input tokens that have not settled, by model; as planning counts them. Models
        without any are left out."""

    async def requests_in_flight(self, organization_id: str) -> int:
        """Requests of leased chunks that have not settled."""

    async def first_batch_since(self, organization_id: str, since: datetime) -> datetime | None:
        """When the oldest batch of those was created that `batches_created_since` counts."""
