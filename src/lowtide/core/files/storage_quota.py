"""How much an organization keeps, how much it may keep, and whether something more fits.

Pure. The store measures the use and asks `lacks` in the transaction that adds something, so that
calls at one instant cannot pass the quota together; the services ask it before a body is read, so
that no client uploads a body that is then refused.
"""

from typing import Literal

import msgspec

from lowtide import limits

Lack = Literal["bytes", "unfinished"]


class StorageUse(msgspec.Struct, frozen=True, kw_only=True):
    """The storage that an organization uses.

    `bytes`: of its files, those included that are deleted and that an unfinished batch still reads;
    and for each upload under way what was announced or what its parts have, whichever is more.
    `unfinished`: announced files without bytes, and uploads under way.
    """

    bytes: int = 0
    unfinished: int = 0


class StorageQuota(msgspec.Struct, frozen=True, kw_only=True):
    """How much an organization may store: bytes (None: no bound), and unfinished uploads."""

    bytes: int | None = None
    unfinished: int = limits.UNFINISHED_UPLOADS_MAX


class QuotaReached(Exception):
    """Raised by a transaction that would have passed the quota, and therefore changed nothing."""

    def __init__(self, lack: Lack, use: StorageUse) -> None:
        super().__init__(f"the quota of {lack} is reached")
        self.lack: Lack = lack
        self.use = use


def lacks(use: StorageUse, quota: StorageQuota, bytes: int, unfinished: int = 0) -> Lack | None:
    """What is missing for so many more bytes and unfinished uploads; None when they fit."""
    if unfinished and use.unfinished + unfinished > quota.unfinished:
        return "unfinished"
    if quota.bytes is not None and bytes and use.bytes + bytes > quota.bytes:
        return "bytes"
    return None
