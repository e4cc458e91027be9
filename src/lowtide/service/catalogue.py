"""Makes the catalogue from the settings and from what engines list.

wiring/replicas/engines.py calls it whenever one of them changes; commands that ask no engine
call `catalogue_of`.
"""

from collections.abc import Iterable, Sequence

from lowtide.config import ReplicaSettings, Settings, hours_by_model
from lowtide.core.accounts.catalogue import Catalogue, ModelEntry
from lowtide.core.replicas.served_models import Offer, Served, served_models


def resolve(
    settings: Settings,
    replicas: Sequence[ReplicaSettings],
    entries: Sequence[ModelEntry] = (),
    listed: dict[str, tuple[str, ...]] | None = None,
    seen: Iterable[str] = (),
) -> Served:
    """The configured models, `entries` before them, and whatever else the replicas serve."""
    configured = (model.entry for model in settings.model)
    offers = [
        Offer(replica.models, replica.names, (listed or {}).get(replica.label, ()))
        for replica in replicas
    ]
    return served_models([*entries, *configured], offers, seen)


def catalogue_from(settings: Settings, resolved: Served) -> Catalogue:
    """Raises PriceError."""
    ids = [entry.id for entry in resolved.entries]
    hours = hours_by_model(settings.dispatch, settings.model, ids)
    served = None if settings.catalogue.unserved == "wait" else resolved.models
    return Catalogue(resolved.entries, served, hours)


def catalogue_of(settings: Settings) -> Catalogue:
    """The catalogue by the settings alone, for commands that ask no engine."""
    return catalogue_from(settings, resolve(settings, settings.replica))
