"""The models that this installation knows: ids, aliases, prices, and what the engines call them.

wiring/replicas/engines.py owns the one catalogue of a process and exchanges its content when
settings, engines or the seen models change; validation, prices, live routing and the model list
read it. Invariant: the mappings are replaced, never changed, so who took one has a consistent view.
"""

from collections.abc import Collection, Iterable, Mapping
from decimal import Decimal
from functools import cached_property
from types import MappingProxyType

import msgspec

from lowtide.core.accounts.money import ModelPrices, PriceError, model_prices
from lowtide.core.scheduling.operating_hours import OperatingHours


class ModelEntry(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """One model. Prices are US dollars per million tokens, live.

    `batch_discount` is the share that a batch does not pay.
    """

    id: str
    aliases: tuple[str, ...] = ()
    engine_name: str | None = None
    type: str = "chat"
    size: str | None = None
    context_length: int | None = None
    input_price: Decimal = Decimal(0)
    cached_input_price: Decimal | None = None
    output_price: Decimal = Decimal(0)
    batch_discount: Decimal = Decimal("0.5")

    @property
    def cached_price(self) -> Decimal:
        """The price of cached input tokens: the input price unless another one is given."""
        return self.input_price if self.cached_input_price is None else self.cached_input_price

    @cached_property
    def prices(self) -> ModelPrices:
        """The exact prices. Raises PriceError, naming the model."""
        try:
            return model_prices(
                self.input_price, self.cached_input_price, self.output_price, self.batch_discount
            )
        except PriceError as error:
            raise PriceError(f"{self.id}: {error}") from None


class Catalogue:
    """Look-up by id or alias.

    `names` maps every known name to its canonical id; `accepted` has those of them that a line may
    name. `prices` has every entry's prices by canonical id, `hours` when its batch work starts,
    without the models that are always open. `contexts`: tokens of prompt and answer together, of
    the models of which they are known.
    """

    def __init__(
        self,
        entries: Iterable[ModelEntry] = (),
        served: Collection[str] | None = None,
        hours: Mapping[str, OperatingHours] = MappingProxyType({}),
    ) -> None:
        """`served`: the canonical ids that lines may name; None: all of them.

        Raises PriceError, naming the model.
        """
        self.entries: Mapping[str, ModelEntry] = MappingProxyType({e.id: e for e in entries})
        self.names: Mapping[str, str] = MappingProxyType(
            {name: e.id for e in self.entries.values() for name in (e.id, *e.aliases)}
        )
        self.accepted: Mapping[str, str] = MappingProxyType(
            {n: model for n, model in self.names.items() if served is None or model in served}
        )
        self.prices: Mapping[str, ModelPrices] = MappingProxyType(
            {e.id: e.prices for e in self.entries.values()}
        )
        self.hours = hours
        self.contexts: Mapping[str, int] = MappingProxyType(
            {e.id: e.context_length for e in self.entries.values() if e.context_length is not None}
        )

    def adopt(self, fresh: "Catalogue") -> None:
        """Replaces the whole content by that of `fresh`."""
        self.entries, self.names, self.accepted = fresh.entries, fresh.names, fresh.accepted
        self.prices, self.hours, self.contexts = fresh.prices, fresh.hours, fresh.contexts

    def get(self, name: str) -> ModelEntry | None:
        canonical = self.names.get(name)
        return self.entries[canonical] if canonical is not None else None

    def engine_name(self, model: str) -> str:
        """What to write into the request body for the canonical id `model`."""
        entry = self.entries.get(model)
        return entry.engine_name or entry.id if entry else model
