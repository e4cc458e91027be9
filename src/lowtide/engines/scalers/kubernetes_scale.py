"""A Deployment of Kubernetes as a scaler: its `scale` is read and patched, and nothing else of it.

Invariant: the only field that is ever written is `spec.replicas` of the one Deployment that the
settings name.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

import msgspec

from lowtide.core.replicas.scaler_asks import ScalerStatus
from lowtide.engines.scalers.places import as_scaler_errors
from lowtide.engines.sources.json_http import JsonApi
from lowtide.ports.scalers import ScalerError

_MERGE: Final = "application/merge-patch+json"
_REMEDIES: Final[Mapping[int, str]] = {
    HTTPStatus.FORBIDDEN: "the service account may get and patch deployments/scale?",
    HTTPStatus.UNAUTHORIZED: "the token is that of a service account of this cluster?",
    HTTPStatus.NOT_FOUND: "namespace and deployment are right?",
}


class _Replicas(msgspec.Struct, frozen=True):
    """`spec` or `status` of a Scale. A zero may be left out there (omitempty)."""

    replicas: int = 0


class _Scale(msgspec.Struct, frozen=True):
    """autoscaling/v1 Scale, as far as it counts here."""

    kind: str
    spec: _Replicas = _Replicas()
    status: _Replicas = _Replicas()


class DeploymentScale:
    """Adapter of `ports.scalers.Scaler` for one Deployment."""

    def __init__(self, api: JsonApi, namespace: str, deployment: str) -> None:
        self._api = api
        place = f"namespaces/{quote(namespace, '')}/deployments/{quote(deployment, '')}"
        self._path = f"/apis/apps/v1/{place}/scale"

    async def read(self) -> ScalerStatus:
        """See `ports.scalers.Scaler`."""
        with as_scaler_errors(_REMEDIES):
            scale = _scale_of(await self._api.get(self._path))
        return ScalerStatus(target=scale.spec.replicas, running=scale.status.replicas)

    async def ask(self, replicas: int) -> None:
        """See `ports.scalers.Scaler`."""
        await self._patch(replicas)

    async def check(self) -> None:
        """Patches the number that is there to the same one, as a dry run of the API server's."""
        await self._patch((await self.read()).target, dryRun="All")

    async def aclose(self) -> None:
        """See `ports.scalers.Scaler`."""
        await self._api.aclose()

    async def _patch(self, replicas: int, **query: str) -> None:
        body = {"spec": {"replicas": replicas}}
        with as_scaler_errors(_REMEDIES):
            scale = _scale_of(await self._api.send("PATCH", self._path, body, _MERGE, **query))
        if scale.spec.replicas != replicas:
            raise ScalerError(f"{self._path}: asked for {replicas}, it took {scale.spec.replicas}")


def _scale_of(answer: Any) -> _Scale:
    """Raises ScalerError."""
    try:
        scale = msgspec.convert(answer, _Scale)
    except msgspec.ValidationError as error:
        raise ScalerError(f"the scale of the Deployment makes no sense: {error}") from None
    if scale.kind != "Scale":
        raise ScalerError(f"the API server answers with kind {scale.kind} and not with a Scale")
    return scale
