"""The KV cache: blocks, the prefix cache, and what is evicted when.

The behaviour is vLLM's: a block holds 16 tokens and is found by the hash of its tokens and all
before them; blocks without a user stay findable until they are needed, least recently used first; a
request frees its blocks from the tail, so a prefix outlives what follows it; only full blocks are
found, and the last token of a prompt is always computed.

The means are different, for speed. A user of a block uses all before it, and the tail goes first,
so what is cached is always a tree of prefixes. A `CacheNode` is a run of blocks (those that end
inside one piece of a prompt) and everything is counted in ranges of a node: a request costs as many
operations as its prompt has pieces, not blocks. One thing differs: of two copies of a block that
are both in use, only the first can be found, and it stays until the second one's user is done.
"""

from collections import deque
from collections.abc import Hashable, Iterable
from itertools import chain

from lowtide.engine_sim.state.blocks import CacheNode, Spare
from lowtide.engine_sim.state.requests import Piece, SimRequest

Hits = list[tuple[CacheNode, int]]
"""Nodes from the root on, and how many blocks of each are found."""


class KvCache:
    """All blocks of one engine. `free` counts those without a user, findable or not."""

    def __init__(self, tokens: int, *, block_tokens: int = 16, finds_prefixes: bool = True) -> None:
        self.block_tokens = block_tokens
        self.blocks = tokens // block_tokens
        self.free = self.blocks
        self._finds_prefixes = finds_prefixes
        self._root = CacheNode(None, (0, None))
        self._queue = deque([Spare(None, 0, 0, self.blocks)])

    @property
    def usage(self) -> float:
        """Share of the blocks that are in use, 0 to 1."""
        return 1 - self.free / self.blocks

    def blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.block_tokens)

    def find(self, request: SimRequest) -> tuple[Hits, int, int]:
        """The longest cached prefix: its nodes, its blocks, and how many of those are free now."""
        hits: Hits = []
        cached = spare = position = 0
        limit = (request.target - 1) // self.block_tokens
        node = self._root
        for segment, tokens in self._pieces(request):
            child = node.children.get((position, self._salted(segment, position, request)))
            if child is None or not self._finds_prefixes:
                break
            end = position + tokens
            wanted = end // self.block_tokens - position // self.block_tokens
            have = min(wanted, child.cached, limit - cached)
            hits.append((child, have))
            cached += have
            spare += max(0, have - child.held)
            if have < wanted:
                break
            node, position = child, end
        return hits, cached, spare

    def admit(self, request: SimRequest, hits: Hits) -> None:
        """Uses the blocks that were found."""
        for node, blocks in hits:
            self._touch(node, blocks)
            node.users[blocks] = node.users.get(blocks, 0) + 1
            node.held = max(node.held, blocks)
            request.nodes.append(node)
            request.held.append(blocks)

    def take(self, blocks: int) -> None:
        """Takes free blocks, evicting what they hold; the caller saw that there are so many."""
        self.free -= blocks
        queue = self._queue
        while blocks:
            spare = queue[0]
            taken = min(blocks, spare.end - spare.start)
            if taken and spare.node is not None:
                spare.end -= taken
                spare.node.cached -= taken
                if spare.start == spare.end:
                    spare.node.spare.popleft()
                    self._prune(spare.node)
            blank = min(blocks - taken, spare.blank)
            spare.blank -= blank
            blocks -= taken + blank
            if spare.start == spare.end and not spare.blank:
                queue.popleft()

    def publish(self, request: SimRequest, tokens: int) -> None:
        """Lets others find the full blocks among the first `tokens` of a request's tokens."""
        if not self._finds_prefixes:
            return
        size = self.block_tokens
        position = depth = 0
        node = self._root
        for segment, count in self._pieces(request):
            end = min(position + count, tokens)
            if depth >= len(request.nodes) - 1:  # those before are complete
                if depth == len(request.nodes):
                    key = (position, self._salted(segment, position, request))
                    self._descend(request, node, key)
                self._grow(request, depth, end // size - position // size)
            if end == tokens:
                return
            node, position, depth = request.nodes[depth], end, depth + 1

    def release(self, request: SimRequest, tokens: int, blocks: int) -> None:
        """A request that has KV for `tokens` and `blocks` in all gives them back, tail first."""
        self.publish(request, tokens)
        own = blocks - sum(request.held) + request.doubles
        if own:
            self._queue.append(Spare(None, 0, 0, own))
            self.free += own
        for node, held in zip(reversed(request.nodes), reversed(request.held), strict=True):
            before = node.held
            node.remove_user(held)
            if node.held < before:
                spare = Spare(node, node.held, before)
                node.spare.append(spare)
                self._queue.append(spare)
                self.free += before - node.held
            elif not node.cached:
                self._prune(node)
        request.nodes, request.held = [], []
        request.doubles = 0

    def would_free(self, request: SimRequest, blocks: int) -> int:
        """How much `release` of its `blocks` adds to `free`."""
        freed = blocks - sum(request.held) + request.doubles
        for node, held in zip(request.nodes, request.held, strict=True):
            if held == node.held and node.users[held] == 1:
                freed += held - max((n for n in node.users if n != held), default=0)
        return freed

    def forget(self) -> None:
        """Drops all that is cached. Raises ValueError while blocks are in use, as vLLM refuses."""
        if self.free != self.blocks:
            raise ValueError("blocks are in use")
        self._root = CacheNode(None, (0, None))
        self._queue = deque([Spare(None, 0, 0, self.blocks)])

    def _pieces(self, request: SimRequest) -> Iterable[Piece]:
        """The pieces of the prompt, and of what is generated after it."""
        if request.sequence is not None:
            return request.sequence
        return chain(request.pieces, ((request.output_segment or request, request.output_tokens),))

    def _salted(self, segment: Hashable, position: int, request: SimRequest) -> Hashable:
        return segment if position or request.salt is None else (request.salt, segment)

    def _descend(self, request: SimRequest, node: CacheNode, key: tuple[int, Hashable]) -> None:
        child = node.children.get(key)
        if child is None:
            child = node.children[key] = CacheNode(node, key)
        child.users[0] = child.users.get(0, 0) + 1
        request.nodes.append(child)
        request.held.append(0)

    def _grow(self, request: SimRequest, depth: int, wanted: int) -> None:
        """Extends what a request has in one of its nodes to the first `wanted` blocks."""
        node, held = request.nodes[depth], request.held[depth]
        if wanted <= held:
            return
        request.doubles += max(0, min(wanted, node.held) - held)
        while node.spare and (spare := node.spare[-1]).start < wanted:
            same = min(wanted, spare.end) - spare.start
            spare.start += same  # the new copy is the one to be found; the free one goes blank
            spare.blank += same
            if spare.start == spare.end:
                node.spare.pop()
        node.cached = max(node.cached, wanted)
        node.move_user(held, wanted)
        request.held[depth] = wanted

    def _touch(self, node: CacheNode, blocks: int) -> None:
        """Takes the first `blocks` of a node out of the queue of free ones."""
        while node.held < blocks:
            spare = node.spare[-1]
            upto = min(blocks, spare.end)
            self.free -= upto - spare.start
            node.held = spare.start = upto
            if spare.start == spare.end:
                node.spare.pop()  # in the queue it stays, empty, and is passed over

    def _prune(self, node: CacheNode) -> None:
        while node.parent is not None and not (node.cached or node.users or node.children):
            if node.parent.children.get(node.key) is node:
                del node.parent.children[node.key]
            node = node.parent
