"""The sources of engines of one process: opened by its settings, exchanged at a reload.

`wiring.application` makes it and runs its loop. It also reports the settings themselves as a
source, once a change of them could not be taken over. Invariant: a source that leads to the same
place stays open at a reload, and what it told stays.
"""

from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

from lowtide.config import Settings, SourceSettings
from lowtide.core.reporting.worker_report import SETTINGS_LABEL, SourceReport
from lowtide.loops.replicas.sources import FoundEngines, SourcesLoop
from lowtide.ports.clock import Clock
from lowtide.ports.sources import EngineSource
from lowtide.telemetry.source_metrics import show_sources

_CHECKED: Final = "checked by the settings"


def open_source(source: SourceSettings) -> EngineSource:
    """Returns the adapter for a source. Nothing is read or sent before its first reading.

    Each kind is imported once it is named: together they bring a hundred modules.
    """
    match source.kind:
        case "dns":
            return _dns(source)
        case "kubernetes":
            return _kubernetes(source)
        case "ray":
            return _ray(source)
        case "file":
            from lowtide.engines.sources.endpoints_file import EndpointsFile

            assert source.path is not None, _CHECKED
            return EndpointsFile(source.path)


def _dns(source: SourceSettings) -> EngineSource:
    from lowtide.engines.sources.dns_records import DnsRecords

    assert source.name is not None, _CHECKED
    port = source.port if isinstance(source.port, int) else 0
    return DnsRecords(source.name, port, source.nameserver)


def _kubernetes(source: SourceSettings) -> EngineSource:
    from lowtide.engines.sources.kubernetes import ServiceEndpoints, open_api

    assert source.namespace is not None and source.service is not None, _CHECKED
    api = open_api(source.api_url, source.token_file, source.api_ca_file)
    return ServiceEndpoints(
        api,
        source.namespace,
        source.service,
        port=source.port,
        by_service=source.address == "service",
    )


def _ray(source: SourceSettings) -> EngineSource:
    from lowtide.engines.sources.json_http import JsonApi
    from lowtide.engines.sources.ray_serve import RayServe

    assert source.dashboard is not None, _CHECKED
    api = JsonApi(source.dashboard, token_file=source.token_file, ca_file=source.api_ca_file)
    port = source.port if isinstance(source.port, int) else None
    host = urlsplit(source.dashboard).hostname or ""
    return RayServe(api, host, application=source.application, port=port)


class EngineSources:
    """The sources as the settings have them at present."""

    def __init__(
        self,
        engines: FoundEngines,
        clock: Clock,
        wake: Callable[[], None],
        open_one: Callable[[SourceSettings], EngineSource] = open_source,
    ) -> None:
        self.loop = SourcesLoop(
            clock, engines, wake=wake, on_update=lambda _: show_sources(self.reports())
        )
        self._clock = clock
        self._open = open_one
        self._opened: dict[tuple[object, ...], EngineSource] = {}
        self._settings: SourceReport | None = None

    def configure(self, settings: Settings) -> None:
        """Takes over the sources of the settings."""
        before = self._opened
        self._opened = {
            source.place: before.get(source.place) or self._open(source)
            for source in settings.source
        }
        self.loop.watch({s.label: self._opened[s.place] for s in settings.source})
        self._settings = None

    def settings_refused(self, words: str) -> None:
        """Records that the settings could not be read again; what they said before goes on."""
        since = self._settings.stale_since if self._settings is not None else None
        self._settings = SourceReport(
            label=SETTINGS_LABEL, stale_since=since or self._clock.now(), error=words
        )

    def reports(self) -> tuple[SourceReport, ...]:
        """The state of each source, and of the settings while a change of them is refused."""
        return (*([self._settings] if self._settings is not None else []), *self.loop.reports())
