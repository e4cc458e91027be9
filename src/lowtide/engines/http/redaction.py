"""Removes Lowtide's credentials from what an engine says.

Gateways quote the key that they refuse ("Incorrect API key provided: ..."), and what an engine says
goes on to logs, to error files and to callers. `HttpEngine` passes each answer that is no success
through `Redaction`. Invariant: no header, key or query value of the settings, long enough to be a
secret, is in what comes out.
"""

import json
from typing import Final
from urllib.parse import quote

from lowtide.engines.http.request import Extras
from lowtide.limits import SECRET_CHARS_MIN

HIDDEN: Final = b"***"


class Redaction:
    """The secrets of one engine's settings, and their removal from its answers."""

    def __init__(self) -> None:
        self._secrets: tuple[bytes, ...] = ()

    def learn(self, extras: Extras) -> None:
        """Adds the secrets of `extras`; those used before may still be quoted, and stay."""
        values = [extras.api_key or "", *extras.headers.values(), *extras.query.values()]
        words = {word for value in values for word in (value, *value.split())}
        secrets = {
            form.encode()
            for word in words
            if len(word) >= SECRET_CHARS_MIN
            for form in (word, json.dumps(word)[1:-1], quote(word, safe=""))
        }
        # The longest first: one may be a part of another.
        self._secrets = tuple(sorted(secrets.union(self._secrets), key=len, reverse=True))

    def hide(self, said: bytes) -> bytes:
        """The bytes without the secrets."""
        for secret in self._secrets:
            if secret in said:
                said = said.replace(secret, HIDDEN)
        return said
