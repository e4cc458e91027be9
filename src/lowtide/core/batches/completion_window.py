"""How long a batch may take: the words `24h`, `90m`, `7d`, and the seconds that they stand for.

Settings and create requests are read with it. Invariant: there is one set of bounds for both.
"""

import re
from typing import Final

from lowtide import limits

_WINDOW: Final = re.compile(r"(\d+)\s*([mhd])")
_UNIT_S: Final = {"m": 60, "h": 3600, "d": 86400}
_ALLOWED: Final = "give hours or days from 1h to 7d, for example '24h'"


def window_s(words: str) -> int:
    """Seconds. Raises ValueError, with what is allowed, for other words and outside the bounds."""
    match = _WINDOW.fullmatch(words.strip())
    seconds = int(match[1]) * _UNIT_S[match[2]] if match else 0
    if not limits.COMPLETION_WINDOW_S_MIN <= seconds <= limits.COMPLETION_WINDOW_S_MAX:
        raise ValueError(f"{words!r}: {_ALLOWED}")
    return seconds


def window_words(seconds: int) -> str:
    """Seconds as `24h`, `7d`, `90m`; a day is `24h`."""
    if seconds % 86400 == 0 and seconds > 86400:
        return f"{seconds // 86400}d"
    return f"{seconds // 3600}h" if seconds % 3600 == 0 else f"{seconds // 60}m"
