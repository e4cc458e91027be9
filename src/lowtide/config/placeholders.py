"""Values that were written to be replaced: secrets of an example, and templates that were not
filled in.

Called by `sections` for the secret that signs upload addresses, and by `conversion` for every
value. Pure. Guards: a value copied from a manifest or a page of documentation starts no server, and
the refusal does not repeat the value.
"""

import re
from typing import Any, Final

_EXAMPLES: Final = frozenset(
    {
        "0123456789abcdef0123456789abcdef",  # lowtide.example.toml
        "at-least-32-characters-the-same-for-every-pod",  # deploy/kubernetes
    }
)
_WORDS: Final = (
    *("changeme", "changethis", "replaceme", "replacethis", "placeholder", "example"),
    *("atleast32", "yoursecret", "yourown", "uploadsecret", "notsosecret", "insecure"),
)
"""No random secret has one of these: the shortest has seven letters in a row."""
_DISTINCT_MIN: Final = 6
"""32 random decimal digits have fewer distinct ones in one of a hundred million secrets."""

PLACEHOLDER_REFUSED: Final = (
    "is an example or a placeholder, which everybody knows: whoever has it can sign upload"
    " addresses. Make one of your own with `openssl rand -hex 24`"
)


def is_placeholder(secret: str) -> bool:
    """Whether it was written to be replaced. False for the empty string, which is no secret."""
    plain = "".join(char for char in secret.lower() if char.isalnum())
    return bool(secret) and (
        secret.lower() in _EXAMPLES
        or len(set(secret)) < _DISTINCT_MIN
        or any(word in plain for word in _WORDS)
    )


_TEMPLATE: Final = re.compile(
    r"\$\{[A-Za-z_]\w*[^}]*\}|\$\([A-Za-z_]\w*\)|\{\{.*?\}\}|^\$[A-Z_][A-Z0-9_]*$", re.ASCII
)
"""`${NAME}` and `$NAME` of shells, `$(NAME)` of Kubernetes, `{{ name }}` of Helm and Ansible."""


def holds_template(value: Any) -> bool:
    """Whether a text in it names a variable to be filled in. Lowtide itself fills in none."""
    match value:
        case str():
            return _TEMPLATE.search(value) is not None
        case dict():
            return any(holds_template(inner) for inner in value.values())
        case list() | tuple():
            return any(holds_template(inner) for inner in value)
    return False
