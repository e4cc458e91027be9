"""The memory of a running process."""

import gc
from collections.abc import Iterator

import pytest

from lowtide.system import GC_THRESHOLDS, spare_collections, without_collections


@pytest.fixture
def thresholds_kept() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


@pytest.mark.usefixtures("thresholds_kept")
def test_what_start_up_made_is_in_no_collection_any_more_and_later_garbage_is() -> None:
    made_before = [object() for _ in range(10)]
    spare_collections()
    assert gc.get_freeze_count() > 0
    assert gc.get_threshold()[0] == GC_THRESHOLDS[0]
    assert gc.isenabled()
    cycle: list[object] = [made_before]
    cycle.append(cycle)
    del cycle
    assert gc.collect() >= 1, "garbage made later is still found"


@pytest.mark.usefixtures("thresholds_kept")
def test_what_imports_made_is_in_no_collection() -> None:
    frozen = gc.get_freeze_count()
    with without_collections():
        assert not gc.isenabled()
        made: list[object] = [[] for _ in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() >= frozen + len(made)
