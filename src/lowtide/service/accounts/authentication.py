"""Who a credential belongs to, looked up on every call and remembered for seconds.

The HTTP API asks `authenticate` once a request. Guards: a secret is compared by its hash, in
constant time, and an unknown key id costs the same work as a wrong secret; why a key was refused is
in the log, at most a line a second, and never in the answer; guessing pushes no key out of the
memory; a revoked key is dead at once in this process and within `KEY_CACHE_S` in every other.
"""

import hmac
import re
from collections import OrderedDict
from datetime import datetime
from hashlib import sha256
from typing import Final, TypeVar

import structlog

from lowtide import limits
from lowtide.core.accounts.tenancy import KeyOwner
from lowtide.core.errors import LowtideError
from lowtide.core.reporting.log_rate import LogRate
from lowtide.ports.accounts import TenantStore
from lowtide.ports.clock import Clock
from lowtide.ports.store import StoreError
from lowtide.service.single_flight import SingleFlight

Kept = TypeVar("Kept")

log = structlog.get_logger(__name__)

_KEY: Final = re.compile(r"lt-([A-Za-z0-9]{1,64})-([A-Za-z0-9]{1,120})")
_NOBODY: Final = sha256(b"nobody").hexdigest()
"""The hash compared with where there is no key, so that it takes as long as where there is one."""


def hash_secret(secret: str) -> str:
    """The hash that is stored. A plain one is enough: the secret is 238 random
    bits, not a password.
    """
    return sha256(secret.encode()).hexdigest()


def spell_key(key_id: str, secret: str) -> str:
    """The credential that a client sends."""
    return f"lt-{key_id}-{secret}"


class Authenticator:
    """Credentials in, key owners out."""

    def __init__(self, tenants: TenantStore, clock: Clock) -> None:
        self._tenants = tenants
        self._clock = clock
        self._known: OrderedDict[str, tuple[float, KeyOwner]] = OrderedDict()
        self._unknown: OrderedDict[str, float] = OrderedDict()
        self._flights: SingleFlight[KeyOwner | None] = SingleFlight()
        self._changes = 0
        self._refusals = LogRate()
        self._used_at: dict[str, datetime] = {}
        self._flush_at_s: float | None = None

    async def authenticate(self, credential: str) -> KeyOwner:
        """The owner of a valid key. Raises LowtideError `invalid_api_key`."""
        now = self._clock.now()
        match = _KEY.fullmatch(credential) if len(credential) <= limits.KEY_CHARS_MAX else None
        if match is None:
            self._tell(None, "not the form of a key")
            raise _refused()
        key_id, secret = match.groups()
        owner = await self._owner(key_id)
        expected = owner.key.secret_hash if owner is not None else _NOBODY
        is_right = hmac.compare_digest(hash_secret(secret), expected)
        if owner is None or not is_right or not owner.key.is_valid(now):
            self._tell(key_id, _why(owner, is_right, now))
            raise _refused()
        await self._note_use(key_id, now)
        return owner

    async def owner_of(self, key_id: str) -> KeyOwner | None:
        """The owner of the key with this id; None where the key could not be used now: unknown,
        revoked or expired. For what a key made and left behind, such as a signed address.
        """
        owner = await self._owner(key_id)
        return owner if owner is not None and owner.key.is_valid(self._clock.now()) else None

    def forget(self, key_id: str) -> None:
        """Looks the key up afresh at its next use: it has changed."""
        self._changes += 1
        self._flights.forget(key_id)
        self._known.pop(key_id, None)
        self._unknown.pop(key_id, None)

    async def flush(self) -> None:
        """Writes down when keys were last used. A store that is away is asked again next time."""
        used_at, self._used_at, self._flush_at_s = self._used_at, {}, None
        if not used_at:
            return
        try:
            await self._tenants.touch_keys(used_at)
        except StoreError as error:
            self._used_at = {**used_at, **self._used_at}
            log.warning("keys.not_touched", keys=len(used_at), error=str(error))

    async def _note_use(self, key_id: str, now: datetime) -> None:
        """Records the key's use, written once a minute for all keys: the first use
        starts the minute.
        """
        now_s = self._clock.monotonic()
        self._used_at[key_id] = now
        if self._flush_at_s is None:
            self._flush_at_s = now_s + limits.KEY_TOUCH_S
        elif now_s >= self._flush_at_s:
            await self.flush()

    async def _owner(self, key_id: str) -> KeyOwner | None:
        now_s = self._clock.monotonic()
        known = self._known.get(key_id)
        if known is not None and now_s - known[0] < limits.KEY_CACHE_S:
            return known[1]
        asked_at_s = self._unknown.get(key_id)
        if asked_at_s is not None and now_s - asked_at_s < limits.KEY_CACHE_S:
            return None
        changes = self._changes
        owner = await self._flights.get(key_id, lambda: self._tenants.key_owner(key_id))
        if changes != self._changes:
            return owner  # perhaps as it was before a change: not to be remembered
        if owner is None:
            self._known.pop(key_id, None)
            _keep(self._unknown, key_id, now_s, limits.KEY_UNKNOWN_ENTRIES)
        else:
            self._unknown.pop(key_id, None)
            _keep(self._known, key_id, (now_s, owner), limits.KEY_CACHE_ENTRIES)
        return owner

    def _tell(self, key_id: str | None, why: str) -> None:
        """Writes one log line a second, however many guesses come; it names the last of them."""
        if count := self._refusals.due(self._clock.monotonic()):
            named = {} if key_id is None else {"key": key_id}
            log.info("key.refused", **named, why=why, count=count)


def _keep(cache: OrderedDict[str, Kept], key_id: str, value: Kept, entries_max: int) -> None:
    """Keeps the entry; the oldest goes first when there are too many."""
    cache[key_id] = value
    cache.move_to_end(key_id)
    while len(cache) > entries_max:
        cache.popitem(last=False)


def _why(owner: KeyOwner | None, is_right: bool, now: datetime) -> str:
    if owner is None:
        return "unknown id"
    if not is_right:
        return "wrong secret"
    return (
        "revoked"
        if owner.key.revoked_at is not None and owner.key.revoked_at <= now
        else ("expired")
    )


def _refused() -> LowtideError:
    return LowtideError(
        "invalid_api_key",
        "The API key is not valid: it is mistyped, unknown, expired or revoked.",
    )
