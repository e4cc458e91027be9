"""The verbs on models, and the catalogue they answer from.

The API's model routes and the command line call `ModelService`; wiring makes the one `Catalogue`
with `catalogue_of`. Invariant: every model that a replica names is in the catalogue, so that what
can be run can also be listed, priced or not.
"""

from collections.abc import Sequence

import msgspec

from lowtide.config import Settings
from lowtide.core.catalogue import Catalogue, ModelEntry
from lowtide.core.errors import LowtideError


class ModelService:
    """Look-ups over one catalogue, which is fixed while the process runs."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def list(self) -> Sequence[ModelEntry]:
        """All models: those of the catalogue in its order, then those that only replicas name."""
        return tuple(self._catalogue.entries.values())

    def get(self, name: str) -> ModelEntry:
        """By id or alias. Raises LowtideError `model_not_found`."""
        entry = self._catalogue.get(name)
        if entry is None:
            raise LowtideError("model_not_found", f"No model named '{name}'.", "model")
        return entry


def catalogue_of(settings: Settings) -> Catalogue:
    """The `[[model]]` entries, and one at price 0 for each other model a `[[replica]]` names."""
    described = [ModelEntry(**msgspec.structs.asdict(model)) for model in settings.model]
    names = {name for entry in described for name in (entry.id, *entry.aliases)}
    bare = dict.fromkeys(
        model for replica in settings.replica for model in replica.models if model not in names
    )
    return Catalogue([*described, *(ModelEntry(id=model) for model in bare)])
