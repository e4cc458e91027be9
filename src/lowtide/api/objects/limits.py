"""Limits as the API shows them. Instants are Unix seconds; dollars are decimal strings."""

from typing import Literal

import msgspec


class LimitObject(msgspec.Struct, frozen=True, kw_only=True):
    """One limit. `used` null: it bounds one thing at a time. `frees`: when more comes, in words.
    `over_limit`: whether a batch that would pass it fails or waits; null where it is not made.
    """

    name: str
    unit: str
    model: str | None = None
    limit: int | str
    used: int | str | None = None
    left: int | str | None = None
    frees_at: int | None = None
    frees: str | None = None
    over_limit: Literal["fail", "queue"] | None = None


class LimitList(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of an organization, those that it has."""

    object: Literal["list"] = "list"
    organization_id: str
    data: list[LimitObject]
