"""The requests that generate, as one set that advances by a step in constant time.

Each of them gets one token in each step, so none needs to be touched: how many tokens one has is
a difference to the engine's step counter, the step in which it finishes is known when it starts,
and how many of them need a new block in a step depends on the step's remainder. This is what lets
millions of generated tokens be simulated in a second; the result is that of touching each.
"""

from lowtide.engine_sim.state.requests import SimRequest, State


class DecodeSet:
    """`steps` counts completed steps; `context` sums prompt and generated tokens over the set."""

    def __init__(self, block_tokens: int) -> None:
        self.steps = 0
        self.count = 0
        self.interactive = 0
        self.context = 0
        self._block_tokens = block_tokens
        self._crossing = [0] * block_tokens
        self._finishing: dict[int, list[SimRequest]] = {}

    def blocks_due(self) -> int:
        """How many of them need a new block in the step that comes."""
        return self._crossing[(self.steps + 1) % self._block_tokens]

    def needs_block(self, request: SimRequest) -> bool:
        """Whether the request needs a block in the next step: its last token is
        the first of one.
        """
        return (self.context_of(request) - 1) % self._block_tokens == 0

    def made(self, request: SimRequest) -> int:
        """Tokens generated in completed steps."""
        return request.made_offset + self.steps

    def context_of(self, request: SimRequest) -> int:
        return request.prompt_tokens + request.made_offset + self.steps

    def add(self, request: SimRequest) -> None:
        """Adds a request whose prompt is computed and that has `made` tokens, fewer
        than it asks for.
        """
        request.state = State.DECODING
        request.made_offset = request.made - self.steps
        self._enter(request)
        self.count += 1
        self.interactive += request.interactive
        self.context += self.context_of(request)

    def remove(self, request: SimRequest) -> None:
        """Takes one out, with `made` as of the completed steps; the caller sets its state."""
        request.made = self.made(request)
        self._crossing[self._phase(request)] -= 1
        self.count -= 1
        self.interactive -= request.interactive
        self.context -= self.context_of(request)

    def postpone(self, request: SimRequest) -> None:
        """Postpones a request that gets no token in the next step."""
        self._crossing[self._phase(request)] -= 1
        request.made_offset -= 1
        self._enter(request)

    def advance(self, advancing: int) -> list[SimRequest]:
        """Completes a step in which so many of them got a token; those that finished by it."""
        self.steps += 1
        self.context += advancing
        return [
            request
            for request in self._finishing.pop(self.steps, ())
            if request.state is State.DECODING and request.finish_step == self.steps
        ]

    def _enter(self, request: SimRequest) -> None:
        request.finish_step = request.output_tokens - request.made_offset
        self._finishing.setdefault(request.finish_step, []).append(request)
        self._crossing[self._phase(request)] += 1

    def _phase(self, request: SimRequest) -> int:
        """Steps with this remainder find the request's KV at the end of a block."""
        return (2 - request.prompt_tokens - request.made_offset) % self._block_tokens
