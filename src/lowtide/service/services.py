"""The verbs that the HTTP API is given, in one value.

`wiring` fills it; `api.app.create_app` takes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lowtide.config import Settings
from lowtide.service.accounts.authentication import Authenticator
from lowtide.service.accounts.limit_report import LimitReport
from lowtide.service.accounts.quotas import Quotas
from lowtide.service.accounts.sessions import Sessions
from lowtide.service.accounts.tenants import TenantService
from lowtide.service.accounts.usage import UsageService
from lowtide.service.batches.forecasts import Forecasts
from lowtide.service.files.files import FileService
from lowtide.service.files.signing import UploadSigner
from lowtide.service.files.uploads import UploadService
from lowtide.service.files.uploads_completion import UploadCompleter
from lowtide.service.history.history import HistoryService
from lowtide.service.readiness import Readiness
from lowtide.service.scale import ScaleService
from lowtide.service.standings import Standings
from lowtide.service.webhooks.webhooks import WebhookService

if TYPE_CHECKING:
    from lowtide.service.batches.batches import BatchService
    from lowtide.service.batches.estimates import EstimateService
    from lowtide.service.batches.joined_results import JoinedResults
    from lowtide.service.batches.progress import ProgressService
    from lowtide.service.batches.result_pages import ResultPages
    from lowtide.service.batches.results import ResultReader
    from lowtide.service.batches.retries import RetryService
    from lowtide.service.batches.steering import SteeringService
    from lowtide.service.live.background import BackgroundService
    from lowtide.service.live.flex import FlexService
    from lowtide.service.live.live import LiveService
    from lowtide.service.models import ModelService


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """One instance per process, shared by every request."""

    settings: Settings
    files: FileService
    batches: BatchService
    progress: ProgressService
    models: ModelService
    results: ResultReader
    joined: JoinedResults
    retries: RetryService
    result_pages: ResultPages
    steering: SteeringService
    uploads: UploadSigner
    parts: UploadService
    completions: UploadCompleter
    estimates: EstimateService
    access: Authenticator
    tenants: TenantService
    allowance: Quotas
    usage: UsageService
    live: LiveService
    flex: FlexService
    background: BackgroundService
    readiness: Readiness
    scale: ScaleService
    sessions: Sessions
    standings: Standings
    webhooks: WebhookService
    limits: LimitReport
    history: HistoryService
    forecasts: Forecasts
