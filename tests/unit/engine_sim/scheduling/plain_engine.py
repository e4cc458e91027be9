"""The same engine once more, the slow way: token by token, block by block, hash by hash.

What the fast one is compared with. It follows vLLM's scheduler and block pool literally and knows
nothing of ranges, sets of decodes or trees.
"""

from collections import OrderedDict
from dataclasses import dataclass, field

from lowtide.engine_sim.scheduling.scheduler_config import SchedulerConfig
from lowtide.engine_sim.state.requests import SimRequest

BLOCK = 16


@dataclass(eq=False)
class PlainRequest:
    asked: SimRequest
    number: int
    tokens: list[object]
    made: int = 0
    computed: int = 0
    blocks: list[int] = field(default_factory=list)
    is_decoding: bool = False

    @property
    def rank(self) -> tuple[int, int]:
        return self.asked.priority, self.number


@dataclass
class PlainStep:
    decodes: int = 0
    tokens: int = 0
    context: int = 0
    pairs: float = 0.0
    preempted: list[object] = field(default_factory=list)
    first: list[object] = field(default_factory=list)
    finished: list[object] = field(default_factory=list)


class PlainEngine:
    def __init__(self, config: SchedulerConfig, blocks: int) -> None:
        self.config = config
        self.total = blocks
        self.queue: OrderedDict[int, None] = OrderedDict((b, None) for b in range(blocks))
        self.users = [0] * blocks
        self.hash_of: list[object] = [None] * blocks
        self.found: dict[object, int] = {}
        self.names: dict[object, int] = {}
        self.waiting: list[PlainRequest] = []
        self.running: list[PlainRequest] = []
        self.submitted = 0

    def submit(self, asked: SimRequest) -> None:
        tokens: list[object] = [(s, i) for s, count in asked.pieces for i in range(count)]
        self.submitted += 1
        self.waiting.append(PlainRequest(asked, self.submitted, tokens))
        self._sort()

    def abort(self, name: object) -> None:
        for request in [r for r in self.waiting + self.running if r.asked.id == name]:
            if request in self.running:
                self._free(request)
                self.running.remove(request)
            else:
                self.waiting.remove(request)

    def step(self) -> PlainStep:
        step = PlainStep()
        chunks: dict[PlainRequest, int] = {}
        budget = self.config.max_num_batched_tokens
        index = 0
        while index < len(self.running) and budget > 0:
            request = self.running[index]
            wanted = min(self._chunk_max(len(request.tokens) - request.computed), budget)
            while not self._allocate(request, request.computed + wanted):
                victim = self._victim()
                self.running.remove(victim)
                if victim in chunks:
                    budget += chunks.pop(victim)
                    index -= 1
                self._free(victim)
                victim.computed = 0
                self.waiting.insert(0, victim)
                self._sort()
                step.preempted.append(victim.asked.id)
                if victim is request:
                    break
            if request not in self.running:
                break
            chunks[request] = wanted
            budget -= wanted
            index += 1
        if not step.preempted or not chunks:
            self._admit(chunks, budget)
        for request, chunk in chunks.items():
            self._compute(request, chunk, step)
        return step

    def _admit(self, chunks: dict[PlainRequest, int], budget: int) -> None:
        while self.waiting and budget > 0 and len(self.running) < self.config.max_num_seqs:
            request = self.waiting[0]
            hits = self._hits(request)
            spare = sum(not self.users[b] for b in hits)
            known = len(hits) * BLOCK
            chunk = min(self._chunk_max(len(request.tokens) - known), budget)
            whole = len(request.tokens) if self.config.reserve_full_isl else known + chunk
            needed = -(-whole // BLOCK) - len(hits) + spare
            if needed + int(self.config.watermark * self.total) > len(self.queue):
                break
            self.waiting.pop(0)
            for block in hits:
                self.queue.pop(block, None)
                self.users[block] += 1
            request.blocks = list(hits)
            request.computed = known
            assert self._allocate(request, known + chunk)
            self.running.append(request)
            chunks[request] = chunk
            budget -= chunk

    def _compute(self, request: PlainRequest, chunk: int, step: PlainStep) -> None:
        step.tokens += chunk
        if request.made and request.computed + 1 == len(request.tokens) and request.is_decoding:
            step.decodes += 1
            step.context += len(request.tokens)
        else:
            step.pairs += chunk * (request.computed + chunk / 2)
        request.computed += chunk
        if request.computed < len(request.tokens):
            return
        request.is_decoding = True
        request.tokens.append((request, request.made))
        request.made += 1
        if request.made == 1:
            step.first.append(request.asked.id)
        if request.made == request.asked.output_tokens:
            step.finished.append(request.asked.id)
            self._free(request)
            self.running.remove(request)

    def _victim(self) -> PlainRequest:
        if self.config.scheduling_policy == "priority":
            return max(self.running, key=lambda r: r.rank)
        return self.running[-1]

    def _chunk_max(self, wanted: int) -> int:
        threshold = self.config.long_prefill_token_threshold
        return min(wanted, threshold) if threshold else wanted

    def _sort(self) -> None:
        if self.config.scheduling_policy == "priority":
            self.waiting.sort(key=lambda r: r.rank)

    def _names(self, request: PlainRequest, count: int) -> list[object]:
        """A number for each of the first `count` full blocks: of its tokens and all before."""
        names: list[object] = []
        parent: object = None
        for i in range(count):
            key = (parent, tuple(request.tokens[i * BLOCK : (i + 1) * BLOCK]))
            parent = self.names.setdefault(key, len(self.names))
            names.append(parent)
        return names

    def _hits(self, request: PlainRequest) -> list[int]:
        hits = []
        for name in self._names(request, (len(request.tokens) - 1) // BLOCK):
            if name not in self.found:
                break
            hits.append(self.found[name])
        return hits

    def _allocate(self, request: PlainRequest, tokens: int) -> bool:
        needed = -(-tokens // BLOCK) - len(request.blocks)
        if needed > len(self.queue):
            return False
        for _ in range(needed):
            block, _ = self.queue.popitem(last=False)
            name, self.hash_of[block] = self.hash_of[block], None
            if name is not None and self.found.get(name) == block:
                del self.found[name]
            self.users[block] = 1
            request.blocks.append(block)
        full = tokens // BLOCK
        for block, name in zip(request.blocks, self._names(request, full), strict=False):
            if self.hash_of[block] is None:
                self.hash_of[block] = name
                self.found[name] = block
        return True

    def _free(self, request: PlainRequest) -> None:
        for block in reversed(request.blocks):
            self.users[block] -= 1
            if not self.users[block]:
                self.queue[block] = None
        request.blocks = []
        request.is_decoding = False
