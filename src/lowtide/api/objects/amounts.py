"""Prices, costs and tokens as answers show them, in every dialect alike.

Prices are JSON numbers, because Together's clients read numbers; what was charged is a decimal
string, because a sum of money that went through a float is not one.
"""

import msgspec


class AmountsObject(msgspec.Struct, frozen=True, kw_only=True):
    """Dollars as decimal strings: what was charged, the live price of the same tokens, and the
    difference."""

    currency: str = "usd"
    amount: str = "0"
    live_amount: str = "0"
    saved: str = "0"


class PriceObject(msgspec.Struct, frozen=True, kw_only=True):
    """Dollars per million tokens."""

    input: float
    cached_input: float
    output: float


class PricingObject(PriceObject, frozen=True, kw_only=True):
    """Live prices; under `batch` what a batch pays."""

    batch: PriceObject
    batch_discount: float


class TogetherPricing(PricingObject, frozen=True, kw_only=True):
    """Prices with the three more that Together's clients require."""

    hourly: float = 0.0
    base: float = 0.0
    finetune: float = 0.0
