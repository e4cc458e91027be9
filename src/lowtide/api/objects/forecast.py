"""The week ahead of each model, as `GET /v1/admin/forecast` shows it. No vendor has it."""

from typing import Literal

import msgspec


class HourObject(msgspec.Struct, frozen=True, kw_only=True):
    """What a pool gets done for batches in one hour of the week, learned over `weeks` of them while
    batches waited. `hour` counts from Monday at midnight UTC. Work units a second: an input token
    is one, an output token more. `p20` is reached in four weeks of five.
    """

    hour: int
    p20: float
    p50: float
    weeks: int


class CourseObject(msgspec.Struct, frozen=True, kw_only=True):
    """A batch in progress: when it will be done if nothing else comes, in Unix seconds, null where
    that is not foreseeable; `verdict` as in a batch's `feasibility`, of this model's part.
    """

    batch_id: str
    work_left: float
    is_paused: bool
    deadline_at: float
    end_at: float | None
    verdict: str


class ModelForecast(msgspec.Struct, frozen=True, kw_only=True):
    """`rate`: work units a second foreseen for the rest of this hour; null while nothing is
    known. `hours`: those that were learned. `batches`: those due first, first.
    """

    object: Literal["model.forecast"] = "model.forecast"
    model: str
    rate: float | None
    work_left: float
    hours: list[HourObject]
    batches: list[CourseObject]


class ForecastList(msgspec.Struct, frozen=True, kw_only=True):
    """All models of which something was learned or for which batches wait, by name."""

    object: Literal["list"] = "list"
    at: float
    data: list[ModelForecast]
