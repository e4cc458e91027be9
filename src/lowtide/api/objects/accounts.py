"""Organizations, projects, keys and usage as the admin and usage routes show them.

Instants are Unix seconds, money is a decimal string in dollars. A secret is in one object only:
the one that answers the creation of its key. Fields have defaults for readers alone: the server
sends every field that is not UNSET.
"""

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from lowtide.api.objects.amounts import AmountsObject
from lowtide.core.accounts.tenancy import OrganizationLimits


class LimitsObject(OrganizationLimits, frozen=True, omit_defaults=False):
    """Overrides of the configured defaults; null: the default applies."""


class OrganizationObject(msgspec.Struct, frozen=True, kw_only=True):
    """`spend_cap`: dollars of batch work per calendar month (UTC); null: no cap. `paused_at`: since
    when its batches wait because that is spent; null: they do not.
    """

    object: Literal["organization"] = "organization"
    id: str
    name: str
    created_at: int | None = None
    limits: LimitsObject = LimitsObject()
    spend_cap: str | None = None
    paused_at: int | None = None


class ProjectObject(msgspec.Struct, frozen=True, kw_only=True):
    object: Literal["project"] = "project"
    id: str
    organization_id: str
    name: str
    created_at: int | None = None


class KeyObject(msgspec.Struct, frozen=True, kw_only=True):
    """`hint` is the last four characters of the secret."""

    object: Literal["api_key"] = "api_key"
    id: str
    project_id: str
    name: str
    hint: str = ""
    scopes: tuple[str, ...] = ()
    created_at: int | None = None
    expires_at: int | None = None
    revoked_at: int | None = None
    last_used_at: int | None = None


class NewKeyObject(KeyObject, frozen=True, kw_only=True):
    """`key` is what clients send; it is shown this once."""

    key: str


class OrganizationList(msgspec.Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: list[OrganizationObject]


class ProjectList(msgspec.Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: list[ProjectObject]


class KeyList(msgspec.Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: list[KeyObject]


class UsageAmounts(AmountsObject, frozen=True, kw_only=True):
    """Requests, tokens and dollars."""

    requests: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int
    total_tokens: int
    unreported_requests: int


class UsageLine(UsageAmounts, frozen=True, kw_only=True):
    """One line of a report. It has only the keys that were grouped by."""

    day: str | UnsetType | None = UNSET
    model: str | UnsetType | None = UNSET
    project_id: str | UnsetType | None = UNSET


class BatchCosts(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch has cost so far, a line for each model with a success; `total` is their sum."""

    object: Literal["batch.costs"] = "batch.costs"
    batch_id: str
    data: tuple[UsageLine, ...]
    total: UsageAmounts


class UsageObject(msgspec.Struct, frozen=True, kw_only=True):
    """Days are those of UTC."""

    object: Literal["usage"] = "usage"
    since: str
    until: str
    group_by: list[str]
    data: list[UsageLine]
    total: UsageAmounts
