"""The body of every answer that is not a success (protocol.md section 3.5), and of probes."""

import msgspec


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    """`type` is one of OpenAI's words; `code` says what it was, for programs."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorEnvelope(msgspec.Struct, frozen=True):
    """The whole body."""

    error: ErrorBody


class StatusObject(msgspec.Struct, frozen=True):
    """The answer of `/health` and `/ready`."""

    status: str
