"""Engines from Kubernetes: the ready pods of a Service, by its EndpointSlices.

The first reading lists the slices; the later ones wait for what the API server tells of their
changes (a watch), and answer with the whole list. Invariants: a watch that ends or breaks goes on
from the last version that was seen; where the server has forgotten that one (410), the slices are
listed anew; a Service that has no slice at all is a SourceError, for it is not there.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx
import msgspec

from lowtide import limits
from lowtide.core.replicas.endpoint_slices import (
    EndpointSlice,
    engines_of_slices,
    in_order,
    port_of,
)
from lowtide.core.replicas.found_engines import FoundEngine
from lowtide.engines.sources.json_http import JsonApi, StatusError
from lowtide.ports.sources import Listing, SourceError

_INSIDE_URL: Final = "https://kubernetes.default.svc"
"""The API server, as every pod reaches it."""

_SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds token, certificate and namespace of its service account."""


def open_api(url: str | None, token_file: Path | None, ca_file: Path | None) -> JsonApi:
    """The API server. `url` None: that of the cluster in which this process runs, with the token
    and the certificate of its service account unless others are named.
    """
    account = _SERVICE_ACCOUNT if url is None else None
    return JsonApi(
        url or _INSIDE_URL,
        token_file=token_file or (account and account / "token"),
        ca_file=ca_file or (account and account / "ca.crt"),
    )


class _VersionGone(Exception):
    """The server has forgotten the version from which changes were to be told."""


class Event(msgspec.Struct, frozen=True):
    """One line of a watch."""

    type: str = ""
    object: Any = None


class ServiceEndpoints:
    """Adapter of `ports.sources.EngineSource` for one Service."""

    def __init__(
        self,
        api: JsonApi,
        namespace: str,
        service: str,
        *,
        port: int | str | None = None,
        by_service: bool = False,
    ) -> None:
        """`by_service`: pods cannot be called by their addresses (a service mesh), so the Service
        is one engine, there while one of its pods is.
        """
        self._api = api
        self._namespace = namespace
        self._service = service
        self._port = port
        self._by_service = by_service
        self._slices: dict[str, EndpointSlice] | None = None
        self._version = ""
        self._events: AsyncGenerator[Event, None] | None = None

    async def read(self) -> Listing:
        """See `ports.sources.EngineSource`."""
        try:
            if self._slices is None:
                await self._list()
                return Listing(self._engines(), 0.0)
            before = self._engines()
            while await self._follow():
                if (engines := self._engines()) != before:
                    return Listing(engines, 0.0)
            return Listing(self._engines(), limits.SOURCE_AGAIN_S)
        except BaseException:
            self._slices = None  # the next reading lists anew: a change may have been lost
            await self._unfollow()
            raise

    async def aclose(self) -> None:
        """See `ports.sources.EngineSource`."""
        await self._unfollow()
        await self._api.aclose()

    @property
    def _path(self) -> str:
        return f"/apis/discovery.k8s.io/v1/namespaces/{quote(self._namespace, '')}/endpointslices"

    @property
    def _selector(self) -> str:
        return f"kubernetes.io/service-name={self._service}"

    def _engines(self) -> tuple[FoundEngine, ...]:
        """Raises SourceError."""
        slices = list((self._slices or {}).values())
        if not slices:
            raise SourceError(
                f"Service {self._service} is not there in namespace {self._namespace}:"
                " it has no EndpointSlice"
            )
        try:
            port = port_of(slices, self._port)
        except ValueError as error:
            raise SourceError(f"Service {self._service} {error}") from None
        engines = () if port is None else engines_of_slices(slices, self._namespace, port)
        if not (engines and self._by_service):
            return engines
        host = f"{self._service}.{self._namespace}.svc"
        return (FoundEngine(f"{self._namespace}/{self._service}", host, engines[0].port),)

    async def _list(self) -> None:
        await self._unfollow()
        answer = await self._api.get(self._path, labelSelector=self._selector)
        try:
            items = msgspec.convert(answer["items"], list[EndpointSlice])
            version = str(answer["metadata"]["resourceVersion"])
        except (msgspec.ValidationError, KeyError, TypeError) as error:
            raise SourceError(f"the list of EndpointSlices makes no sense: {error}") from None
        named = {each.metadata.name: each for each in items}
        self._slices = {each.metadata.name: each for each in in_order(named)}
        self._version = version

    async def _follow(self) -> bool:
        """Takes over the next change. False: the watch has ended, and is to be begun again."""
        if self._events is None:
            self._events = self._watch()
        try:
            event = await anext(self._events, None)
            if event is not None:
                self._take(event)
                return True
        except _VersionGone:
            await self._list()
        await self._unfollow()
        return False

    def _take(self, event: Event) -> None:
        assert self._slices is not None, "listed before"
        if event.type == "ERROR":
            status = event.object if isinstance(event.object, dict) else {}
            if status.get("code") == HTTPStatus.GONE:
                raise _VersionGone
            raise SourceError(f"the watch failed: {status.get('message', 'no reason given')}")
        try:
            changed = msgspec.convert(event.object, EndpointSlice)
        except msgspec.ValidationError as error:
            raise SourceError(f"a change makes no sense: {error}") from None
        self._version = changed.metadata.resource_version or self._version
        if event.type == "BOOKMARK":
            return
        self._slices.pop(changed.metadata.name, None)
        if event.type != "DELETED":
            self._slices[changed.metadata.name] = changed  # last: it has changed last

    async def _watch(self) -> AsyncGenerator[Event, None]:
        """The events from the last version on. Raises SourceError."""
        opened = self._api.opened(
            self._path,
            limits.SOURCE_WATCH_S + limits.SOURCE_READ_S,
            labelSelector=self._selector,
            resourceVersion=self._version,
            watch="true",
            allowWatchBookmarks="true",
            timeoutSeconds=f"{limits.SOURCE_WATCH_S:.0f}",
        )
        try:
            async with opened as response:
                async for line in _lines(response):
                    try:
                        yield msgspec.json.decode(line, type=Event)
                    except (msgspec.DecodeError, UnicodeDecodeError):
                        raise SourceError("the watch sends no JSON") from None
        except StatusError as error:
            if error.status == HTTPStatus.GONE:
                raise _VersionGone from None
            raise

    async def _unfollow(self) -> None:
        events, self._events = self._events, None
        if events is not None:
            await events.aclose()


async def _lines(response: httpx.Response) -> AsyncIterator[bytes]:
    """The lines of a stream, each within a bound. A stream that breaks ends: what it would have
    told comes again from the last version on. A line that was cut is left out.
    """
    rest = b""
    with suppress(httpx.HTTPError):
        async for piece in response.aiter_bytes():
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                if line.strip():
                    yield line
            if len(rest) > limits.SOURCE_BYTES_MAX:
                raise SourceError("the watch sends a line that is too long")
