"""Which organization's request takes the next free place at a replica, if several have chunks.

Asked by core/dispatch/dispatch.py; pure. Places are shared while they are held, not when they are
given: the organization that holds the least of a replica's places over its weight comes next, and
among equals the one whose last turn is longest ago. So calls that take long hold no more than a
share once others have work, and calls that are short make up for them. Invariants: an organization
that comes anew waits for one place to come free, whatever others have leased; none waits while a
place is free that no other can use; with one organization nothing is compared.
"""


class PlaceShare:
    """One organization's part of one replica: `in_flight` calls, and
    the number of its last turn.
    """

    __slots__ = ("in_flight", "turn")

    def __init__(self) -> None:
        self.in_flight = 0
        self.turn = 0


class PlaceTurns:
    """The organizations whose chunks a worker holds, and the places that they have."""

    def __init__(self) -> None:
        self._chunks: dict[str, int] = {}
        self._weights: dict[str, float] = {}
        self._shares: dict[str, dict[str, PlaceShare]] = {}
        self._turns = 0
        self.is_shared = False
        """Whether there is anything to divide: chunks of more than one organization are held."""

    def added(self, organization_id: str, weight: float) -> None:
        """Counts one more chunk of the organization; `weight` is the newest."""
        self._chunks[organization_id] = self._chunks.get(organization_id, 0) + 1
        self._weights[organization_id] = weight
        self.is_shared = len(self._chunks) > 1

    def removed(self, organization_id: str) -> None:
        """Counts one chunk fewer. What the organization still has in
        flight counts until that ends.
        """
        self._chunks[organization_id] -= 1
        if self._chunks[organization_id]:
            return
        del self._chunks[organization_id], self._weights[organization_id]
        self.is_shared = len(self._chunks) > 1
        for replica_name, shares in self._shares.items():
            self._shares[replica_name] = {
                name: share
                for name, share in shares.items()
                if share.in_flight or name in self._chunks
            }

    def forget(self, replica_name: str) -> None:
        """Forgets a replica that has left; calls that are still in flight there count no more."""
        self._shares.pop(replica_name, None)

    def order(self, replica_name: str) -> list[str]:
        """The organizations, whose turn it is at that replica first."""
        if not self.is_shared:
            return list(self._chunks)
        shares = self._shares.get(replica_name, {})
        nothing = PlaceShare()

        def standing(name: str) -> tuple[float, int]:
            share = shares.get(name, nothing)
            return (share.in_flight + 1) / self._weights[name], share.turn

        return sorted(self._chunks, key=standing)

    def standing(self, replica_name: str) -> list[tuple[str, float, int]]:
        """Organizations with chunks: name, weight and calls in flight there."""
        shares = self._shares.get(replica_name, {})
        return [
            (name, self._weights[name], shares[name].in_flight if name in shares else 0)
            for name in self._chunks
        ]

    def took(self, replica_name: str, organization_id: str) -> PlaceShare:
        """Counts one more place of the organization at that replica; the end of the call
        takes 1 from `in_flight`.
        """
        try:
            share = self._shares[replica_name][organization_id]
        except KeyError:
            share = self._shares.setdefault(replica_name, {})[organization_id] = PlaceShare()
        share.in_flight += 1
        self._turns += 1
        share.turn = self._turns
        return share
