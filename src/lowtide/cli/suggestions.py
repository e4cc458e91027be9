"""Which command was meant by a word that is none: a near spelling, or what other tools call it."""

import re
from collections.abc import Collection
from difflib import get_close_matches
from types import MappingProxyType
from typing import Final

_OTHER_NAMES: Final = MappingProxyType(
    {
        "start": "serve",
        "server": "serve",
        "up": "serve",
        "run-batch": "run",
        "check": "validate",
        "lint": "validate",
        "status": "get",
        "show": "get",
        "describe": "get",
        "info": "get",
        "retrieve": "get",
        "ls": "list",
        "submit": "create",
        "new": "create",
        "add": "create",
        "wait": "watch",
        "follow": "watch",
        "output": "results",
        "download": "results",
        "fetch": "results",
        "stop": "cancel",
        "abort": "cancel",
        "kill": "cancel",
        "rm": "delete",
        "remove": "delete",
        "cat": "content",
        "put": "upload",
        "batch": "batches",
        "file": "files",
        "key": "keys",
        "project": "projects",
        "org": "orgs",
        "organizations": "orgs",
        "costs": "usage",
        "billing": "usage",
        "simulate": "simulate-engine",
    }
)
_OPTIONS: Final = MappingProxyType({"version": "--version", "help": "--help"})


def suggestion(message: str, known: Collection[str]) -> str | None:
    """Returns what the word quoted in `message` was meant for, a command of `known` or an option;
    else None."""
    quoted = re.search(r"'([^']+)'", message)
    if quoted is None:
        return None
    word = quoted[1].lower()
    if word in _OPTIONS and word not in known:
        return _OPTIONS[word]
    if _OTHER_NAMES.get(word) in known:
        return _OTHER_NAMES[word]
    return next(iter(get_close_matches(word, known, n=1, cutoff=0.6)), None)
