"""`GET /v1/admin/forecast`: what was learned of the week's hours, and the course of batches."""

from starlette.requests import Request
from starlette.responses import Response

from lowtide import limits
from lowtide.api.http.json_body import json_response
from lowtide.api.middleware.caller import services_of
from lowtide.api.objects.forecast import CourseObject, ForecastList, HourObject, ModelForecast
from lowtide.api.openapi.answers import answers
from lowtide.api.openapi.routes import Routes
from lowtide.service.batches.forecasts import Course, PoolForecast

routes = Routes("admin")


@routes.add("GET", "/v1/admin/forecast", answers(ForecastList))
async def forecast(request: Request) -> Response:
    """The learned capacity by hour of the week, and when the batches in progress will be done."""
    return json_response(await forecast_of(request))


async def forecast_of(request: Request) -> ForecastList:
    """The forecast of all models, a few seconds old at most."""
    at, forecasts = await services_of(request).forecasts.all()
    return ForecastList(at=at.timestamp(), data=[_model(each) for each in forecasts])


def _model(pool: PoolForecast) -> ModelForecast:
    return ModelForecast(
        model=pool.model,
        rate=None if pool.rate is None else round(pool.rate, 3),
        work_left=round(sum(each.work_left for each in pool.courses), 1),
        hours=[
            HourObject(hour=hour, p20=round(cell.p20, 3), p50=round(cell.p50, 3), weeks=cell.weeks)
            for hour, cell in sorted(pool.cells.items())
        ],
        batches=[_course(each) for each in pool.courses[: limits.FORECAST_BATCHES_SHOWN]],
    )


def _course(course: Course) -> CourseObject:
    return CourseObject(
        batch_id=course.batch_id,
        work_left=round(course.work_left, 1),
        is_paused=course.is_paused,
        deadline_at=course.deadline_at.timestamp(),
        end_at=course.end_at.timestamp() if course.end_at is not None else None,
        verdict=course.kept,
    )
