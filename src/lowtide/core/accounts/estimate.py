"""What a planned batch would cost: tokens by model, priced live and as a batch.

Pure; dry runs, `lowtide validate` and the check against a spend cap read it. Input tokens
are the plan's estimate; output tokens are the bounds that the lines themselves name, so the price
is a bound where every line names one, and covers what is known where some do not.
"""

from collections.abc import Mapping

import msgspec

from lowtide.core.accounts.money import FREE, ModelPrices, UnitPrices
from lowtide.core.batches.plan import ModelTotals
from lowtide.core.usage import Usage


class ModelEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """One model's share. Amounts in pico-dollars."""

    model: str
    requests: int
    input_tokens: int
    output_tokens_max: int
    is_bounded: bool
    """Whether every line names a bound of its output."""
    has_price: bool
    live_pico: int
    batch_pico: int


class Estimate(msgspec.Struct, frozen=True):
    """All models of a batch, in the order of the plan."""

    models: tuple[ModelEstimate, ...] = ()

    @property
    def requests(self) -> int:
        return sum(model.requests for model in self.models)

    @property
    def input_tokens(self) -> int:
        return sum(model.input_tokens for model in self.models)

    @property
    def output_tokens_max(self) -> int:
        return sum(model.output_tokens_max for model in self.models)

    @property
    def is_bounded(self) -> bool:
        """Whether the price is the most that it can be, as far as prices are known."""
        return all(model.is_bounded for model in self.models if model.has_price)

    @property
    def has_price(self) -> bool:
        return any(model.has_price for model in self.models)

    @property
    def live_pico(self) -> int:
        return sum(model.live_pico for model in self.models)

    @property
    def batch_pico(self) -> int:
        return sum(model.batch_pico for model in self.models)


def estimate(models: Mapping[str, ModelTotals], prices: Mapping[str, ModelPrices]) -> Estimate:
    """The estimate of a plan. A model without prices is free."""
    return Estimate(
        tuple(_of_model(model, share, prices.get(model, FREE)) for model, share in models.items())
    )


def _of_model(model: str, share: ModelTotals, prices: ModelPrices) -> ModelEstimate:
    tokens = Usage(input_tokens=share.input_tokens, output_tokens=share.output_tokens)
    return ModelEstimate(
        model=model,
        requests=share.requests,
        input_tokens=share.input_tokens,
        output_tokens_max=share.output_tokens,
        is_bounded=not share.unbounded,
        has_price=prices.live != UnitPrices(),
        live_pico=prices.live.charge(tokens),
        batch_pico=prices.batch.charge(tokens),
    )
