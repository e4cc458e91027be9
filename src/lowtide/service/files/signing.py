"""Upload addresses that carry their own permission (protocol.md section 2.3, step 2).

The clients PUT the bytes without credentials, so the address is signed: HMAC-SHA256 over the file's
id, the instant it expires, the checksum the client announced and the id of the key that asked for
it. An address ends with its key: a check of one also checks that the key is still valid. The store,
not the signature, makes it work only once: only a pending file takes bytes.
"""

import hmac
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from lowtide import limits
from lowtide.core.errors import LowtideError

SECRET_FILE: Final = "upload-secret"
_SECRET_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class UploadPermit:
    """What a signed address allows:

    To give `subject` its bytes, which hash to `checksum` if any: a file, by its id, or a part of an
    upload, as `{upload id}/parts/{number}` (no id has a slash, so neither passes for the other).
    """

    subject: str
    expires: int
    checksum: str = ""
    key_id: str = ""
    """The API key that asked for the address; empty in open mode."""


class UploadSigner:
    """Signs upload addresses and checks them. Holds the secret, nothing else."""

    def __init__(self, secret: bytes, ttl_s: int = limits.UPLOAD_URL_TTL_S) -> None:
        self._secret = secret
        self._ttl_s = ttl_s

    def query(
        self,
        subject: str,
        now: datetime,
        checksum: str = "",
        ttl_s: int | None = None,
        *,
        key_id: str = "",
    ) -> str:
        """The query string of the address, without the `?`."""
        ttl_s = self._ttl_s if ttl_s is None else ttl_s
        permit = UploadPermit(subject, int(now.timestamp()) + ttl_s, checksum, key_id)
        fields = {"expires": str(permit.expires)}
        if checksum:
            fields["checksum"] = checksum
        if key_id:
            fields["key"] = key_id
        return urlencode(fields | {"signature": self._signature(permit)})

    def check(self, permit: UploadPermit, signature: str, now: datetime) -> None:
        """Raises LowtideError `upload_invalid` or `upload_expired`."""
        if not hmac.compare_digest(self._signature(permit).encode(), signature.encode()):
            raise LowtideError(
                "upload_invalid", "The signature of this upload address is wrong; upload again."
            )
        if now.timestamp() >= permit.expires:
            raise LowtideError(
                "upload_expired",
                "The time of this upload address is over; upload again to get a new one.",
            )

    def _signature(self, permit: UploadPermit) -> str:
        text = "\n".join(
            ("upload", permit.subject, str(permit.expires), permit.checksum, permit.key_id)
        )
        return hmac.digest(self._secret, text.encode(), "sha256").hex()


def load_secret(data_dir: Path) -> bytes:
    """The secret of this data directory, made on first use and readable by its owner alone.

    Whole or absent: it is written beside its place and linked there, so that of two processes that
    start at once both end with the same one. Raises OSError.
    """
    place = data_dir / SECRET_FILE
    if not place.exists():
        draft = data_dir / f".{SECRET_FILE}-{secrets.token_hex(8)}"
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "w") as stream:
                stream.write(secrets.token_hex(_SECRET_BYTES))
                stream.flush()
                os.fsync(stream.fileno())
            with suppress(FileExistsError):  # another process was quicker; its secret is ours
                os.link(draft, place)
        finally:
            draft.unlink()
    return bytes.fromhex(place.read_text().strip())
