"""A deployment of Ray Serve as a scaler, by the external scaling API of Ray's dashboard (alpha).

The application needs `external_scaler_enabled: true`, and none of its deployments may have an
`autoscaling_config`; else Ray answers 412. Invariant: an application is never added, removed or
changed: `PUT /api/serve/applications/` would remove all that are not listed, and is not called.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final
from urllib.parse import quote

from lowtide.core.replicas.scaler_asks import ScalerStatus
from lowtide.engines.scalers.places import as_scaler_errors
from lowtide.engines.sources.json_http import JsonApi
from lowtide.engines.sources.ray_serve import ServeApplication, read_applications
from lowtide.ports.scalers import ScalerError

_ENABLE: Final = (
    "set external_scaler_enabled: true for the application and take autoscaling_config away from"
    " its deployments, then deploy it anew"
)
_REMEDIES: Final[Mapping[int, str]] = {
    HTTPStatus.PRECONDITION_FAILED: _ENABLE,
    HTTPStatus.BAD_REQUEST: "application and deployment are right?",
    HTTPStatus.NOT_FOUND: "dashboard is right, and this Ray has the external scaling API?",
}


class RayScale:
    """Adapter of `ports.scalers.Scaler` for one deployment of one application."""

    def __init__(self, api: JsonApi, application: str, deployment: str) -> None:
        self._api = api
        self._application = application
        self._deployment = deployment
        place = f"applications/{quote(application, '')}/deployments/{quote(deployment, '')}"
        self._path = f"/api/v1/{place}/scale"

    async def read(self) -> ScalerStatus:
        """See `ports.scalers.Scaler`. Ray's proxy stands for all replicas."""
        return self._status_of(await self._read())

    async def ask(self, replicas: int) -> None:
        """See `ports.scalers.Scaler`."""
        with as_scaler_errors(_REMEDIES):
            await self._api.send("POST", self._path, {"target_num_replicas": replicas})

    async def check(self) -> None:
        """See `ports.scalers.Scaler`. Ray has no dry run, but tells whether it lets itself be
        scaled.
        """
        details = await self._read()
        self._status_of(details)
        if details.external_scaler_enabled is False:
            raise ScalerError(f"Ray will refuse any number (412): {_ENABLE}")

    async def aclose(self) -> None:
        """See `ports.scalers.Scaler`."""
        await self._api.aclose()

    async def _read(self) -> ServeApplication:
        with as_scaler_errors(_REMEDIES):
            return (await read_applications(self._api)).named(self._application)

    def _status_of(self, application: ServeApplication) -> ScalerStatus:
        deployment = application.deployments.get(self._deployment)
        if deployment is None:
            raise ScalerError(
                f"the application {self._application} has no deployment {self._deployment}"
            )
        if deployment.replicas is None:
            raise ScalerError(f"Ray does not tell the replicas of {self._deployment}")
        target = deployment.target_num_replicas
        if target is None:
            target = len(deployment.replicas)
        return ScalerStatus(target=target, running=deployment.running, hides=True)
