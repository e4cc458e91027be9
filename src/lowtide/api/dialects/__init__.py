"""One Batch in each vendor's shape: the choice of the shape, and nothing else."""

from typing import Any

from lowtide.api.dialects import openai, together
from lowtide.core.batch import Batch, Dialect
from lowtide.core.progress import Progress


def render_batch(batch: Batch, progress: Progress, dialect: Dialect) -> dict[str, Any]:
    """`batch` as the SDKs of `dialect` read it."""
    if dialect == "together":
        return together.batch(batch, progress)
    return openai.batch(batch, progress)
