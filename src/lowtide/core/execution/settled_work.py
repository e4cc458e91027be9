"""The work units that a commit's outcomes took, beside those that were charged when they were
leased.

The store moves virtual times and throughputs by them, in the commit's transaction. Invariant: a
leased chunk is charged for its unsettled requests, any other for none.
"""

from collections import defaultdict
from collections.abc import Mapping

import msgspec

from lowtide.core.execution.records import Settlement
from lowtide.core.scheduling.fair_queue import work_of


class SettledWork(msgspec.Struct, frozen=True):
    """What a commit settled of one model of one batch, in work units: as charged, and as it was."""

    estimated: float
    actual: float


def settled_work(settlement: Settlement) -> dict[tuple[str, str], SettledWork]:
    """The settled work by (batch, model). An engine without usage counts as its estimate."""
    estimated: dict[tuple[str, str], float] = defaultdict(float)
    for chunk in settlement.chunks:
        before = chunk.before
        estimated[before.batch_id, before.model] += before.cost_per_request * chunk.requests
    work = {}
    for key, model in settlement.models.items():
        unknown = model.completed and not model.usage.total_tokens
        actual = estimated[key] if unknown else work_of(model.usage)
        work[key] = SettledWork(estimated[key], actual)
    return work


def corrections(
    settlement: Settlement, work: Mapping[tuple[str, str], SettledWork]
) -> dict[tuple[str, str], float]:
    """What to add to the charges, by (model, organization): the cost of a commit's outcomes beyond
    what was charged when they were leased, less the charges of requests that it gives back.
    """
    costs: dict[tuple[str, str], float] = defaultdict(float)
    owners: dict[str, str] = {}
    for chunk in settlement.chunks:
        before = chunk.before
        owners[before.batch_id] = before.organization_id
        if chunk.state not in ("leased", "done"):
            left = before.count - chunk.settled
            costs[before.model, before.organization_id] -= before.cost_per_request * left
    for (batch_id, model), outcome in work.items():
        costs[model, owners[batch_id]] += outcome.actual - outcome.estimated
    return costs
