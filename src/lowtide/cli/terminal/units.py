"""Numbers with their units, instants with their zones, amounts of money: as people read them."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal

from lowtide.limits import KIB


def human_bytes(count: int) -> str:
    """`1.4 MiB`."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < KIB:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= KIB
    return f"{size:.1f} TiB"


def human_seconds(seconds: float) -> str:
    """`850 ms`, `12.3 s`, `4 min 05 s`, `3 h 20 min`, `2 d 4 h`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest_s = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest_s:02} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"


def human_whole_seconds(seconds: int) -> str:
    """`40 s`, `4 min 05 s`: as `human_seconds`, of what is only known in whole seconds."""
    return f"{seconds} s" if seconds < 60 else human_seconds(seconds)


def human_instant(timestamp: int | None) -> str:
    """Returns a Unix timestamp as local time with its zone, or a dash."""
    if timestamp is None:
        return "-"
    return datetime.fromtimestamp(timestamp, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def human_day(timestamp: int | None) -> str:
    """Returns the day of a Unix timestamp in local time, or a dash."""
    return human_instant(timestamp).partition(" ")[0]


def human_age(timestamp: int | None) -> str:
    """Returns how long ago a Unix timestamp is, in its largest unit: `5 s`, `12 min`, `3 h`,
    `20 d`; or a dash."""
    if timestamp is None:
        return "-"
    seconds = max(0, int(time.time()) - timestamp)
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def human_dollars(amount: Decimal) -> str:
    """`$1,234.50`, `$0.0123`, `$0.000012`: cents, or as many places as small amounts need."""
    if amount == 0 or abs(amount) >= 1:
        return f"${amount:,.2f}"
    places = max(4, 1 - amount.adjusted())
    return f"${amount:.{places}f}"


def plural(count: int, noun: str) -> str:
    """`1 request`, `2,000 requests`; for nouns that take an s."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def listed(names: Sequence[str], most: int = 5) -> str:
    """`a, b and 3 more`."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")
