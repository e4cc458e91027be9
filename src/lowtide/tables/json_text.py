"""Values as JSON text, the same wherever one is written. Pure."""

from typing import Any, Final

import msgspec

_encoder: Final = msgspec.json.Encoder(enc_hook=str, decimal_format="number")


def json_text(value: Any) -> str:
    """A value as compact JSON: times in ISO form, bytes in base64, what JSON lacks as text."""
    return _encoder.encode(value).decode()


def json_bytes(value: Any) -> bytes:
    """The value as `json_text` writes it, in UTF-8."""
    return _encoder.encode(value)
