"""How the console writes numbers, durations, sums of money and instants. Pure.

Units stand beside every number. Instants are shown in UTC; the page's script shows them in the
reader's own zone and keeps UTC for the pointer.
"""

import shlex
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from markupsafe import Markup, escape

FILTERS: Final = (
    "count", "duration", "dollars", "instant", "latency", "percent", "rate", "share_of",
    "shell_word", "short_model",
)  # fmt: skip

_STEPS: Final = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def count(number: int | None) -> str:
    """A whole number with separators, as 1,234,567."""
    return "–" if number is None else f"{number:,}"


def duration(seconds: float | None) -> str:
    """The two largest units of a time span, as `2 h 05 min`; a dash where it is not known."""
    if seconds is None:
        return "–"
    left = max(0, round(seconds))
    for place, (size, unit) in enumerate(_STEPS):
        if left >= size and size > 1:
            smaller, name = _STEPS[place + 1]
            rest = left % size // smaller
            return f"{left // size} {unit}" + (f" {rest:02d} {name}" if rest else "")
    return f"{left} s"


def latency(seconds: float) -> str:
    """A time to wait, in milliseconds below a second."""
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def dollars(amount: str) -> str:
    """A decimal sum with as many digits as say something: `$12.34`, `$0.0000123`."""
    value = Decimal(amount)
    if not value:
        return "$0"
    places = 2 if abs(value) >= 1 else max(2, 2 - value.adjusted())
    return f"${value:,.{places}f}"


def shell_word(text: str) -> str:
    """The text as one word of a command line."""
    return shlex.quote(text)


def short_model(model: str) -> str:
    """A model's name without its owner, for tables: the whole name is the cell's title."""
    return model.rpartition("/")[2] or model


def percent(share: float) -> str:
    """A share of 1 as a percentage that reaches 100 % only when all is done."""
    return f"{min(share, 0.999 if share < 1 else 1.0) * 100:.1f} %"


def share_of(amount: str, whole: str) -> float:
    """Which share of the sum `whole` the sum `amount` is, from 0 to 1; 1 where the whole is 0."""
    return min(1.0, max(0.0, float(Decimal(amount) / Decimal(whole)))) if Decimal(whole) else 1.0


def rate(per_s: float | None) -> str:
    """The rate per second as people read it, with three digits that count; a dash for None."""
    if per_s is None:
        return "–"
    return f"{per_s:,.0f}" if per_s >= 100 else f"{per_s:.3g}"


def instant(unix: int | datetime | None, shown: str = "") -> Markup:
    """A `<time>` element in UTC for the script to localize; a dash where there is none. `shown`
    `second`: the script shows seconds, too.
    """
    if unix is None:
        return Markup("–")
    when = unix if isinstance(unix, datetime) else datetime.fromtimestamp(unix, UTC)
    utc = f"{when:%Y-%m-%d %H:%M:%S} UTC"
    place = Markup(' data-shown="{}"').format(shown) if shown else ""
    return Markup(f'<time datetime="{escape(when.isoformat())}" title="{utc}"{place}>{utc}</time>')
