"""A request that a client means to make once, however often it sends it.

Services make a `RequestKey` of what a client sent; the store takes it in the transaction that
creates what was asked for. Invariant: within `IDEMPOTENCY_KEY_KEEP_S` a key of an organization
stands for one request, and for the one thing that it made.
"""

import re
from hashlib import sha256
from typing import Any, Final, Literal

import msgspec

from lowtide import limits

Made = Literal["batch", "file", "upload"]
"""What kind of thing the request creates."""
_KEY: Final = re.compile(rf"[!-~]{{1,{limits.IDEMPOTENCY_KEY_CHARS_MAX}}}")


class RequestKey(msgspec.Struct, frozen=True, kw_only=True):
    """`digest`: of the request, so that another one under the same key is told apart."""

    organization_id: str
    key: str
    kind: Made
    digest: str


class KeyTaken(Exception):
    """The key stands for another request; nothing was changed."""


def is_key(text: str) -> bool:
    """Whether a client may send it as a key: visible ASCII, of bounded length."""
    return _KEY.fullmatch(text) is not None


def digest_of(project_id: str, request: Any) -> str:
    """A digest of the request; fields of maps count in any order."""
    encoded = msgspec.json.encode((project_id, request), order="deterministic")
    return sha256(encoded).hexdigest()
