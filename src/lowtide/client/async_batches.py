"""`lowtide.AsyncClient`: `lowtide.Client` for programs that go on meanwhile.

Public. Each call is one of `Client`, made in a thread. Invariant: an iteration that is left, or a
call that is cancelled while it waits for a batch, stops waiting at once.
"""

import asyncio
import os
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from typing import Any, Final, Self, TypeVar, cast

from lowtide.client.batches import Client
from lowtide.client.objects import BatchInfo, RequestResult
from lowtide.client.stopping import ThreadStop, in_thread
from lowtide.core.batches.batch import InFlight
from lowtide.core.batches.retry import RetryOnly

_Item = TypeVar("_Item")
_END: Final = object()


class AsyncClient:
    """One server. An asynchronous context manager. Arguments and errors are those of `Client`."""

    def __init__(self, server: str | None = None, *, api_key: str | None = None) -> None:
        self._server = server
        self._api_key = api_key
        self._client = Client(server, api_key=api_key)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await asyncio.to_thread(self._client.close)

    async def models(self) -> tuple[str, ...]:
        return await asyncio.to_thread(self._client.models)

    async def submit(
        self,
        requests: str | os.PathLike[str] | Iterable[Mapping[str, Any]],
        *,
        endpoint: str | None = None,
        completion_window: str = "24h",
        metadata: Mapping[str, str] | None = None,
        model: str | None = None,
    ) -> BatchInfo:
        return await asyncio.to_thread(
            self._client.submit,
            requests,
            endpoint=endpoint,
            completion_window=completion_window,
            metadata=metadata,
            model=model,
        )

    async def get(self, batch: BatchInfo | str) -> BatchInfo:
        return await asyncio.to_thread(self._client.get, batch)

    async def list(self, limit: int = 20) -> tuple[BatchInfo, ...]:
        return await asyncio.to_thread(self._client.list, limit)

    async def cancel(self, batch: BatchInfo | str) -> BatchInfo:
        return await asyncio.to_thread(self._client.cancel, batch)

    async def wait(self, batch: BatchInfo | str, *, progress: bool = True) -> BatchInfo:
        stop = ThreadStop()
        with self._waiting(stop) as client:
            return await in_thread(lambda: client.wait(batch, progress=progress), stop)

    def watch(self, batch: BatchInfo | str) -> AsyncIterator[BatchInfo]:
        return self._iterate(lambda client: client.watch(batch))

    def results(
        self, batch: BatchInfo | str, *, with_retries: bool = False
    ) -> AsyncIterator[RequestResult]:
        return self._iterate(lambda client: client.results(batch, with_retries=with_retries))

    async def pause(self, batch: BatchInfo | str, *, in_flight: InFlight = "finish") -> BatchInfo:
        return await asyncio.to_thread(self._client.pause, batch, in_flight=in_flight)

    async def resume(self, batch: BatchInfo | str) -> BatchInfo:
        return await asyncio.to_thread(self._client.resume, batch)

    async def delete(self, batch: BatchInfo | str) -> None:
        await asyncio.to_thread(self._client.delete, batch)

    async def change(
        self,
        batch: BatchInfo | str,
        *,
        priority: int | None = None,
        completion_window: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> BatchInfo:
        return await asyncio.to_thread(
            self._client.change,
            batch,
            priority=priority,
            completion_window=completion_window,
            metadata=metadata,
        )

    async def retry(
        self,
        batch: BatchInfo | str,
        *,
        only: RetryOnly = "all_unsuccessful",
        codes: Sequence[str] = (),
        model: str | None = None,
        completion_window: str | None = None,
        priority: int | None = None,
    ) -> BatchInfo:
        return await asyncio.to_thread(
            self._client.retry,
            batch,
            only=only,
            codes=codes,
            model=model,
            completion_window=completion_window,
            priority=priority,
        )

    def _waiting(self, stop: ThreadStop) -> Client:
        """Opens a client of its own for one call that waits, and may be told to stop."""
        return Client(self._server, api_key=self._api_key, sleep=stop.pause)

    async def _iterate(self, begin: Callable[[Client], Iterator[_Item]]) -> AsyncGenerator[_Item]:
        stop = ThreadStop()
        with self._waiting(stop) as client:
            items = begin(client)

            while (item := await in_thread(lambda: next(items, _END), stop)) is not _END:
                yield cast(_Item, item)
