"""Hours of the day for batch work: those of `[dispatch]`, and each model's own."""

from collections.abc import Iterable, Iterator, Sequence

from lowtide.config.models import ModelSettings
from lowtide.config.problems import Problem
from lowtide.config.sections import DispatchSettings
from lowtide.core.scheduling.operating_hours import OperatingHours


def problems_of(dispatch: DispatchSettings, models: Sequence[ModelSettings]) -> Iterator[Problem]:
    """Time zones that are not there, and hours that are none."""
    try:
        _ = dispatch.zone
    except (KeyError, ValueError, OSError):  # no such zone, or no name of one
        yield Problem(
            ("dispatch", "timezone"),
            f"{dispatch.timezone!r}: there is no such time zone here. Use a name such as"
            " 'Europe/Berlin'; where the system has none, install the package tzdata.",
        )
        return
    places: list[tuple[tuple[str | int, ...], DispatchSettings | ModelSettings]] = [
        (("dispatch", "hours"), dispatch),
        *((("model", number, "hours"), model) for number, model in enumerate(models)),
    ]
    for path, section in places:
        try:
            _ = section.span
        except ValueError as error:
            yield Problem(path, str(error))


def hours_by_model(
    dispatch: DispatchSettings, models: Iterable[ModelSettings], ids: Iterable[str]
) -> dict[str, OperatingHours]:
    """Hours of those models of `ids` that have any."""
    own = {model.id: model.span for model in models}
    spans = {model: own.get(model) or dispatch.span for model in ids}
    return {
        model: OperatingHours(*span, dispatch.zone)
        for model, span in spans.items()
        if span is not None
    }
