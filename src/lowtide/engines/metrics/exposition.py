"""The text format of Prometheus, as far as a reader needs it: some metrics out of very many.

An engine's page has thousands of lines and is read twice a second, so one regular expression picks
the wanted lines and the rest is never looked at in Python. What cannot be a number is left out: a
page that is half written or wrong gives fewer samples, never an error.
"""

import math
import re
from collections.abc import Callable, Sequence

import msgspec

from lowtide.core.capacity.engine_metrics import Buckets

Labels = dict[str, str]

_LABELS = rb'\{(?:[^"{}]|"(?:[^"\\]|\\.)*")*\}'
_LABEL = re.compile(rb'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"')


class Samples:
    """The samples of one page, by metric name without `_total`."""

    def __init__(self) -> None:
        self._series: dict[str, list[tuple[Labels, float]]] = {}

    def add(self, name: str, labels: Labels, value: float) -> None:
        self._series.setdefault(name, []).append((labels, value))

    def series(self, *names: str) -> list[tuple[Labels, float]]:
        """All samples of the first of these metrics that the page has."""
        return next((self._series[name] for name in names if name in self._series), [])

    def total(self, *names: str) -> float | None:
        """Their sum: one sample for each engine behind a URL that stands for several."""
        values = [value for _, value in self.series(*names)]
        return sum(values) if values else None

    def count(self, *names: str) -> int | None:
        """`total` of things that come whole."""
        total = self.total(*names)
        return None if total is None else max(0, int(total))

    def mean(self, *names: str) -> float | None:
        values = [value for _, value in self.series(*names)]
        return sum(values) / len(values) if values else None

    def buckets(self, *names: str) -> Buckets:
        """A histogram, the samples of several engines added up."""
        sums: dict[float, float] = {}
        for labels, value in self.series(*(f"{name}_bucket" for name in names)):
            bound = _number(labels.get("le", "").encode())
            if bound is not None:
                sums[bound] = sums.get(bound, 0.0) + value
        return tuple(sorted(sums.items())) if math.inf in sums else ()

    def keep(self, wanted: Callable[[Labels], bool]) -> None:
        """Drops the samples whose labels are not wanted."""
        for name, series in self._series.items():
            self._series[name] = [sample for sample in series if wanted(sample[0])]


class ReadMetric(msgspec.Struct, frozen=True):
    """A metric that is read: its names, the present one first, and what Lowtide does with it.
    `is_key`: without it the page tells nothing. `is_always`: it is on every page; others come with
    the first event that they count, or with a newer engine.
    """

    names: tuple[str, ...]
    use: str
    is_key: bool = False
    is_always: bool = True

    def is_on(self, samples: "Samples") -> bool:
        """Whether the page has it, under any of its names."""
        return bool(samples.series(*self.names))


class Exposition:
    """Reads pages for a fixed set of metrics, histograms by their names with `_bucket`. No other
    metric is read than those of `wanted`.
    """

    def __init__(self, wanted: Sequence[ReadMetric]) -> None:
        self.wanted = wanted
        names = [name for each in wanted for name in each.names]
        any_of = b"|".join(re.escape(name).encode() for name in names)
        self._line = re.compile(
            rb"^(" + any_of + rb")(?:_total)?(" + _LABELS + rb")?[ \t]+(\S+)", re.MULTILINE
        )

    def read(self, page: bytes) -> Samples:
        samples = Samples()
        for name, labels, text in self._line.findall(page):
            value = _number(text)
            if value is not None and value != math.inf:
                samples.add(name.decode(), _labels(labels), value)
        return samples


def missing_from(samples: Samples, page: Exposition) -> tuple[ReadMetric, ...]:
    """The metrics that every page should have, and this one has not: renamed, perhaps."""
    return tuple(each for each in page.wanted if each.is_always and not each.is_on(samples))


def _labels(text: bytes) -> Labels:
    return {name.decode(): value.decode("utf-8", "replace") for name, value in _LABEL.findall(text)}


def _number(text: bytes) -> float | None:
    """None for what is no number, and for NaN, which says that nothing was measured."""
    try:
        value = float(text)
    except ValueError:
        return None
    return None if math.isnan(value) else value
