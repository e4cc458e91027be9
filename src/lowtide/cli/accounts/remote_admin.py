"""The administrator's backend at a running server: its admin and usage routes (admin_backend.py is
the contract).

The key must have the scope `admin`, save for the usage of the key's own project.
"""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Self

from msgspec import UNSET

from lowtide.cli.accounts.admin_backend import Bounds, Cap, UsageQuestion
from lowtide.cli.client.http_client import HttpClient
from lowtide.cli.client.objects import JsonObject
from lowtide.cli.terminal.command_errors import CommandError
from lowtide.core.reporting.shown_url import shown_url

_ALL: Final = "all"


class RemoteAdmin:
    """One server. A context manager; closes its connections."""

    change_delay_s = 0.0  # in the process that answers, which is most often the only one

    def __init__(self, http: HttpClient) -> None:
        self._http = http
        self._is_admin: bool | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    @property
    def place(self) -> str:
        return shown_url(self._http.server)

    def is_admin(self) -> bool:
        if self._is_admin is None:
            caller = self._http.call("GET", "/whoami")
            self._is_admin = "admin" in caller.get("scopes", [])
        return self._is_admin

    def organizations(self) -> list[JsonObject]:
        return self._list("/admin/organizations")

    def create_organization(
        self, name: str, bounds: Bounds, spend_cap: Decimal | None
    ) -> JsonObject:
        body = {"name": name, "limits": dict(bounds), "spend_cap": _text(spend_cap)}
        return self._http.call("POST", "/admin/organizations", json=body)

    def change_organization(
        self, organization_id: str, bounds: Bounds, spend_cap: Cap
    ) -> JsonObject:
        body: JsonObject = {"limits": dict(bounds)}
        if spend_cap is not UNSET:
            body["spend_cap"] = _text(spend_cap)
        return self._http.call("PATCH", f"/admin/organizations/{organization_id}", json=body)

    def engines(self) -> JsonObject:
        return self._http.call("GET", "/admin/engines")

    def projects(self, organization_id: str | None = None) -> list[JsonObject]:
        return self._list("/admin/projects", organization_id=organization_id)

    def create_project(self, organization_id: str, name: str) -> JsonObject:
        body = {"organization_id": organization_id, "name": name}
        return self._http.call("POST", "/admin/projects", json=body)

    def keys(self, project_id: str | None = None) -> list[JsonObject]:
        return self._list("/admin/keys", project_id=project_id)

    def create_key(
        self, project_id: str, name: str, scopes: Sequence[str], expires_at: datetime | None
    ) -> JsonObject:
        body = {
            "project_id": project_id,
            "name": name,
            "scopes": list(scopes),
            "expires_at": int(expires_at.timestamp()) if expires_at else None,
        }
        return self._http.call("POST", "/admin/keys", json=body)

    def revoke_key(self, key_id: str) -> JsonObject:
        return self._http.call("DELETE", f"/admin/keys/{key_id}")

    def usage(self, asked: UsageQuestion) -> JsonObject:
        organization = asked.organization_id
        if organization is None and asked.project_id is None and self.is_admin():
            organization = _ALL
        params = {
            "since": asked.since.isoformat() if asked.since else None,
            "until": asked.until.isoformat() if asked.until else None,
            "group_by": ",".join(asked.group_by),
            "organization_id": organization,
            "project_id": asked.project_id,
        }
        return self._http.call("GET", "/usage", params=_given(params))

    def _list(self, path: str, **params: str | None) -> list[JsonObject]:
        data = self._http.call("GET", path, params=_given(params)).get("data")
        if not isinstance(data, list):
            raise CommandError(
                "The server's answer is no list.", "Check --server.", code="not_lowtide"
            )
        return data


def _text(amount: Any) -> str | None:
    """Dollars as JSON carries them exactly."""
    return None if amount is None else f"{amount:f}"


def _given(params: dict[str, str | None]) -> dict[str, str | int]:
    return {name: value for name, value in params.items() if value is not None}
