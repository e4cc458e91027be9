"""Which models each replica serves, by what name, and which models are known because of it.

Pure. wiring/replicas/engines.py asks whenever settings, an engine's list or the table of seen
models change. A replica says by `models` and `names` what it serves; where `models` has "*", what
its engine lists at /v1/models counts, too. Invariant: every name of the result is a canonical id of
the entries that come with it, so that a request for a name of a model reaches every replica that
serves it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from lowtide.core.accounts.catalogue import ModelEntry
from lowtide.limits import MODELS_LISTED_MAX

ALL: Final = "*"
"""Stands, among the `models` of a replica, for all that its engine lists."""


class Offer(msgspec.Struct, frozen=True):
    """What one replica is said to serve. `models` are public names, `names` has the engine's word
    for some of them, `listed` is what the engine itself lists, in its own words.
    """

    models: tuple[str, ...]
    names: Mapping[str, str] = {}
    listed: tuple[str, ...] = ()


class Served(msgspec.Struct, frozen=True):
    """`entries` are all models to be known; `engine_names` has for each offer, in their order, the
    models by canonical id with the engine's word for each.
    """

    entries: tuple[ModelEntry, ...]
    engine_names: tuple[Mapping[str, str], ...]

    @property
    def models(self) -> frozenset[str]:
        """What some replica serves."""
        return frozenset(model for names in self.engine_names for model in names)


def served_models(
    configured: Iterable[ModelEntry], offers: Sequence[Offer], seen: Iterable[str] = ()
) -> Served:
    """The models that all offers serve together. `seen`: models that were
    served once and stay known.
    """
    entries = {entry.id: entry for entry in configured}
    canonical = {name: e.id for e in entries.values() for name in (e.id, *e.aliases)}
    engine_names = tuple(_of_offer(offer, entries, canonical) for offer in offers)
    for model in (*(name for names in engine_names for name in names), *seen):
        if model not in canonical:
            canonical[model] = model
            entries[model] = ModelEntry(id=model)
    return Served(tuple(entries.values()), engine_names)


def _of_offer(
    offer: Offer, entries: Mapping[str, ModelEntry], canonical: Mapping[str, str]
) -> dict[str, str]:
    served: dict[str, str] = {}
    for name in offer.models:
        if name != ALL:
            model = canonical.get(name, name)
            entry = entries.get(model)
            served[model] = (entry.engine_name if entry is not None else None) or model
    served |= {canonical.get(name, name): engines for name, engines in offer.names.items()}
    if ALL in offer.models:
        _add_listed(served, offer.listed, entries, canonical)
    return served


def _add_listed(
    served: dict[str, str],
    listed: Sequence[str],
    entries: Mapping[str, ModelEntry],
    canonical: Mapping[str, str],
) -> None:
    """What the engine calls by a name that is some entry's `engine_name` is that entry's model."""
    taken = set(served.values())
    of_engine: dict[str, list[str]] = {}
    for entry in entries.values():
        if entry.engine_name is not None:
            of_engine.setdefault(entry.engine_name, []).append(entry.id)
    for name in listed[:MODELS_LISTED_MAX]:
        if name not in taken:
            for model in of_engine.get(name, [canonical.get(name, name)]):
                served.setdefault(model, name)
