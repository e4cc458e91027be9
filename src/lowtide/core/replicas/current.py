"""A sequence that its owner replaces as a whole: which replicas exist now, for all that use it.

The set of replicas owns one for each kind of reader (loops/replicas/replica_set.py); the
dispatcher, leasing, the control and probe loops and live routing read it. Invariant: an
iteration sees one version from beginning to end, even if the sequence is replaced while the
reader awaits something.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar, overload

T = TypeVar("T")


class Current(Sequence[T]):
    """The items as they are at each moment."""

    def __init__(self, items: Iterable[T] = ()) -> None:
        self._items = tuple(items)

    def replace(self, items: Iterable[T]) -> None:
        """Replaces all items; iterations under way end with the items that they began with."""
        self._items = tuple(items)

    def __iter__(self) -> Iterator[T]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, place: int) -> T: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[T]: ...
    def __getitem__(self, place: int | slice) -> T | Sequence[T]:
        return self._items[place]
