"""Prices and costs made into the objects that answers show (api/objects/amounts.py)."""

from decimal import Decimal
from typing import Any

from lowtide.api.objects.amounts import (
    AmountsObject,
    PriceObject,
    PricingObject,
    TogetherPricing,
)
from lowtide.core.accounts.catalogue import ModelEntry
from lowtide.core.accounts.ledger import Cost
from lowtide.core.accounts.money import dollars_text
from lowtide.core.usage import Usage


def pricing(entry: ModelEntry) -> PricingObject:
    """Prices in dollars per million tokens: live, and under `batch` what a batch pays."""
    return PricingObject(**_pricing(entry))


def together_pricing(entry: ModelEntry) -> TogetherPricing:
    """The same as Together's clients read it."""
    return TogetherPricing(**_pricing(entry))


def _pricing(entry: ModelEntry) -> dict[str, Any]:
    return {
        **_prices(entry, Decimal(1)),
        "batch": PriceObject(**_prices(entry, 1 - entry.batch_discount)),
        "batch_discount": float(entry.batch_discount),
    }


def _prices(entry: ModelEntry, share: Decimal) -> dict[str, float]:
    return {
        "input": float(entry.input_price * share),
        "cached_input": float(entry.cached_price * share),
        "output": float(entry.output_price * share),
    }


def cost(spent: Cost) -> AmountsObject:
    """What was charged, and what the same tokens would have cost live."""
    return amounts(spent.charge_pico, spent.live_pico)


def amounts(charge_pico: int, live_pico: int) -> AmountsObject:
    """Pico-dollars as decimal strings in dollars."""
    return AmountsObject(**amount_fields(charge_pico, live_pico))


def amount_fields(charge_pico: int, live_pico: int) -> dict[str, str]:
    """The fields of AmountsObject, for objects that have others besides."""
    return {
        "amount": dollars_text(charge_pico),
        "live_amount": dollars_text(live_pico),
        "saved": dollars_text(live_pico - charge_pico),
    }


def tokens(used: Usage) -> dict[str, int]:
    """The usage as flat fields, for tables; the batch object nests them as its vendor does."""
    return {
        "input_tokens": used.input_tokens,
        "cached_tokens": used.cached_tokens,
        "output_tokens": used.output_tokens,
        "reasoning_tokens": used.reasoning_tokens,
        "total_tokens": used.total_tokens,
        "unreported_requests": used.unreported,
    }
