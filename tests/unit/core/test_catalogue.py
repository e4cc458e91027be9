"""The models that are known, and what changes when settings or engines do."""

from decimal import Decimal

import pytest

from lowtide.core.catalogue import Catalogue, ModelEntry
from lowtide.core.money import PriceError


def test_a_catalogue_is_replaced_as_a_whole_or_not_at_all() -> None:
    catalogue = Catalogue([ModelEntry(id="a", aliases=("short",))])
    before = catalogue.names
    catalogue.replace([ModelEntry(id="b")], served=())
    assert (dict(catalogue.names), dict(catalogue.accepted)) == ({"b": "b"}, {})
    assert before["short"] == "a", "who took the mapping before keeps a consistent view"
    with pytest.raises(PriceError, match="c:"):
        catalogue.replace([ModelEntry(id="c", input_price=Decimal(-1))])
    assert list(catalogue.entries) == ["b"]
