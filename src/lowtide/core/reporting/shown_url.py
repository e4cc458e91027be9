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
_HARMLESS: Final = frozenset({"host", "hostaddr", "port", "sslmode", "target_session_attrs"})
"""Parameters of a database's address that say where it is."""
_HIDDEN: Final = "(address not shown: it may hold a secret)"


def shown_url(url: str) -> str:
    """`https://me:***@host:1/v1?key=***`; words in brackets where `url` is no sound address."""
    matched = _ADDRESS.fullmatch(url)
    if matched is None or not (matched["place"] or matched["path"]):
        return _HIDDEN
    user = f"{_user(matched['user'])}@" if matched["user"] is not None else ""
    rest = _rest(matched["rest"] or "")
    return f"{matched['scheme']}://{user}{matched['place'] or ''}{matched['path'] or ''}{rest}"


def _user(credentials: str) -> str:
    """A name that has a password behind it is shown; alone it may be a token."""
    name, colon, _ = credentials.partition(":")
    return f"{name}:***" if colon else "***"


def _rest(rest: str) -> str:
    """Parameters by their names; a fragment not at all."""
    if not rest.startswith("?"):
        return "#***" if rest else ""
    fields = (field.partition("=") for field in rest[1:].split("&"))
    shown = (
        f"{name}={value if name in _HARMLESS else '***'}" if equals else "***"
        for name, equals, value in fields
    )
    return f"?{'&'.join(shown)}"
