"""An address as it may be shown: scheme, host, port and path, and nothing that may be a secret.

Used for every address that gets into a message, a log or a metric. Invariant: what cannot be taken
apart with certainty is not shown at all, for operators mistype addresses with passwords in them.
"""

import re
from typing import Final

_ADDRESS: Final = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://"
    r"(?:(?P<user>[^/?#@]*)@)?"
    r"(?P<place>(?:[\w.-]+|\[[0-9a-f:.%]+\])(?::\d{1,5})?(?:,[\w.-]+(?::\d{1,5})?)*)?"
    r"(?P<path>/[^?#@\s]*)?"
    r"(?P<rest>[?#][^@]*)?",
    re.IGNORECASE,
)
_HIDDEN: Final = "(address not shown: it may hold a secret)"


def shown_url(url: str) -> str:
    """`https://***@host:1/v1?***`; a sentence in brackets where `url` is no sound address."""
    found = _ADDRESS.fullmatch(url)
    if found is None or not (found["place"] or found["path"]):
        return _HIDDEN
    user = "***@" if found["user"] is not None else ""
    rest = f"{found['rest'][0]}***" if found["rest"] else ""
    return f"{found['scheme']}://{user}{found['place'] or ''}{found['path'] or ''}{rest}"
