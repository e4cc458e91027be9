"""From one list of replicas to the next."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowtide.core.replicas.replica_changes import Changes, ReplicaSpec, changes_between


def spec(name: str, settings: int = 0, *models: str) -> ReplicaSpec[int]:
    return ReplicaSpec(name, settings, {model: model for model in models or ("m",)})


def test_each_replica_is_told_by_its_name_what_becomes_of_it() -> None:
    old = [spec("stays"), spec("goes"), spec("moves", 1), spec("learns", 1, "m")]
    new = [spec("learns", 1, "m", "adapter"), spec("comes"), spec("moves", 2), spec("stays")]
    assert changes_between(old, new) == Changes(
        added=("comes",),
        removed=("goes",),
        changed=("moves",),
        renamed=("learns",),
        kept=("stays",),
    )


def test_the_same_list_in_another_order_changes_nothing() -> None:
    old = [spec("a"), spec("b")]
    assert changes_between(old, old[::-1]).is_empty


def test_other_settings_count_before_other_models() -> None:
    assert changes_between([spec("a", 1, "x")], [spec("a", 2, "y")]).changed == ("a",)


def test_a_list_with_one_name_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="several replicas named a, b"):
        changes_between([], [spec("b"), spec("a"), spec("b"), spec("a"), spec("c")])


SPECS = st.lists(
    st.builds(spec, st.sampled_from("abcdef"), st.integers(0, 1), st.sampled_from("mn")),
    unique_by=lambda each: each.name,
)


@given(SPECS, SPECS)
def test_every_name_has_exactly_one_fate(
    old: list[ReplicaSpec[int]], new: list[ReplicaSpec[int]]
) -> None:
    found = changes_between(old, new)
    fates = (*found.added, *found.removed, *found.changed, *found.renamed, *found.kept)
    assert sorted(fates) == sorted({each.name for each in (*old, *new)})
