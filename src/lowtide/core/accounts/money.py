"""Prices and charges, exact: whole pico-dollars, never floats.

A price is given in dollars per million tokens; a pico-dollar is 1e-12 dollars, so a price with up
to six decimals is a whole number of pico-dollars per token, and every charge is a sum of products
of whole numbers. The same tokens therefore cost the same however many entries they are spread
over: the ledger and the output file agree to the last digit, not only to the cent.
"""

from decimal import ROUND_HALF_UP, Decimal
from typing import Final

import msgspec

from lowtide.core.usage import Usage

PICO_PER_DOLLAR: Final = 10**12
_PICO_PER_TOKEN: Final = 10**6
"""Pico-dollars per token for a price of one dollar per million tokens."""


class PriceError(ValueError):
    """The price cannot be expressed in whole pico-dollars per token."""


class UnitPrices(msgspec.Struct, frozen=True):
    """Pico-dollars per token. `cached` is what an input token costs that the engine had cached."""

    input: int = 0
    cached: int = 0
    output: int = 0

    def charge(self, usage: Usage) -> int:
        """Pico-dollars for these tokens."""
        fresh = usage.input_tokens - usage.cached_tokens
        return (
            fresh * self.input
            + usage.cached_tokens * self.cached
            + usage.output_tokens * self.output
        )


class ModelPrices(msgspec.Struct, frozen=True):
    """What a model costs live and in a batch; `discount` is the share taken off (0.5: half)."""

    live: UnitPrices = UnitPrices()
    batch: UnitPrices = UnitPrices()
    discount: Decimal = Decimal("0.5")


FREE: Final = ModelPrices()


def model_prices(
    input_price: Decimal,
    cached_input_price: Decimal | None,
    output_price: Decimal,
    discount: Decimal,
) -> ModelPrices:
    """Converts dollars per million tokens to unit prices. A cached price
    of None is the input price.

    Raises PriceError when a price, live or discounted, has more than six decimals.
    """
    cached_price = input_price if cached_input_price is None else cached_input_price
    prices = (input_price, cached_price, output_price)
    return ModelPrices(
        live=UnitPrices(*(_pico_per_token(price) for price in prices)),
        batch=UnitPrices(*(_pico_per_token(price * (1 - discount)) for price in prices)),
        discount=discount,
    )


def dollars(pico: int) -> Decimal:
    """Exact dollars, without trailing zeros but with at least two decimals."""
    exact = Decimal(pico) / PICO_PER_DOLLAR
    cents = exact.quantize(Decimal("0.01"))
    return cents if cents == exact else exact.normalize()


def dollars_text(pico: int) -> str:
    """`dollars` as written out, never with an exponent."""
    return f"{dollars(pico):f}"


def pico(amount: Decimal) -> int:
    """Pico-dollars of an amount in dollars, rounded to the nearest."""
    return int((amount * PICO_PER_DOLLAR).to_integral_value(ROUND_HALF_UP))


def _pico_per_token(price: Decimal) -> int:
    exact = price * _PICO_PER_TOKEN
    if exact < 0 or exact != exact.to_integral_value():
        raise PriceError(
            f"{price.normalize()} dollars per million tokens: give at most six decimals, also after"
            " the batch discount, and nothing below 0"
        )
    return int(exact)
