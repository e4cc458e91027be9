"""What a commit charges.

Called by settlement.py with what the commit adds to each batch and model. Invariants: one entry per
batch and model that had successes, priced as of the commit; the sum on the batch's row is the sum
of its entries.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime

from lowtide.core.accounts.ledger import Cost, LedgerEntry
from lowtide.core.accounts.money import FREE, ModelPrices
from lowtide.core.execution.records import BatchRecord, SettledModel


def ledger_entry(
    record: BatchRecord,
    model: str,
    settled: SettledModel,
    prices: Mapping[str, ModelPrices],
    at: datetime,
) -> LedgerEntry:
    """The successes and their tokens, at the model's batch price.

    The batch's counter of results numbers the entry: it grows with every commit that has any.
    """
    price = prices.get(model, FREE)
    return LedgerEntry(
        batch_id=record.batch.id,
        model=model,
        seq=record.results_seq,
        organization_id=record.organization_id,
        project_id=record.batch.project_id,
        at=at,
        requests=settled.completed,
        usage=settled.usage,
        live_prices=price.live,
        batch_prices=price.batch,
        discount=price.discount,
        charge_pico=price.batch.charge(settled.usage),
    )


def cost_of(entries: Iterable[LedgerEntry], before: Cost | None) -> Cost | None:
    """The batch's running sum after those entries; None until there is one."""
    total = before
    for entry in entries:
        live = entry.live_prices.charge(entry.usage)
        more = Cost(entry.requests, entry.usage, entry.charge_pico, live)
        total = more if total is None else total + more
    return total
