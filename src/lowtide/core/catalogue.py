"""The models that this installation knows: ids, aliases, and what the engines call them."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import msgspec


class ModelEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One model. Prices are US dollars per million tokens, live."""

    id: str
    aliases: tuple[str, ...] = ()
    engine_name: str | None = None
    type: str = "chat"
    size: str | None = None
    context_length: int | None = None
    input_price: float = 0.0
    output_price: float = 0.0
    batch_discount: float = 0.5


class Catalogue:
    """Look-up by id or alias. `names` maps every accepted name to its canonical id."""

    def __init__(self, entries: Iterable[ModelEntry]) -> None:
        self.entries: Mapping[str, ModelEntry] = MappingProxyType({e.id: e for e in entries})
        self.names: Mapping[str, str] = MappingProxyType(
            {name: e.id for e in self.entries.values() for name in (e.id, *e.aliases)}
        )

    def get(self, name: str) -> ModelEntry | None:
        canonical = self.names.get(name)
        return self.entries[canonical] if canonical is not None else None

    def engine_name(self, model: str) -> str:
        """What to write into the request body for the canonical id `model`."""
        entry = self.entries.get(model)
        return entry.engine_name or entry.id if entry else model
