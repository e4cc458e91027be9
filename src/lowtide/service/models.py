"""The verbs on models. The API's model routes and the command line call them.

Invariant: what is listed is what a line may name; both read the one catalogue that wiring makes.
"""

from collections.abc import Sequence

from lowtide.core.accounts.catalogue import Catalogue, ModelEntry
from lowtide.core.errors import LowtideError


class ModelService:
    """Look-ups over one catalogue, which is fixed while the process runs."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def list(self) -> Sequence[ModelEntry]:
        """All models, in the order of the catalogue."""
        return tuple(self._catalogue.entries.values())

    def get(self, name: str) -> ModelEntry:
        """The model by its id or alias. Raises LowtideError `model_not_found`."""
        entry = self._catalogue.get(name)
        if entry is None:
            raise LowtideError("model_not_found", f"No model named '{name}'.", "model")
        return entry
