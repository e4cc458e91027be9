"""The names of batches, for sentences and plots that show no rows of a list.

Called by the console's views and buttons.
"""

from collections.abc import Sequence

from starlette.requests import Request

from lowtide.api.console.batches.batch_rows import name_of
from lowtide.api.middleware.caller import identify, services_of
from lowtide.core.batches.batch import Batch


async def names_of(request: Request, batches: Sequence[Batch]) -> dict[str, str]:
    """What the list calls each batch of the caller's project, by its id. Raises StoreError."""
    filenames = await services_of(request).files.names(
        identify(request).project_id, [each.input_file_id for each in batches]
    )
    return {each.id: name_of(each, filenames.get(each.input_file_id)) for each in batches}
