"""One Batch in each vendor's shape: the choice of the shape, and nothing else."""

from typing import Any

from lowtide.api.dialects import openai, together
from lowtide.core.batch import Batch, Dialect
from lowtide.core.ledger import Cost
from lowtide.core.progress import Progress

NOTHING_SPENT = Cost()


def render_batch(
    batch: Batch, progress: Progress, dialect: Dialect, cost: Cost = NOTHING_SPENT
) -> dict[str, Any]:
    """`batch` as the SDKs of `dialect` read it."""
    if dialect == "together":
        return together.batch(batch, progress, cost)
    return openai.batch(batch, progress, cost)
