"""The administrator's backend: what `keys`, `orgs`, `projects` and `usage` ask for, and who
answers.

An installation is administered in its own database (local_admin.py), which needs no server and so
makes the very first key, or by a running server (remote_admin.py). Invariant: both answer with the
objects of the server's admin and usage routes, so that a command, and a script that reads `--json`,
cannot tell which it was.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Protocol

import msgspec
from msgspec import UnsetType

from lowtide import limits
from lowtide.cli.client.objects import JsonObject
from lowtide.cli.terminal.command_errors import CommandError
from lowtide.cli.terminal.units import listed
from lowtide.ports.accounts import GroupBy

Bounds = Mapping[str, int | None]
"""Limits of an organization by name; None: the default again."""

Cap = Decimal | UnsetType | None
"""Dollars a month; None: no cap; UNSET: as it is."""


class UsageQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """The charges of `since <= t < until`, grouped by `group_by` in that order.

    `since` None: from the month's first day; `until` None: until now. Without project and
    organization: everything that the caller may see.
    """

    since: datetime | None
    until: datetime | None
    group_by: tuple[GroupBy, ...]
    organization_id: str | None = None
    project_id: str | None = None


class AdminBackend(Protocol):
    """The operations of an administrator. Raises LowtideError or
    ServerRefused, with the same codes.
    """

    @property
    def change_delay_s(self) -> float:
        """Seconds until a change made here is known to every process that serves."""

    @property
    def place(self) -> str:
        """What it works on, for people: an installation's folder or database, or a server."""

    def is_admin(self) -> bool:
        """Whether the caller may use the methods below other than `usage`."""

    def organizations(self) -> list[JsonObject]: ...

    def create_organization(
        self, name: str, bounds: Bounds, spend_cap: Decimal | None
    ) -> JsonObject: ...

    def change_organization(
        self, organization_id: str, bounds: Bounds, spend_cap: Cap
    ) -> JsonObject:
        """Limits that `bounds` does not name stay as they are."""

    def engines(self) -> JsonObject:
        """The replicas and workers, as `GET /v1/admin/engines` answers."""

    def projects(self, organization_id: str | None = None) -> list[JsonObject]: ...

    def create_project(self, organization_id: str, name: str) -> JsonObject: ...

    def keys(self, project_id: str | None = None) -> list[JsonObject]:
        """The keys, newest first, revoked ones included."""

    def create_key(
        self, project_id: str, name: str, scopes: Sequence[str], expires_at: datetime | None
    ) -> JsonObject:
        """Creates a key. The answer alone holds the key itself, as `key`."""

    def revoke_key(self, key_id: str) -> JsonObject: ...

    def usage(self, asked: UsageQuestion) -> JsonObject: ...


def choose_named(noun: str, wanted: str, existing: Sequence[JsonObject]) -> str:
    """The id of the project or organization that `wanted` is the id or the name of.

    Raises CommandError, which lists those that there are.
    """
    if any(entry["id"] == wanted for entry in existing):
        return wanted
    named = [str(entry["id"]) for entry in existing if entry["name"] == wanted]
    if len(named) == 1:
        return named[0]
    if named:
        raise CommandError(
            f"{len(named)} {noun}s are called {wanted!r}.", f"Give the id: {', '.join(named)}"
        )
    shown = [f"{entry['id']} ({entry['name']})" for entry in existing]
    known = f"There are: {listed(shown, limits.TENANTS_LISTED_MAX)}"
    raise CommandError(f"There is no {noun} {wanted!r}.", known, code=f"{noun}_not_found")
