"""Every name that is read is on the pages that engines show, and one that was renamed is told."""

import engine_pages
import pytest

from lowtide.engines.metrics.exposition import ReadMetric
from lowtide.engines.metrics.pages import PAGES, PageKind, kind_of_page, missing_metrics

SHOWN: dict[PageKind, bytes] = {
    "vllm": engine_pages.VLLM,
    "sglang": engine_pages.SGLANG,
    "tgi": engine_pages.TGI,
    "llamacpp": engine_pages.LLAMACPP,
}
READ = [(kind, each) for kind, page in PAGES.items() for each in page.wanted]


def renamed(kind: PageKind, metric: ReadMetric) -> bytes:
    page = SHOWN[kind]
    for name in metric.names:
        page = page.replace(f"\n{name}".encode(), f"\n{name}_new".encode())
        if page.startswith(name.encode()):
            page = b"\n" + page.replace(name.encode(), f"{name}_new".encode(), 1)
    return page


@pytest.mark.parametrize("kind", PAGES)
def test_a_page_as_engines_show_it_lacks_nothing(kind: PageKind) -> None:
    assert kind_of_page(SHOWN[kind]) == kind
    assert missing_metrics(SHOWN[kind], kind) == ()
    assert sum(each.is_key for each in PAGES[kind].wanted) == 1


@pytest.mark.parametrize(
    ("kind", "metric"), [(kind, each) for kind, each in READ if each.is_always]
)
def test_each_metric_that_was_renamed_is_told(kind: PageKind, metric: ReadMetric) -> None:
    page = renamed(kind, metric)
    assert metric in missing_metrics(page, kind)
    assert kind_of_page(page) == kind


def test_a_page_of_no_engine_has_no_kind() -> None:
    assert kind_of_page(b"python_gc_objects 3\n# vllm: a comment\n") is None
