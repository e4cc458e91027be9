"""Keeps the number of time series bounded, whatever names engines, models and clients bring.

Used by every module that fills metrics with names it did not choose. Invariant: one `Bounded` gives
at most `limits.METRIC_VALUES_MAX` values and `OTHER`; a value that was given once stays.
"""

from typing import Final

from lowtide import limits

OTHER: Final = "other"
"""Stands for all values above the bound."""


class Bounded:
    """The values of one label."""

    def __init__(self, values_max: int = limits.METRIC_VALUES_MAX) -> None:
        self._values_max = values_max
        self._values: set[str] = set()

    def of(self, value: str) -> str:
        """The value itself, while there is room for it."""
        if value in self._values:
            return value
        if len(self._values) >= self._values_max:
            return OTHER
        self._values.add(value)
        return value


REPLICAS: Final = Bounded()
"""The values of the label `replica`, for all metrics."""

MODELS: Final = Bounded()
"""The values of the label `model`, for all metrics."""

CODES: Final = Bounded(limits.METRIC_CODES_MAX)
"""The values of the label `code`: engines may make up codes of their own."""
