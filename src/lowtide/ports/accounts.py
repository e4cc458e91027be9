"""The port to tenants and money: organizations, projects, keys; the ledger and its sums.

Same contract as ports/store.py: each method one transaction, durable when it returns, foreign
exceptions mapped. Ledger entries are written by `WorkStore.commit_group` alone and never change.

- **Charges.** In the transaction that stores a commit's results, each batch and model that had
  successes gets one entry: their tokens, at the prices that the commit carries. Failures, and what
  was dropped or refused, cost nothing. So the entries of a batch sum to the price of its successes;
  what a repair takes back (ports/integrity.py) has a negative entry.
- **Spend cap.** The charge with which an organization's sum of a calendar month (UTC, of
  `GroupCommit.now`) reaches its cap pauses it, in that same transaction: its batches in progress
  get the hold `spend_cap`, their waiting chunks are paused, plans committed later from the start.
  Workers learn of it as of a cancel (`CommitReceipt.stopped`), and what they give back, or lose, is
  held too. Results of calls that were in flight by then are stored and charged: a cap may be passed
  by what all workers had in flight and one commit of finished work, and by no more.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal, Protocol

from lowtide.core.accounts.ledger import Cost, LedgerEntry, UsageRow
from lowtide.core.accounts.tenancy import (
    ApiKey,
    KeyOwner,
    Organization,
    OrganizationLimits,
    Project,
)
from lowtide.core.files.storage_quota import StorageUse

GroupBy = Literal["day", "model", "project"]


class TenantStore(Protocol):
    """Organizations, projects and keys. A fresh database holds the default organization and
    project.
    """

    async def add_organization(self, organization: Organization) -> None: ...

    async def organizations(self) -> list[Organization]: ...

    async def organization(self, organization_id: str) -> Organization | None: ...

    async def change_organization(
        self,
        organization_id: str,
        *,
        limits: OrganizationLimits,
        spend_cap_pico: int | None,
        now: datetime,
    ) -> bool:
        """Replaces limits and cap; False when unknown. A higher cap lets paused batches go on."""

    async def add_project(self, project: Project) -> bool:
        """False when the organization is unknown."""

    async def projects(self, organization_id: str | None = None) -> list[Project]: ...

    async def project(self, project_id: str) -> Project | None: ...

    async def add_key(self, key: ApiKey) -> bool:
        """False when the project is unknown."""

    async def keys(self, project_id: str | None = None) -> list[ApiKey]:
        """The keys, newest first, revoked ones included."""

    async def key_owner(self, key_id: str) -> KeyOwner | None:
        """None when unknown. Validity is the caller's to check."""

    async def revoke_key(self, key_id: str, now: datetime) -> bool:
        """False when unknown; revoking twice keeps the first instant."""

    async def touch_keys(self, used_at: Mapping[str, datetime]) -> None:
        """Records `last_used_at`; it never goes back."""

    async def batches_created_since(self, organization_id: str, since: datetime) -> int:
        """Batches with `created_at >= since`, whatever became of them."""

    async def unfinished_batches(self, organization_id: str, most: int) -> int:
        """Batches and background responses that have not ended, counted up to `most`."""

    async def storage_use(self, organization_id: str) -> StorageUse:
        """What its projects keep together (core/files/storage_quota.py)."""


class LedgerStore(Protocol):
    """Sums over the ledger; exact."""

    async def cost(self, batch_ids: Sequence[str]) -> Mapping[str, Cost]:
        """The cost by batch; batches without entries are left out."""

    async def cost_by_model(self, batch_id: str) -> Mapping[str, Cost]:
        """What each model of the batch has cost so far, by model in order; models without entries
        are left out. Reads all entries of the batch.
        """

    async def entries(self, batch_id: str) -> list[LedgerEntry]:
        """The entries in the order they were written."""

    async def usage(
        self,
        *,
        since: datetime,
        until: datetime,
        group_by: Sequence[GroupBy],
        organization_id: str | None = None,
        project_id: str | None = None,
    ) -> list[UsageRow]:
        """Sums of entries with `since <= at < until`, days in UTC, ordered by the groups."""

    async def spent_pico(self, organization_id: str, since: datetime) -> int:
        """The sum of all charges with `at >= since`; cheap when that is a month's first instant."""

    async def unpause(self, now: datetime) -> list[str]:
        """Lets batches go on whose organization is below its cap again (raised, or a new month);
        their ids. Held chunks wait again.
        """
