"""The verbs that a door is given, in one value.

`wiring` fills it; `api.app.create_app` takes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lowtide.config import Settings
from lowtide.service.files import FileService
from lowtide.service.signing import UploadSigner

if TYPE_CHECKING:
    from lowtide.service.batches import BatchService
    from lowtide.service.models import ModelService
    from lowtide.service.results import ResultReader


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """One instance per process, shared by every request."""

    settings: Settings
    files: FileService
    batches: BatchService
    models: ModelService
    results: ResultReader
    uploads: UploadSigner
