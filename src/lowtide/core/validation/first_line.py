"""What the first line of a file tells of all its lines: whose form they have, and where they go.

The CLI asks before it uploads, the console's page of a new batch after it. Invariant: a first line
that cannot be read counts as one of Together's, whose form asks for less; validation says what is
wrong with it.
"""

import re
from typing import Final, Literal

import msgspec

Purpose = Literal["batch", "batch-api"]

DEFAULT_ENDPOINT: Final = "/v1/chat/completions"
"""Where lines go that name no endpoint, as Together's launch example leaves it out."""

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_URL: Final = re.compile(rb'"url"\s*:\s*"(/v1/[a-z/]+)"')
_METHOD: Final = re.compile(rb'"method"\s*:\s*"(POST)"')


class FirstLine(msgspec.Struct, frozen=True):
    """How the first line is addressed; None for what it does not say."""

    method: str | None = None
    url: str | None = None

    @property
    def purpose(self) -> Purpose:
        """`batch` when it is addressed as OpenAI's lines are, else Together's `batch-api`."""
        return "batch" if self.url is not None or self.method == "POST" else "batch-api"


_decode: Final = msgspec.json.Decoder(FirstLine).decode


def first_text(head: bytes) -> bytes:
    """The first line that is not blank of what a file begins with; empty where there is none."""
    lines = head.removeprefix(_BYTE_ORDER_MARK).split(b"\n")
    return next((text for line in lines if (text := line.strip())), b"")


def read_first_line(head: bytes) -> FirstLine:
    """Reads it in the beginning of a file, which may end within the line."""
    text = first_text(head)
    try:
        return _decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        method, url = _METHOD.search(text), _URL.search(text)
        return FirstLine(
            method=None if method is None else method[1].decode(),
            url=None if url is None else url[1].decode(),
        )
