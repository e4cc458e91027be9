"""The models that are known, and what changes when settings or engines do."""

from lowtide.core.accounts.catalogue import Catalogue, ModelEntry


def test_a_catalogue_is_exchanged_as_a_whole() -> None:
    catalogue = Catalogue([ModelEntry(id="a", aliases=("short",))])
    before = catalogue.names
    catalogue.adopt(Catalogue([ModelEntry(id="b")], served=()))
    assert (dict(catalogue.names), dict(catalogue.accepted)) == ({"b": "b"}, {})
    assert (list(catalogue.entries), list(catalogue.prices)) == (["b"], ["b"])
    assert before["short"] == "a", "who took the mapping before keeps a consistent view"
