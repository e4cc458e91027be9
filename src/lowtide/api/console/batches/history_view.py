"""How a batch went, as its page shows it: plots over time, and what happened to it in words.

Each part of the page that shows some of it loads that alone, and seldom enough. What is shown is
what `GET /v1/batches/{id}/history`, `/events` and `/parts` answer.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final

from markupsafe import Markup
from starlette.requests import Request

from lowtide import limits
from lowtide.api.batches.history import events_of, parts_of, rates_of
from lowtide.api.console.batches.batch_rows import Context
from lowtide.api.middleware.caller import services_of
from lowtide.api.objects.history import BatchEventObject, BatchParts, RateObject
from lowtide.api.plots.batch_plot import batch_plot
from lowtide.api.plots.strip_plot import strip_plot
from lowtide.core.batches.batch import Batch
from lowtide.core.history.batch_events import OPERATOR, SERVER, USER

_KINDS: Final = MappingProxyType(
    {
        "created": "Created",
        "queued": "Validated; it waits for enqueued tokens",
        "started": "Input is valid, requests may run",
        "first_result": "First result",
        "paused": "Paused",
        "resumed": "Resumed",
        "changed": "Changed",
        "cancel_asked": "Cancelled by request",
        "worker_lost": "A worker was lost; its requests run again",
        "input_lost": "The input could not be read any more",
        "results_lost": "Results were lost; their requests run again",
        "settled": "All requests ended, results are written",
        "window_over": "The completion window ended, what is done is written",
        "completed": "Completed",
        "failed": "Failed",
        "expired": "Expired",
        "cancelled": "Cancelled",
    }
)
_BAD: Final = frozenset(
    {"worker_lost", "input_lost", "results_lost", "window_over", "failed", "expired", "cancelled"}
)


class EventsOfLook:
    """The events of the batch that a page shows, read once for all of its parts."""

    def __init__(self, request: Request, batch: Batch) -> None:
        self._request = request
        self._batch = batch
        self._events: Sequence[BatchEventObject] | None = None

    async def get(self) -> Sequence[BatchEventObject]:
        """The first first. Raises StoreError."""
        if self._events is None:
            self._events = await events_of(self._request, self._batch)
        return self._events


async def load_plots(request: Request, context: Context) -> Context:
    """The plots of the batch that the page shows."""
    batch: Batch = context["stored"]
    rates, events = await rates_of(request, batch), await context["its_events"].get()
    gave_way = await _gave_way(request, batch)
    return {
        "plots": batch_plot(context["batch"], rates, events, gave_way),
        "pace": pace_of(rates),
    }


async def load_events(_: Request, context: Context) -> Context:
    """What happened to it, the last first."""
    events = await context["its_events"].get()
    return {"events": [event_row(each) for each in reversed(events)]}


async def load_strip(request: Request, context: Context) -> Context:
    """The strip of its parts."""
    parts = await parts_of(request, context["stored"])
    return {"strip": _strip(request, parts), "strip_has_lines": parts.in_input_order}


def age_of_strip(context: Context) -> float:
    """Seconds between two strips: each is counted from all chunks of the batch."""
    if context["has_ended"]:
        return limits.CONSOLE_ENDED_REFRESH_S
    chunks = context["counts"].total / limits.CHUNK_REQUESTS_MAX
    return float(chunks / limits.CONSOLE_STRIP_CHUNKS_PER_S)


def _strip(request: Request, parts: BatchParts) -> Markup | None:
    """The parts as cells; None where one part says no more than the bar of requests."""
    if len(parts.data) < 2:
        return None
    base = services_of(request).settings.server.path_prefix
    lines = f"{base}/console/batches/{parts.batch_id}/lines"
    return strip_plot(parts.data, lines if parts.in_input_order else None)


async def _gave_way(request: Request, batch: Batch) -> list[tuple[float, float]]:
    """When engines that serve its models gave live calls the room while it ran, in Unix seconds."""
    services = services_of(request)
    yielded = await services.history.gave_way(batch, await services.standings.reports())
    return [(since.timestamp(), until.timestamp()) for since, until in yielded]


def pace_of(rates: Sequence[RateObject]) -> dict[str, float]:
    """The mean of the whole time, and of the last whole bucket."""
    if not rates:
        return {}
    seconds = sum(each.seconds for each in rates)
    last = rates[-2] if len(rates) > 1 else rates[-1]
    return {
        "requests": sum(each.completed + each.failed for each in rates) / seconds,
        "tokens": sum(each.input_tokens + each.output_tokens for each in rates) / seconds,
        "requests_now": last.requests_per_s,
        "tokens_now": last.tokens_per_s,
    }


def event_row(event: BatchEventObject) -> dict[str, Any]:
    return {
        "at": datetime.fromtimestamp(event.at, UTC),
        "words": _KINDS.get(event.kind, event.kind),
        "by": _by(event.actor),
        "key": event.actor if event.actor not in (USER, OPERATOR, SERVER) else "",
        "detail": event.detail,
        "is_bad": event.kind in _BAD,
    }


def _by(actor: str) -> str:
    """Who did it, where it was a person."""
    return {OPERATOR: "by the operator", SERVER: "", USER: ""}.get(actor, "by")
