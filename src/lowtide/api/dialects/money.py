"""Prices and costs as answers show them, in every dialect alike.

Prices are JSON numbers, because Together's clients read numbers; what was charged is a decimal
string, because a sum of money that went through a float is not one.
"""

from decimal import Decimal
from typing import Any, Final

from lowtide.core.accounts.catalogue import ModelEntry
from lowtide.core.accounts.ledger import Cost
from lowtide.core.accounts.money import dollars_text
from lowtide.core.usage import Usage

CURRENCY: Final = "usd"


def pricing(entry: ModelEntry) -> dict[str, Any]:
    """Live, in dollars per million tokens; under `batch` what a batch pays."""
    paid = 1 - entry.batch_discount
    return {
        **_prices(entry, Decimal(1)),
        "batch": _prices(entry, paid),
        "batch_discount": float(entry.batch_discount),
    }


def _prices(entry: ModelEntry, share: Decimal) -> dict[str, float]:
    return {
        "input": float(entry.input_price * share),
        "cached_input": float(entry.cached_price * share),
        "output": float(entry.output_price * share),
    }


def cost(spent: Cost) -> dict[str, str]:
    """What was charged, and what the same tokens would have cost live."""
    return amounts(spent.charge_pico, spent.live_pico)


def amounts(charge_pico: int, live_pico: int) -> dict[str, str]:
    """Pico-dollars as decimal strings in dollars."""
    return {
        "currency": CURRENCY,
        "amount": dollars_text(charge_pico),
        "live_amount": dollars_text(live_pico),
        "saved": dollars_text(live_pico - charge_pico),
    }


def tokens(used: Usage) -> dict[str, int]:
    """Flat, for tables; the batch object nests them as its vendor does."""
    return {
        "input_tokens": used.input_tokens,
        "cached_tokens": used.cached_tokens,
        "output_tokens": used.output_tokens,
        "reasoning_tokens": used.reasoning_tokens,
        "total_tokens": used.total_tokens,
        "unreported_requests": used.unreported,
    }
