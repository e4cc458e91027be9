"""Hours of the day for batch work: those of `[dispatch]`, and each model's own."""

from collections.abc import Iterable, Iterator, Sequence
from zoneinfo import ZoneInfo

from lowtide.config.models import ModelSettings
from lowtide.config.problems import Problem
from lowtide.config.sections import DispatchSettings
from lowtide.core.scheduling.operating_hours import OperatingHours, hours_of


def problems_of(dispatch: DispatchSettings, models: Sequence[ModelSettings]) -> Iterator[Problem]:
    """Time zones that are not there, and hours that are none."""
    zone = dispatch.timezone
    try:
        ZoneInfo(zone)
    except (KeyError, ValueError, OSError):  # no such zone, or no name of one
        yield Problem(
            ("dispatch", "timezone"),
            f"{zone!r}: there is no such time zone here. Use a name such as 'Europe/Berlin'; where"
            " the system has none, install the package tzdata.",
        )
        return
    given = [(("dispatch", "hours"), dispatch.hours)] if dispatch.hours is not None else []
    paths: list[tuple[tuple[str | int, ...], str]] = [*given]
    paths += [(("model", n, "hours"), m.hours) for n, m in enumerate(models) if m.hours is not None]
    for path, words in paths:
        try:
            hours_of(words, zone)
        except ValueError as error:
            yield Problem(path, str(error))


def hours_by_model(
    dispatch: DispatchSettings, models: Iterable[ModelSettings], ids: Iterable[str]
) -> dict[str, OperatingHours]:
    """Hours of those models of `ids` that have any."""
    own = {model.id: model.hours for model in models}
    words = {model: own.get(model) or dispatch.hours for model in ids}
    zone = dispatch.timezone
    return {model: hours_of(hours, zone) for model, hours in words.items() if hours is not None}
