"""Which batches of a list are asked for: by state, model, creation and a text.

The list's route and the console's filter box make one, the store answers it. Invariant: a batch is
in the list if it meets every part that is given.
"""

from datetime import datetime
from typing import Final

import msgspec

from lowtide.core.batches.batch import Status


class BatchFilter(msgspec.Struct, frozen=True, kw_only=True):
    """No `statuses`: any. `model`: a part of the name of a model in it. `text`: a part of its
    metadata or of its input file's name, or the beginning of its id. Case does not matter.
    `is_held`: it has holds, and could start requests without them. `error_code`: of a failed line.
    """

    statuses: tuple[Status, ...] = ()
    is_held: bool | None = None
    model: str = ""
    created_after: datetime | None = None
    created_before: datetime | None = None
    text: str = ""
    error_code: str = ""


EVERY_BATCH: Final = BatchFilter()
