"""Which models are known and served, from settings, engines' lists and what was seen."""

from lowtide import limits
from lowtide.core.accounts.catalogue import ModelEntry
from lowtide.core.replicas.served_models import Offer, served_models

LLAMA = ModelEntry(id="meta/llama", aliases=("llama",), engine_name="llama3:8b")


def test_a_replica_serves_models_by_id_alias_and_names_of_its_own() -> None:
    found = served_models(
        [LLAMA], [Offer(("llama", "other")), Offer((), {"llama": "l.gguf", "new": "n.gguf"})]
    )
    assert found.engine_names == (
        {"meta/llama": "llama3:8b", "other": "other"},
        {"meta/llama": "l.gguf", "new": "n.gguf"},
    )
    assert [entry.id for entry in found.entries] == ["meta/llama", "other", "new"]
    assert found.models == {"meta/llama", "other", "new"}


def test_what_an_engine_lists_is_served_only_where_it_is_asked() -> None:
    asked, not_asked = Offer(("*",), listed=("a", "b")), Offer(("a",), listed=("a", "b"))
    assert served_models([], [asked]).engine_names == ({"a": "a", "b": "b"},)
    assert served_models([], [not_asked]).engine_names == ({"a": "a"},)


def test_a_listed_name_is_the_model_of_the_entry_that_names_or_calls_it_so() -> None:
    twin = ModelEntry(id="twin", engine_name="llama3:8b")
    plain = ModelEntry(id="plain", aliases=("p",))
    found = served_models([LLAMA, twin, plain], [Offer(("*",), listed=("llama3:8b", "p"))])
    assert found.engine_names == ({"meta/llama": "llama3:8b", "twin": "llama3:8b", "plain": "p"},)
    assert len(found.entries) == 3


def test_a_listed_name_that_has_a_public_one_is_known_by_that_alone() -> None:
    found = served_models([], [Offer(("*",), {"public": "engine/x"}, ("engine/x", "y"))])
    assert found.engine_names == ({"public": "engine/x", "y": "y"},)


def test_models_stay_known_when_nothing_serves_them_any_more() -> None:
    found = served_models([LLAMA], [], ["adapter", "llama"])
    assert [entry.id for entry in found.entries] == ["meta/llama", "adapter"]
    assert found.models == frozenset()


def test_no_more_of_a_list_is_taken_than_the_bound() -> None:
    listed = tuple(f"m{n}" for n in range(limits.MODELS_LISTED_MAX + 5))
    (names,) = served_models([], [Offer(("*",), listed=listed)]).engine_names
    assert len(names) == limits.MODELS_LISTED_MAX
