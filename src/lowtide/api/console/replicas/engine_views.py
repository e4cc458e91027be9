"""What the pages of engines show: their state, what each did over the last hours, and the week.

For administrators: engines have addresses. The history is that of
`GET /v1/admin/engines/{name}/history`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.requests import Request

from lowtide import limits
from lowtide.api.console.batches.batch_names import names_of
from lowtide.api.console.replicas.live_words import all_sentence, live_sentence
from lowtide.api.middleware.caller import identify, require, services_of
from lowtide.api.objects.engines import EngineList, EngineObject
from lowtide.api.objects.forecast import ModelForecast
from lowtide.api.objects.history import EngineHistoryObject
from lowtide.api.plots.engine_plot import engine_plot
from lowtide.api.plots.week_plot import course_plot, week_plot
from lowtide.api.replicas.engine_history import histories_of, live_calls_of
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
    engines: Sequence[EngineObject] = context["engines"]
    names = sorted({each.name for each in engines})
    few, hours = names[: limits.CONSOLE_ENGINES_DRAWN], context["hours"]
    live_of, together = await live_calls_of(request, names, hours)
    histories = await histories_of(request, few, hours)
    targets_s = {
        each.name: each.load.live_target_s
        for each in engines
        if each.load is not None and each.load.live_target_s is not None
    }
    drawn = [_drawn(each, targets_s.get(each.name)) for each in histories]
    seconds = max((each["seconds"] for each in drawn), default=0)
    has_sum = len(names) > 1 and seconds > 0
    return {
        "drawn": drawn,
        "undrawn": len(names) - len(few),
        "all_live": all_sentence(together, live_of, targets_s, seconds) if has_sum else None,
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
    names = await _names(request, forecast.data)
    return {
        "at": forecast.at,
        "names": names,
        "models": [_week(each, forecast.at, names) for each in forecast.data],
    }


async def _names(request: Request, models: Sequence[ModelForecast]) -> dict[str, str]:
    """The names of the batches that are drawn, of those of the caller's project: their pages are
    open to it.
    """
    drawn = [
        each.batch_id for model in models for each in model.batches[: limits.CONSOLE_COURSES_DRAWN]
    ]
    own = await services_of(request).batches.get_many(identify(request).project_id, drawn)
    return await names_of(request, list(own.values()))


def _week(model: ModelForecast, at: float, names: Mapping[str, str]) -> dict[str, Any]:
    drawn = model.batches[: limits.CONSOLE_COURSES_DRAWN]
    return {
        "its": model,
        "rate": model.rate,
        "week": week_plot(model.hours, at),
        "most": max((each.p50 for each in model.hours), default=None),
        "courses": course_plot(drawn, at, names) if drawn else None,
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


def _drawn(history: EngineHistoryObject, target_s: float | None) -> dict[str, Any]:
    """The plots of one engine, and sums over the time that they show. `target_s`: how soon a live
    call should begin there; None: no target is set."""
    plots = engine_plot(history.data)
    shown = plots.shown if plots is not None else ()
    seconds = sum(each.seconds for each in shown)
    tokens = sum(each.input_tokens + each.output_tokens for each in shown)
    return {
        "name": history.name,
        "plots": plots,
        "seconds": seconds,
        "live": live_sentence(history.live, seconds, target_s),
        "live_streams": history.live.streams,
        "tokens_per_s": tokens / seconds if seconds else 0.0,
    }
