"""Looks again and again at how many replicas are wanted, for the metrics and the log.

Runs in every process that has the HTTP API, so that what is asked there has a history, however
seldom it is asked. Invariant: what cannot be read is not shown as it was, but as absent.
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

import structlog

from lowtide import limits
from lowtide.ports.store import StoreError
from lowtide.service.scale import ModelScale, ScaleService

log = structlog.get_logger(__name__)


class ScaleLoop:
    """One per process with the HTTP API."""

    name = "scale"

    def __init__(
        self, service: ScaleService, show: Callable[[Mapping[str, ModelScale], datetime], None]
    ) -> None:
        """`show` is given all models, or none while they cannot be read."""
        self._service = service
        self._show = show
        self._logged: dict[str, int] = {}

    async def tick(self, now: datetime) -> datetime | None:
        """Looks once, and logs each number that has changed."""
        try:
            scales = await self._service.all()
        except StoreError:
            self._show({}, now)
            raise
        self._show(scales, now)
        for model, scale in scales.items():
            number = scale.wanted.replicas
            if self._logged.get(model, 0) != number:
                log.info(
                    "scale.wanted",
                    model=model,
                    replicas=number,
                    present=scale.present,
                    reason=scale.wanted.reason,
                )
        self._logged = {model: scale.wanted.replicas for model, scale in scales.items()}
        return now + timedelta(seconds=limits.SCALE_S)
