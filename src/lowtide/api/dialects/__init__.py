"""One Batch in each vendor's shape: the choice of the shape, and nothing else."""

import msgspec

from lowtide.api.dialects import openai, together
from lowtide.api.objects.batches import BatchJob, BatchObject
from lowtide.core.accounts.ledger import Cost
from lowtide.core.batches.batch import Batch, Dialect
from lowtide.core.reporting.progress import Progress

NOTHING_SPENT = Cost()


def render_batch(
    batch: Batch,
    progress: Progress,
    dialect: Dialect,
    cost: Cost = NOTHING_SPENT,
    *,
    early_ids: bool = False,
) -> BatchObject | BatchJob:
    """`batch` as the SDKs of `dialect` read it. `early_ids`: with the ids of its result files
    under their usual names while it runs, too.
    """
    shape = together.batch if dialect == "together" else openai.batch
    shown: BatchObject | BatchJob = shape(batch, progress, cost)
    if early_ids:
        ids = {"output_file_id": batch.output_file_id, "error_file_id": batch.error_file_id}
        shown = msgspec.structs.replace(shown, **ids)
    return shown
