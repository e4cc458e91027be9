"""JSON text that is one line of ASCII, whatever came in.

Several clients split a result file with `str.splitlines()`, which also breaks at U+2028, U+0085, a
form feed and more, so everything that goes into an output line passes through here (protocol.md,
end of section 6). Engine bodies keep their numbers, escapes and key order: only line breaks between
tokens go, and non-ASCII characters become escapes.
"""

import json
from json.encoder import encode_basestring_ascii

import msgspec

from lowtide.limits import ONE_LINE_CHARS

_json = msgspec.json.Decoder(msgspec.Raw)


def quote(text: str) -> bytes:
    """`text` as an ASCII JSON string, quotes included; lone surrogates survive as escapes."""
    return encode_basestring_ascii(text).encode("ascii")


def one_line(body: bytes) -> bytes:
    """`body` as one line of ASCII JSON without a line ending.

    Invalid UTF-8 becomes U+FFFD. What is not JSON at all becomes a JSON string of its text.
    """
    try:
        _json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return _salvage(body)
    # In valid JSON a raw tab or line break can only stand between tokens, where nothing needs it.
    if b"\n" in body or b"\r" in body:
        body = body.translate(None, b"\t\r\n")
    return body if body.isascii() else _escape(body)


def _escape(body: bytes) -> bytes:
    """Valid JSON with every non-ASCII character, which only strings can hold, as an escape.

    The C encoder also escapes each quote and backslash of the JSON itself; both are undone after.
    Every quote then follows its own added backslash, so the first step takes just those. Left of an
    escape that must stay, backslashes come in pairs, and pairs are taken from the left.
    """
    text = body.translate(None, b"\t").decode("utf-8", "replace")
    pieces = (text[at : at + ONE_LINE_CHARS] for at in range(0, len(text), ONE_LINE_CHARS))
    return b"".join(map(_escape_piece, pieces))


def _escape_piece(text: str) -> bytes:
    """Escapes a piece of JSON cut anywhere: each character is escaped, and undone, alone."""
    escaped = encode_basestring_ascii(text)[1:-1]
    return escaped.replace('\\"', '"').replace("\\\\", "\\").encode("ascii")


def _salvage(body: bytes) -> bytes:
    """JSON of the lax kind, else plain text."""
    mended = strict_json(body)
    return quote(body.decode("utf-8-sig", "replace")) if mended is None else _escape(mended)


def strict_json(body: bytes) -> bytes | None:
    """JSON that every reader takes, of JSON of the lax kind (NaN, half an emoji, control
    characters, a BOM): NaN and infinities become null, half an emoji U+FFFD. None where `body` is
    not even that.
    """
    text = body.decode("utf-8-sig", "replace")
    try:
        value = json.loads(text, strict=False, parse_constant=lambda _: None)
        strict = json.dumps(value, allow_nan=False, ensure_ascii=False)
    except (ValueError, RecursionError):
        return None
    whole = strict.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return whole.encode()
