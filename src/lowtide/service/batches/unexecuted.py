"""How many lines of batches that ended early were never run, as their groups of failures tell.

Called for each list and each batch that is shown, so it is one query for all of them, and none
where nothing can be there. Invariant: what is not run is counted among the failed lines, as the
vendors do, so the number says how many of these no engine saw.
"""

from collections.abc import Sequence

import msgspec

from lowtide.core.batches.batch import Batch
from lowtide.core.reporting.progress import Progress
from lowtide.ports.retries import RetryStore


async def with_unexecuted(
    store: RetryStore, batches: Sequence[Batch], reported: Sequence[Progress]
) -> list[Progress]:
    """The progress of each batch with that number in it."""
    early = [each.id for each in batches if each.ended_at is not None and each.counts.failed]
    found = await store.unexecuted(early) if early else {}
    return [
        msgspec.structs.replace(its, unexecuted=found[batch.id]) if batch.id in found else its
        for batch, its in zip(batches, reported, strict=True)
    ]
