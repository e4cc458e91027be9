"""Instants as people type them: a span (`30d`), a date, or an ISO 8601 instant.

Dates, and instants that name no zone, are UTC, as in the ledger and in every answer of a server.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from lowtide.cli.terminal.command_errors import CommandError

_SPAN: Final = re.compile(r"(\d{1,5})\s*([mhdw])")
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def instant_ahead(text: str, option: str, now: datetime) -> datetime:
    """`30d` from now, or the instant that is named. Raises CommandError."""
    return _instant(text, option, now, 1)


def instant_back(text: str, option: str, now: datetime) -> datetime:
    """`30d` before now, or the instant that is named. Raises CommandError."""
    return _instant(text, option, now, -1)


def _instant(text: str, option: str, now: datetime, direction: int) -> datetime:
    try:
        if span := _SPAN.fullmatch(text.strip()):
            return now + direction * timedelta(**{_UNITS[span[2]]: int(span[1])})
        named = datetime.fromisoformat(text.strip())
        return named.replace(tzinfo=UTC) if named.tzinfo is None else named.astimezone(UTC)
    except (ValueError, OverflowError):
        raise CommandError(
            f"{option} {text!r} is no span and no date.",
            f"For example: {option} 30d, {option} {now:%Y-%m-%d},"
            f" {option} {now:%Y-%m-%d}T12:00:00Z",
        ) from None
