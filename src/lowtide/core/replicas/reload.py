"""Which changes of the settings a running process can take, and which need a restart.

Pure; wiring/reload.py asks. Settings are compared key by key, so a key that is not listed here
counts as one that needs a restart. Invariant: what `merged` gives differs from what the process
runs with in reloadable keys alone.
"""

from collections.abc import Collection, Iterator
from typing import TypeVar

import msgspec

S = TypeVar("S", bound=msgspec.Struct)


def unreloadable(running: S, fresh: S, reloadable: Collection[str]) -> tuple[str, ...]:
    """The keys that changed and need a restart, as `section.key`. `reloadable` names sections and
    keys that need none.
    """
    return tuple(key for key in _changed(running, fresh) if not _may(key, reloadable))


def merged(running: S, fresh: S, reloadable: Collection[str]) -> S:
    """`fresh` where that can be taken, `running` elsewhere."""
    taken: dict[str, object] = {}
    for section in running.__struct_fields__:
        if section in reloadable:
            taken[section] = getattr(fresh, section)
            continue
        keys = [key for key in reloadable if key.startswith(f"{section}.")]
        names = [key.partition(".")[2] for key in keys]
        values = {name: getattr(getattr(fresh, section), name) for name in names}
        if values:
            taken[section] = msgspec.structs.replace(getattr(running, section), **values)
    return msgspec.structs.replace(running, **taken)


def _changed(running: msgspec.Struct, fresh: msgspec.Struct) -> Iterator[str]:
    for section in running.__struct_fields__:
        old, new = getattr(running, section), getattr(fresh, section)
        if not isinstance(old, msgspec.Struct):
            if old != new:
                yield section
            continue
        for key in old.__struct_fields__:
            if getattr(old, key) != getattr(new, key):
                yield f"{section}.{key}"


def _may(key: str, reloadable: Collection[str]) -> bool:
    return key in reloadable or key.partition(".")[0] in reloadable
