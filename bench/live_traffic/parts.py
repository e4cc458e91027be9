"""A gateway that sends long batch prompts in parts: a trial, which the product does not do.

Each part but the last is a call with the prompt's beginning and an answer of one token, which is
thrown away; the engine's prefix cache keeps what was read. So no step holds more of a batch prompt
than a part, however large the engine's steps are.
"""

from collections.abc import Iterator, Sequence

from bench.live_traffic.gateway import Gateway, Rule
from bench.live_traffic.ours import Ours
from bench.live_traffic.recorder import Recorder
from lowtide.engine_sim.benchmarks.virtual import VirtualWorld
from lowtide.engine_sim.state.requests import SimRequest


class OursInParts(Ours):
    """Paces each part as a prompt of its own. `part_tokens`: of a part, at most."""

    def __init__(self, part_tokens: int, *, itl_slo_s: float) -> None:
        super().__init__(itl_slo_s=itl_slo_s)
        self.part_tokens = part_tokens

    def adds(self, request: SimRequest, tokens: int) -> None:
        """The call has so many prompt tokens that no earlier part had."""
        self._left[request.id] = tokens


class PartsGateway(Gateway):
    """`rules` are OursInParts."""

    def __init__(
        self, rules: Sequence[Rule], work: Iterator[SimRequest], recorder: Recorder
    ) -> None:
        (self._rule,) = (rule for rule in rules if isinstance(rule, OursInParts))
        self._whole: dict[str | int, tuple[SimRequest, int]] = {}
        super().__init__(rules, (self._part(request, 0) for request in work), recorder)

    def on_finished(self, world: VirtualWorld, replica: int, request: SimRequest) -> None:
        if request.id not in self._whole:
            super().on_finished(world, replica, request)
            return
        whole, done = self._whole.pop(request.id)
        del self._own[replica][request.id]
        self._rule.finished(request, world.now)
        self._again.append(self._part(whole, done))
        self._fill(world, replica)

    def _part(self, whole: SimRequest, done: int) -> SimRequest:
        """The next call for a request of whose prompt `done` tokens were read."""
        ends = done + self._rule.part_tokens
        if whole.prompt_tokens <= ends:
            last = SimRequest(whole.id, whole.pieces, whole.output_tokens)
            self._rule.adds(last, whole.prompt_tokens - done)
            return last
        part = SimRequest(f"{whole.id}/{ends}", [(whole.pieces[0][0], ends)], 1)
        self._rule.adds(part, ends - done)
        self._whole[part.id] = whole, ends
        return part
