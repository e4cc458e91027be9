"""The pages of all kinds of engines: which one a page is of, and what it should have and has not.

The prober asks what can be read of an engine, `lowtide doctor` whether a metric was renamed.
Invariant: a page that tells nothing that can be used is told by the name that it lacks.
"""

from collections.abc import Mapping
from typing import Final, Literal

from lowtide.engines.metrics import llamacpp, sglang, tgi, vllm
from lowtide.engines.metrics.exposition import Exposition, ReadMetric, missing_from

PageKind = Literal["vllm", "sglang", "tgi", "llamacpp"]

PAGES: Final[Mapping[PageKind, Exposition]] = {
    "vllm": vllm.PAGE,
    "sglang": sglang.PAGE,
    "tgi": tgi.PAGE,
    "llamacpp": llamacpp.PAGE,
}
"""What is read of each kind of engine."""

_SIGNS: Final[tuple[tuple[bytes, PageKind], ...]] = (
    (b"\nvllm:", "vllm"),
    (b"\nsglang:", "sglang"),
    (b"\nllamacpp:", "llamacpp"),
    (b"\ntgi_", "tgi"),
)


def kind_of_page(body: bytes) -> PageKind | None:
    """The kind of the engine that writes such metrics; None: none that is known."""
    page = b"\n" + body
    return next((kind for sign, kind in _SIGNS if sign in page), None)


def missing_metrics(body: bytes, kind: PageKind) -> tuple[ReadMetric, ...]:
    """The metrics that the page of such an engine should have, and this one has not."""
    page = PAGES[kind]
    return missing_from(page.read(body), page)
