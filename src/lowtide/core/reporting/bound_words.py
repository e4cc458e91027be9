"""What keeps the batch calls at an engine from being more, in words for an operator. Pure.

The console and `lowtide engines` show them; the metrics and the API have the short names of
`core.capacity.window.Bound`. Invariant: every bound has words (a test compares the two).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

BOUND_WORDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "operator": "the most that the settings allow",
        "default": "the default: the engine tells nothing of itself",
        "kv": "as many as its memory has room for",
        "seats": "the calls that it runs at once, less some for live ones",
        "start": "still growing, to find what it takes",
        "congestion": "fewer, because calls queued at it",
        "live": "fewer, because live calls were slow",
        "silence": "fewer, because its figures do not come",
        "asleep": "none while it sleeps",
        "answers": "more at once gave no more answers",
    }
)


def bound_words(bound: str) -> str:
    """The words for a bound; itself where a worker of another version reports one without."""
    return BOUND_WORDS.get(bound, bound)
