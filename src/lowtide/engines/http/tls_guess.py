"""Finds out whether a port that is called without TLS speaks TLS.

Some servers say so when plain HTTP comes: with an alert in a TLS record (RFC 8446 section 5.1), or
with a 400 in plain HTTP, which core/faults/fault.py knows. Others, as those built on OpenSSL and
Python, hang up without a word; of these `TlsGuess` asks once in a while by a handshake.
`HttpEngine` calls it where an engine that has never answered ends a connection. Invariant: an
engine that has answered in plain HTTP is never asked.
"""

import asyncio
import ssl
from contextlib import suppress
from typing import Final

from lowtide.core.faults.outcome import NoReply
from lowtide.engines.http.request import EngineAddress
from lowtide.limits import TLS_GUESS_EVERY_S, TLS_HANDSHAKE_S

SPEAKS_TLS: Final = NoReply(
    "connect", "the port speaks TLS and was called without: its url begins with https"
)
"""`connect`, because no request was read."""

_ALERT: Final = 0x15
_HANDSHAKE: Final = 0x16


def no_http(said: bytes, why: Exception) -> NoReply:
    """What an answer is that begins with these bytes, which no parser of HTTP takes."""
    if len(said) > 2 and said[0] in (_ALERT, _HANDSHAKE) and said[1] == 3 and said[2] < 5:
        return SPEAKS_TLS
    return NoReply("broken", f"the engine spoke no HTTP: {why}")


class TlsGuess:
    """Tells whether one engine that is called without TLS speaks TLS."""

    def __init__(self, target: EngineAddress) -> None:
        self._target = target
        self._asked_at_s = float("-inf")
        self._speaks_tls = False

    async def explain(self, why: NoReply) -> NoReply:
        """`why` it gave no answer, or that it speaks TLS. Takes no longer than a handshake may."""
        now_s = asyncio.get_running_loop().time()
        if now_s - self._asked_at_s >= TLS_GUESS_EVERY_S:
            self._asked_at_s = now_s
            self._speaks_tls = await self._answers_handshake()
        return SPEAKS_TLS if self._speaks_tls else why

    async def _answers_handshake(self) -> bool:
        """Whatever it makes of the handshake: an alert is TLS as well."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # nothing is sent there
        try:
            async with asyncio.timeout(TLS_HANDSHAKE_S):
                _, writer = await asyncio.open_connection(
                    self._target.host, self._target.port, ssl=context
                )
        except ssl.SSLError as error:
            return error.reason is not None and "ALERT" in error.reason
        except (OSError, UnicodeError, TimeoutError):
            return False
        writer.close()
        with suppress(OSError, ssl.SSLError):
            await writer.wait_closed()
        return True
