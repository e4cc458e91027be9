"""The signature of a delivery, by the Standard Webhooks specification (symmetric, `v1`).

Called where a delivery is sent. Invariant: the signature covers id, timestamp and the exact bytes
of the body, under each secret that is valid now, so that a receiver verifies with the old secret or
with the new one while a rotation overlaps.
"""

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from hmac import digest
from typing import Final

PREFIX: Final = "whsec_"


def secret_of(key: bytes) -> str:
    """A key of 24 to 64 bytes as people and clients write it."""
    return PREFIX + b64encode(key).decode()


def signed_headers(
    event_id: str, body: bytes, now: datetime, secrets: Sequence[str]
) -> Mapping[str, str]:
    """The three headers of the specification. Raises ValueError without a secret."""
    if not secrets:
        raise ValueError(f"{event_id}: no secret to sign with")
    timestamp = str(int(now.timestamp()))
    signed = f"{event_id}.{timestamp}.".encode() + body
    signatures = (
        b64encode(digest(b64decode(secret.removeprefix(PREFIX)), signed, sha256)).decode()
        for secret in secrets
    )
    return {
        "webhook-id": event_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }
