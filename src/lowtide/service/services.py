"""The verbs that a door is given, in one value.

`wiring` fills it; `api.app.create_app` takes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lowtide.config import Settings
from lowtide.service.access import Access
from lowtide.service.files import FileService
from lowtide.service.limits import LimitService
from lowtide.service.readiness import Readiness
from lowtide.service.signing import UploadSigner
from lowtide.service.tenants import TenantService
from lowtide.service.uploads import UploadService
from lowtide.service.uploads_completion import Completions
from lowtide.service.usage import UsageService

if TYPE_CHECKING:
    from lowtide.service.background import BackgroundService
    from lowtide.service.batches import BatchService
    from lowtide.service.estimates import EstimateService
    from lowtide.service.flex import FlexService
    from lowtide.service.live import LiveService
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
    parts: UploadService
    completions: Completions
    estimates: EstimateService
    access: Access
    tenants: TenantService
    allowance: LimitService
    usage: UsageService
    live: LiveService
    flex: FlexService
    background: BackgroundService
    readiness: Readiness
