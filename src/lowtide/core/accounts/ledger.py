"""The ledger: what was charged, for which tokens, at which prices, entry by entry.

An entry is written in the transaction of the commit that stored the results it is for, and never
changes: one per commit, batch and model. Results whose bytes were lost are taken back by an entry
of their own, negative in everything but the prices; what runs again is charged anew. Invariant: for
every batch, the sum of its entries is the price of the successes in its output file.
"""

from collections.abc import Iterable
from datetime import date, datetime
from decimal import Decimal

import msgspec

from lowtide.core.accounts.money import UnitPrices
from lowtide.core.usage import NO_USAGE, Usage


class LedgerEntry(msgspec.Struct, frozen=True, kw_only=True):
    """`seq` is the batch's results counter at the time: unique per batch and model."""

    batch_id: str
    model: str
    seq: int
    organization_id: str
    project_id: str
    at: datetime
    requests: int
    usage: Usage
    live_prices: UnitPrices
    batch_prices: UnitPrices
    discount: Decimal
    charge_pico: int


class Cost(msgspec.Struct, frozen=True):
    """A sum of entries. `live_pico` is what the same tokens would have cost live."""

    requests: int = 0
    usage: Usage = NO_USAGE
    charge_pico: int = 0
    live_pico: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.requests + other.requests,
            self.usage + other.usage,
            self.charge_pico + other.charge_pico,
            self.live_pico + other.live_pico,
        )


class UsageRow(msgspec.Struct, frozen=True):
    """One line of a usage report; the keys not grouped by are None."""

    day: date | None
    model: str | None
    project_id: str | None
    cost: Cost


def total(rows: Iterable[UsageRow]) -> Cost:
    return sum((row.cost for row in rows), Cost())
