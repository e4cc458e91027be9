"""The readers: a GET and a parse for each kind of engine; `ports.engine.MetricsReader`."""

from collections.abc import Callable
from typing import TypeVar

import msgspec

from lowtide.core.capacity.engine_metrics import EngineMetrics
from lowtide.core.faults.outcome import Reply
from lowtide.core.usage import UNREADABLE
from lowtide.engines.metrics import llamacpp
from lowtide.engines.metrics.exposition import Exposition, Samples
from lowtide.limits import CONTROL_READ_S
from lowtide.ports.engine import Engine

Kind = TypeVar("Kind")
MetricsOf = Callable[[Samples], EngineMetrics | None]


async def page_of(engine: Engine, path: str) -> bytes | None:
    """The body of a 200, else None."""
    answer = await engine.get(path, CONTROL_READ_S)
    return answer.body if isinstance(answer, Reply) and answer.status == 200 else None


async def json_of(engine: Engine, path: str, kind: type[Kind]) -> Kind | None:
    """A 200's JSON as that type; None when it is not there or is something else."""
    body = await page_of(engine, path)
    if body is None:
        return None
    try:
        return msgspec.json.decode(body, type=kind)
    except UNREADABLE:
        return None


class PageReader:
    """Reads an engine that reports everything at /metrics. `engine` has the URL without its /v1."""

    def __init__(
        self,
        engine: Engine,
        page: Exposition,
        metrics_of: MetricsOf,
    ) -> None:
        self._engine = engine
        self._page = page
        self._metrics_of = metrics_of

    async def read(self) -> EngineMetrics | None:
        body = await page_of(self._engine, "/metrics")
        return None if body is None else self._metrics_of(self._page.read(body))


class SlotsReader:
    """Reads a llama.cpp that was not started with --metrics."""

    def __init__(self, engine: Engine, props: llamacpp.LlamacppProps) -> None:
        self._engine = engine
        self._props = props

    async def read(self) -> EngineMetrics | None:
        slots = await json_of(self._engine, "/slots", list[llamacpp.Slot])
        return None if slots is None else llamacpp.metrics_of_slots(slots, self._props)
