"""The operator's desk: what `keys`, `orgs`, `projects` and `usage` ask for, and who answers.

An installation is administered in its own database (local_desk.py), which needs no server and so
makes the very first key, or by a running server (remote_desk.py). Invariant: both answer with the
objects of the server's admin and usage routes, so that a command, and a script that reads `--json`,
cannot tell which it was.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Protocol

import msgspec
from msgspec import UnsetType

from lowtide import config, limits
from lowtide.cli.address import server_address
from lowtide.cli.exits import CommandError
from lowtide.cli.http_client import HttpClient
from lowtide.cli.views import JsonObject
from lowtide.ports.accounts import GroupBy

Bounds = Mapping[str, int | None]
"""Limits of an organisation by name; None: the default again."""

Cap = Decimal | UnsetType | None
"""Dollars a month; None: no cap; UNSET: as it is."""


class UsageQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """Charges of `since <= t < until`; None: of this month, until now. The groups in order.

    Without project and organisation: of all that whoever asks may see.
    """

    since: datetime | None
    until: datetime | None
    group_by: tuple[GroupBy, ...]
    organization_id: str | None = None
    project_id: str | None = None


class Desk(Protocol):
    """Raises LowtideError or ServerRefused for what cannot be done, with the same codes."""

    @property
    def change_delay_s(self) -> float:
        """Seconds until a change made here is known to every process that serves."""
        ...

    def is_admin(self) -> bool:
        """Whether the methods below other than `usage` are open to us."""
        ...

    def organizations(self) -> list[JsonObject]: ...

    def create_organization(
        self, name: str, bounds: Bounds, spend_cap: Decimal | None
    ) -> JsonObject: ...

    def change_organization(
        self, organization_id: str, bounds: Bounds, spend_cap: Cap
    ) -> JsonObject:
        """Limits that `bounds` does not name stay as they are."""
        ...

    def projects(self, organization_id: str | None = None) -> list[JsonObject]: ...

    def create_project(self, organization_id: str, name: str) -> JsonObject: ...

    def keys(self, project_id: str | None = None) -> list[JsonObject]:
        """Newest first, revoked ones included."""
        ...

    def create_key(
        self, project_id: str, name: str, scopes: Sequence[str], expires_at: datetime | None
    ) -> JsonObject:
        """The only answer with the key itself, as `key`."""
        ...

    def revoke_key(self, key_id: str) -> JsonObject: ...

    def usage(self, asked: UsageQuestion) -> JsonObject: ...


class Place(msgspec.Struct, frozen=True):
    """Where the desk is, as the options of a command say."""

    server: str | None
    api_key: str | None
    config_file: Path | None
    data_dir: Path | None


@contextmanager
def open_desk(place: Place, *, may_found: bool = False) -> Iterator[Desk]:
    """The desk of a server where one is named, else that of the installation on this machine.

    `may_found`: make the installation's database if there is none yet. Raises CommandError.
    """
    server = _server_of(place)
    if server is not None:
        from lowtide.cli.remote_desk import RemoteDesk

        with RemoteDesk(HttpClient(server_address(server), place.api_key)) as remote:
            yield remote
        return
    flags = {"server.data_dir": str(place.data_dir) if place.data_dir else None}
    settings = config.load(place.config_file, flags=flags)
    from lowtide.cli.local_desk import LocalDesk  # the whole store: slow to load

    with LocalDesk(settings, may_found=may_found) as local:
        yield local


def _server_of(place: Place) -> str | None:
    """An option is stronger than the variable that names a server for all commands."""
    if place.server is None or (place.config_file is None and place.data_dir is None):
        return place.server
    if place.server == os.environ.get("LOWTIDE_SERVER"):
        return None
    option = "--data-dir" if place.data_dir is not None else "--config"
    raise CommandError(
        f"--server and {option} exclude each other.",
        f"A server has its own installation; {option} names one on this machine.",
    )


def choose(noun: str, wanted: str, existing: Sequence[JsonObject]) -> str:
    """The id of the project or organisation that `wanted` is the id or the name of.

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
    shown = [f"{entry['id']} ({entry['name']})" for entry in existing[: limits.TENANTS_LISTED_MAX]]
    more = len(existing) - len(shown)
    listed = ", ".join(shown) + (f" and {more} more" if more else "")
    raise CommandError(
        f"There is no {noun} {wanted!r}.", f"There are: {listed}", code=f"{noun}_not_found"
    )
