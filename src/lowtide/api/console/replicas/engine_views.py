"""What the pages of engines show: their state, what each did over the last hours, and the week.

For administrators: engines have addresses. The history is that of
`GET /v1/admin/engines/{name}/history`.
"""

from collections.abc import Sequence
from typing import Any, Final

from starlette.requests import Request

from lowtide import limits
from lowtide.api.middleware.caller import identify, require
from lowtide.api.objects.engines import EngineList, EngineObject
from lowtide.api.objects.forecast import ModelForecast
from lowtide.api.objects.history import EngineSpanObject
from lowtide.api.plots.engine_plot import engine_plot
from lowtide.api.plots.week_plot import course_plot, week_plot
from lowtide.api.replicas.engine_history import histories_of
from lowtide.api.replicas.engines import TAKES_CALLS, engines_named, engines_of
from lowtide.api.replicas.forecast import forecast_of

HOURS: Final = (1, 6, 36)
"""The times that a page of one engine can show."""


async def load_engines(request: Request) -> dict[str, Any]:
    """Every replica, as the worker that has it reports it."""
    require(identify(request), ("admin",))
    engines = await engines_of(request)
    return {**_shown(engines, engines.data), "hours": 1}


async def load_drawn(request: Request, context: dict[str, Any]) -> dict[str, Any]:
    """The last hours of the engines that the page shows, of some of many."""
    names = sorted({each.name for each in context["engines"]})
    few = names[: limits.CONSOLE_ENGINES_DRAWN]
    histories = await histories_of(request, few, context["hours"])
    return {
        "drawn": [_drawn(name, histories[name]) for name in few],
        "undrawn": len(names) - len(few),
    }


async def load_engine(request: Request, name: str) -> dict[str, Any]:
    """One replica. Raises LowtideError `not_found`."""
    require(identify(request), ("admin",))
    engines = await engines_of(request)
    these = engines_named(engines, name)
    asked = request.query_params.get("hours", "")
    hours = next((each for each in HOURS if str(each) == asked), HOURS[0])
    return {**_shown(engines, these), "name": name, "hours": hours, "choices": HOURS}


async def load_week(request: Request) -> dict[str, Any]:
    """The learned capacity of each model by hour of the week, and the course of its batches."""
    require(identify(request), ("admin",))
    forecast = await forecast_of(request)
    return {"at": forecast.at, "models": [_week(each, forecast.at) for each in forecast.data]}


def _week(model: ModelForecast, at: float) -> dict[str, Any]:
    drawn = model.batches[: limits.CONSOLE_COURSES_DRAWN]
    return {
        "its": model,
        "rate": model.rate,
        "week": week_plot(model.hours, at),
        "courses": course_plot(drawn, at) if drawn else None,
        "batches": drawn,
        "undrawn": len(model.batches) - len(drawn),
        "foreseen": [each for each in drawn if each.end_at is not None],
    }


def _shown(listed: EngineList, engines: Sequence[EngineObject]) -> dict[str, Any]:
    return {
        "engines": engines,
        "workers": [each for each in listed.workers if not each.is_gone],
        "gone": [each for each in listed.workers if each.is_gone],
        "sources": listed.sources,
        "scalers": listed.scalers,
        "ready": sum(each.condition in TAKES_CALLS for each in engines),
    }


def _drawn(name: str, spans: Sequence[EngineSpanObject]) -> dict[str, Any]:
    """The plots of one engine, and sums over the time that they show."""
    plots = engine_plot(spans)
    shown = plots.shown if plots is not None else ()
    seconds = sum(each.seconds for each in shown)
    tokens = sum(each.input_tokens + each.output_tokens for each in shown)
    return {
        "name": name,
        "plots": plots,
        "seconds": seconds,
        "live_streams": sum(each.live_streams for each in shown),
        "taken_back": sum(each.taken_back for each in shown),
        "gave_way_s": sum(each.gave_way_s for each in shown),
        "tokens_per_s": tokens / seconds if seconds else 0.0,
    }
