"""A sequence that is replaced as a whole."""

from lowtide.core.replicas.current import Current


def test_a_reader_sees_the_latest_items_at_each_look() -> None:
    current = Current([1, 2])
    assert (list(current), len(current), current[0], list(current[1:])) == ([1, 2], 2, 1, [2])
    current.replace([3])
    assert (list(current), len(current), current[0]) == ([3], 1, 3)


def test_an_iteration_ends_with_the_version_it_began_with() -> None:
    current = Current("abc")
    seen = []
    for item in current:
        seen.append(item)
        current.replace("x")
    assert seen == ["a", "b", "c"]
    assert list(current) == ["x"]
