"""Applies settings that were read again, without a restart.

The foreground (cli/server/reloading.py) calls it on SIGHUP and when the file has changed, with
settings that are valid in themselves. Invariant: all or nothing; what needs a restart is named and
otherwise left as it was at start.
"""

from typing import Final

import msgspec
import structlog

from lowtide.config import Settings
from lowtide.core.replicas.reload import merged, unreloadable
from lowtide.core.replicas.replica_changes import Changes
from lowtide.service.accounts.quotas import Quotas
from lowtide.wiring.replicas.engines import Engines
from lowtide.wiring.replicas.scalers import EngineScalers
from lowtide.wiring.replicas.sources import EngineSources

log = structlog.get_logger(__name__)

RELOADABLE: Final = frozenset(
    {
        "replica",
        "source",
        "scaler",
        "model",
        "catalogue",
        "limits",
        "dispatch.hours",
        "dispatch.timezone",
        "dispatch.attempt_timeout_s",
    }
)
"""What takes effect at once; anything else waits for a restart."""


class Reloaded(msgspec.Struct, frozen=True):
    """The result of a reload; `needs_restart` are the other keys that differ
    from those at start.
    """

    replicas: Changes
    needs_restart: tuple[str, ...]


class Reload:
    """Applies new settings to one running process."""

    def __init__(
        self,
        settings: Settings,
        engines: Engines,
        sources: EngineSources,
        scalers: EngineScalers,
        allowance: Quotas,
    ) -> None:
        self._settings = settings
        self._engines = engines
        self._sources = sources
        self._scalers = scalers
        self._allowance = allowance

    def __call__(self, fresh: Settings) -> Reloaded:
        """Raises ConfigError, PriceError; then everything is as before."""
        settings = merged(self._settings, fresh, RELOADABLE)
        needs_restart = unreloadable(self._settings, fresh, RELOADABLE)
        replicas = self._engines.configure(settings)
        self._sources.configure(settings)
        self._scalers.configure(settings)
        self._allowance.reload(settings.limits)
        self._settings = settings
        log.info(
            "settings.reloaded",
            added=list(replicas.added),
            removed=list(replicas.removed),
            changed=[*replicas.changed, *replicas.renamed],
            replicas=len(settings.replica),
        )
        if needs_restart:
            log.warning("settings.need_restart", keys=list(needs_restart))
        return Reloaded(replicas, needs_restart)

    def refused(self, words: str) -> None:
        """Shows that settings could not be read, wherever sources of engines are shown."""
        self._sources.settings_refused(words)
