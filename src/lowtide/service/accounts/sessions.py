"""Sessions of the console: a key is typed once, and a signed cookie stands for it afterwards.

No process keeps a session: the cookie names the key and when it ends, and HMAC-SHA256 with the
server's own secret says that a server of this installation wrote it. So any number of API processes
accept it, and it ends with the key, which is looked up at each call (service/accounts/
authentication.py). A change carries a second word, made from the cookie, that a page of another
origin cannot read.
"""

import hmac
import secrets
from datetime import datetime
from hashlib import sha256
from typing import Final

from lowtide import limits
from lowtide.core.accounts.tenancy import KeyOwner
from lowtide.ports.clock import Clock
from lowtide.service.accounts.authentication import Authenticator

_OPEN: Final = "open"
"""Stands for the cookie where no keys are asked for."""


class Sessions:
    """Makes and reads session tokens. `secret` is the installation's."""

    def __init__(self, secret: bytes, access: Authenticator, clock: Clock) -> None:
        self._secret = hmac.digest(secret, b"lowtide console session", "sha256")
        self._access = access
        self._clock = clock

    async def begin(self, credential: str) -> str:
        """The token of a new session for the key. Raises LowtideError `invalid_api_key`."""
        owner = await self._access.authenticate(credential.strip())
        ends = int(self._clock.now().timestamp()) + limits.CONSOLE_SESSION_S
        payload = f"{owner.key.id}.{ends}.{secrets.token_hex(8)}"
        return f"{payload}.{self._signed(payload)}"

    async def owner(self, token: str) -> KeyOwner | None:
        """The owner of the session's key; None where the session is over or forged, or its key is
        no longer valid.
        """
        payload, _, signature = token.rpartition(".")
        if not hmac.compare_digest(self._signed(payload).encode(), signature.encode()):
            return None
        key_id, ends, _ = payload.split(".")
        if self._clock.now() >= datetime.fromtimestamp(int(ends), self._clock.now().tzinfo):
            return None
        return await self._access.owner_of(key_id)

    def csrf(self, token: str | None) -> str:
        """What a change has to carry beside the session `token`; None in open mode."""
        return self._signed(f"csrf.{token or _OPEN}")

    def _signed(self, text: str) -> str:
        return hmac.new(self._secret, text.encode(), sha256).hexdigest()
