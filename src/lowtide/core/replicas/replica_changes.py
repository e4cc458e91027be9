"""What a new list of replicas changes about the set that exists: the decision behind `apply`.

Pure; loops/replicas/replica_set.py asks and acts on it. A replica is known by its name for as long
as it is listed: one that comes with another address, key or window under the same name is the same
engine, and keeps what was learned of it. Invariant: each name of the old and the new list is in
exactly one of `added`, `removed`, `changed`, `renamed` and `kept`.
"""

from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

import msgspec

S = TypeVar("S")


def name_of(url: str) -> str:
    """Host and port of an address, without what may be secret in it."""
    return url.partition("://")[2].partition("/")[0].rpartition("@")[2] or url


class ReplicaSpec(msgspec.Struct, Generic[S], frozen=True):
    """A replica as it should be: `settings` say how it is called and steered, `engine_names` which
    models it serves, by Lowtide's name -> the engine's.
    """

    name: str
    settings: S
    engine_names: Mapping[str, str]


class Changes(msgspec.Struct, frozen=True):
    """The names of replicas by how they changed: `changed` have other settings, `renamed`
    only other names of models.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    renamed: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        return not (self.added or self.removed or self.changed or self.renamed)


def changes_between(old: Sequence[ReplicaSpec[S]], new: Sequence[ReplicaSpec[S]]) -> Changes:
    """The changes from one list to the next. Raises ValueError if the new
    one names a replica twice.
    """
    before = {spec.name: spec for spec in old}
    after = {spec.name: spec for spec in new}
    if len(after) != len(new):
        names = [spec.name for spec in new]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"there are several replicas named {', '.join(twice)}")
    common = [name for name in after if name in before]
    changed = [name for name in common if before[name].settings != after[name].settings]
    same = [name for name in common if name not in changed]
    renamed = [n for n in same if dict(before[n].engine_names) != dict(after[n].engine_names)]
    return Changes(
        added=tuple(name for name in after if name not in before),
        removed=tuple(name for name in before if name not in after),
        changed=tuple(changed),
        renamed=tuple(renamed),
        kept=tuple(name for name in same if name not in renamed),
    )
