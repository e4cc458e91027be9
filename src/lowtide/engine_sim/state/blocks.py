"""Runs of blocks in the KV cache, as nodes in a tree of prefixes and as ranges in the free queue.

Used by `kv`, which keeps the tree, and by `requests`, which say what they use of it.
"""

from collections import deque
from collections.abc import Hashable


class CacheNode:
    """Consecutive blocks below the prefix that its ancestors make."""

    __slots__ = ("cached", "children", "held", "key", "parent", "spare", "users")

    def __init__(self, parent: "CacheNode | None", key: tuple[int, Hashable]) -> None:
        self.parent = parent
        self.key = key
        self.children: dict[tuple[int, Hashable], CacheNode] = {}
        self.cached = 0
        self.held = 0
        """How many of the cached blocks are in use: the longest of `users`."""
        self.users: dict[int, int] = {}
        """How many requests use how many of the blocks."""
        self.spare: deque[Spare] = deque()
        """The ranges [held, cached) in the queue of free blocks: oldest and last blocks first."""

    def move_user(self, old: int, new: int) -> None:
        """A request that used `old` blocks uses `new` of them, which is not less."""
        self._forget(old)
        self.users[new] = self.users.get(new, 0) + 1
        self.held = max(self.held, new)

    def remove_user(self, blocks: int) -> None:
        self._forget(blocks)
        if blocks == self.held and blocks not in self.users:
            self.held = max(self.users, default=0)

    def _forget(self, blocks: int) -> None:
        count = self.users[blocks] - 1
        if count:
            self.users[blocks] = count
        else:
            del self.users[blocks]


class Spare:
    """Free blocks that lie together in the queue: a range of a node, and `blank` ones that hold
    nothing to be found and are taken after it."""

    __slots__ = ("blank", "end", "node", "start")

    def __init__(self, node: CacheNode | None, start: int, end: int, blank: int = 0) -> None:
        self.node = node
        self.start = start
        self.end = end
        self.blank = blank
