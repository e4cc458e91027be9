"""Bytes of memory, or places, that many owners share, so that none takes the room of all others.

Called by the API for request bodies, by the services for places of calls, each an amount of 1.
Pure. Guards: what is held never exceeds the total, and an owner may hold at most as much as is left
free (the "dynamic threshold" of Choudhury and Hahne, IEEE/ACM Trans. Networking 6(2), 1998): alone
it gets half, beside k greedy ones there is always a share of 1/(k + 1) free for the next.
"""


class ByteBudget:
    """`take` before bytes are kept, `give_back` when they are gone."""

    __slots__ = ("_by_owner", "held", "total")

    def __init__(self, total: int) -> None:
        self.total = total
        self.held = 0
        self._by_owner: dict[str, int] = {}

    def held_by(self, owner: str) -> int:
        """Bytes of one owner."""
        return self._by_owner.get(owner, 0)

    @property
    def is_full(self) -> bool:
        """Whether nothing is left."""
        return self.held >= self.total

    def fits(self, owner: str, amount: int) -> bool:
        """Whether `take` would say yes."""
        return self._by_owner.get(owner, 0) + amount <= self.total - self.held

    def take(self, owner: str, amount: int) -> bool:
        """Whether the bytes may be kept. A refusal changes nothing."""
        mine = self._by_owner.get(owner, 0) + amount
        if mine > self.total - self.held:
            return False
        self._by_owner[owner] = mine
        self.held += amount
        return True

    def give_back(self, owner: str, amount: int) -> None:
        """Gives back bytes that were taken."""
        left = self._by_owner[owner] - amount
        if left:
            self._by_owner[owner] = left
        else:
            del self._by_owner[owner]
        self.held -= amount
