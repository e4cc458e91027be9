"""Who may do what: organizations, their projects, and the API keys of a project.

An organization pays and has limits; a project owns files, batches and results; a key acts for one
project within its scopes. Nothing here holds a key's secret: only its SHA-256.
"""

from datetime import datetime
from typing import Final, Literal, get_args

import msgspec

Scope = Literal["read", "submit", "admin"]
"""read: look at everything of the project. submit: upload, create, cancel, delete, call models.
admin: organizations, projects, keys, and the usage of all of them. Each is given on its own."""

SCOPES: Final[frozenset[Scope]] = frozenset(get_args(Scope))

DEFAULT_ORGANIZATION: Final = "org_default"
DEFAULT_PROJECT: Final = "proj_default"


class OrganizationLimits(msgspec.Struct, frozen=True, omit_defaults=True):
    """Overrides of the configured defaults; None leaves the default. See `config.Limits`."""

    requests_per_batch: int | None = None
    file_bytes: int | None = None
    enqueued_tokens_per_model: int | None = None
    batches_per_hour: int | None = None
    unfinished_batches: int | None = None
    stored_bytes: int | None = None
    requests_in_flight: int | None = None
    live_requests_per_minute: int | None = None
    live_tokens_per_minute: int | None = None
    control_calls_per_minute: int | None = None
    weight: int | None = None
    """Its share of a pool beside others that have work, 1 unless given."""


class Organization(msgspec.Struct, frozen=True, kw_only=True):
    """`spend_cap_pico`: pico-dollars of batch work per calendar month (UTC); None: no cap.
    `paused_at`: since when its batches wait because it has spent that; None: they do not.
    """

    id: str
    name: str
    created_at: datetime
    limits: OrganizationLimits = OrganizationLimits()
    spend_cap_pico: int | None = None
    paused_at: datetime | None = None


class Project(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    organization_id: str
    name: str
    created_at: datetime


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """`secret_hash` is the SHA-256 (hex) of the secret; `hint` its last four characters."""

    id: str
    project_id: str
    name: str
    secret_hash: str
    hint: str
    scopes: frozenset[Scope]
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None

    def is_valid(self, now: datetime) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class KeyOwner(msgspec.Struct, frozen=True):
    """A key with the project and organization that it acts for."""

    key: ApiKey
    project: Project
    organization: Organization
