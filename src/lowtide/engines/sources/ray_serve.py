"""Engines from Ray Serve: its applications that run, each at the proxy of the head.

Ray starts and stops replicas behind its proxy, so an application is one engine, with the path of
its route before /v1. Read from the REST API of the dashboard, twice a second; the `ray` scaler
(engines/scalers/ray_scale.py) reads the same list. Invariants: only an application with the status
RUNNING whose deployments have a replica each is an engine, for Ray lets calls wait without an
answer where there is none; one that the settings name and that Ray does not know is a SourceError.
"""

from typing import Any
from urllib.parse import quote

import msgspec

from lowtide import limits
from lowtide.core.replicas.found_engines import FoundEngine
from lowtide.engines.sources.json_http import JsonApi
from lowtide.ports.sources import Listing, SourceError

_PATH = "/api/serve/applications/"
_RUNNING = "RUNNING"


class ServeReplica(msgspec.Struct, frozen=True):
    """One replica of a deployment."""

    state: str = ""


class DeploymentConfig(msgspec.Struct, frozen=True):
    """How many replicas a deployment is to have, and who says so."""

    autoscaling_config: Any = None


class ServeDeployment(msgspec.Struct, frozen=True):
    """One part of an application."""

    deployment_config: DeploymentConfig = DeploymentConfig()
    target_num_replicas: int | None = None
    """Older versions of Ray do not tell it."""
    replicas: tuple[ServeReplica, ...] | None = None
    """None: the dashboard does not tell."""

    @property
    def running(self) -> int:
        """Replicas that run."""
        return sum(replica.state == _RUNNING for replica in self.replicas or ())

    @property
    def is_awake(self) -> bool:
        """Whether a call is answered: by a replica, or by one that Ray starts for it."""
        if self.replicas is None or self.deployment_config.autoscaling_config is not None:
            return True
        return self.running > 0


class ServeApplication(msgspec.Struct, frozen=True):
    """One application, with the fields that count here. It keeps its status at zero replicas."""

    status: str = ""
    route_prefix: str | None = None
    deployments: dict[str, ServeDeployment] = {}
    external_scaler_enabled: bool | None = None

    @property
    def is_engine(self) -> bool:
        """Whether it takes calls now."""
        parts = self.deployments.values()
        is_running = self.status == _RUNNING and self.route_prefix is not None
        return is_running and all(part.is_awake for part in parts)


class HttpOptions(msgspec.Struct, frozen=True):
    """Where the proxies listen."""

    port: int = 8000


class Applications(msgspec.Struct, frozen=True):
    """What the dashboard answers."""

    applications: dict[str, ServeApplication]
    http_options: HttpOptions | None = None

    def named(self, name: str) -> ServeApplication:
        """Raises SourceError where there is none of that name."""
        if name not in self.applications:
            there = ", ".join(sorted(self.applications)) or "none"
            raise SourceError(f"Ray Serve has no application {name}; there are: {there}")
        return self.applications[name]


async def read_applications(api: JsonApi) -> Applications:
    """What runs, as the dashboard tells. Raises SourceError."""
    answer: Any = await api.get(_PATH)
    try:
        return msgspec.convert(answer, Applications)
    except msgspec.ValidationError as error:
        raise SourceError(f"Ray's list of applications makes no sense: {error}") from None


class RayServe:
    """Adapter of `ports.sources.EngineSource`."""

    def __init__(
        self, api: JsonApi, host: str, *, application: str | None = None, port: int | None = None
    ) -> None:
        """`host`: of the proxy that is called; `application` None: all that run; `port`: of the
        proxy, where it is another one than Ray says.
        """
        self._api = api
        self._host = host
        self._application = application
        self._port = port

    async def read(self) -> Listing:
        """See `ports.sources.EngineSource`."""
        details = await read_applications(self._api)
        wanted = details.applications
        if self._application is not None:
            wanted = {self._application: details.named(self._application)}
        port = self._port or (details.http_options or HttpOptions()).port
        engines = tuple(
            FoundEngine(quote(name, safe=""), self._host, port, path=_path(each.route_prefix))
            for name, each in sorted(wanted.items())
            if each.is_engine
        )
        return Listing(engines, limits.SOURCE_POLL_S)

    async def aclose(self) -> None:
        """See `ports.sources.EngineSource`."""
        await self._api.aclose()


def _path(route_prefix: str | None) -> str:
    return quote((route_prefix or "").rstrip("/"))
