"""The verbs of the live API: read a call, admit it, and open it on the best replica.

The API's live routes call them, in this order. Guards: a call is sent again only before the first
byte of its answer has gone out, each time to another replica; leaving the context of `open` ends
the upstream call at once; and whatever ends it, the caller's tokens are corrected.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from math import ceil

import msgspec

from lowtide import limits
from lowtide.core.accounts.catalogue import Catalogue
from lowtide.core.accounts.rate_limit import RateDecision, RateLimiter
from lowtide.core.batches.line import LineFormatError
from lowtide.core.bodies.sse import CONTENT_TYPE
from lowtide.core.errors import LowtideError
from lowtide.core.faults.fault import FAULTS
from lowtide.core.faults.outcome import (
    NoReply,
)
from lowtide.core.live.live import (
    LiveAnswer,
    LiveRequest,
    read_live,
    tokens_used,
)
from lowtide.core.live.routing import choose_replica
from lowtide.core.scheduling.reply_budget import ReplyBudget
from lowtide.ports.clock import Clock
from lowtide.service.accounts.quotas import Quotas
from lowtide.service.live.live_attempt import (
    LiveAttempt,
    LiveStream,
    busy,
    refute,
    whole_answer,
    why_failed,
)
from lowtide.service.live.live_replica import STREAM_BEGUN, LiveCall, LiveReplica
from lowtide.service.off_loop import off_loop
from lowtide.service.reply_memory import ReplyMemory, whole_reply


class AdmittedCall(msgspec.Struct, frozen=True):
    """A call with its canonical model, who asks, and whether the limits let it through."""

    request: LiveRequest
    model: str
    organization_id: str
    key_id: str
    verdict: RateDecision


class LiveService:
    """One per process."""

    def __init__(
        self,
        catalogue: Catalogue,
        replicas: Sequence[LiveReplica],
        clock: Clock,
        allowance: Quotas,
        replies: ReplyBudget | None = None,
        rates: RateLimiter | None = None,
    ) -> None:
        """`replies`: what the answers in memory share with all other replies of the process."""
        self._catalogue = catalogue
        self._replicas = replicas
        self._clock = clock
        self._allowance = allowance
        self.rates = RateLimiter() if rates is None else rates
        self._replies = ReplyBudget() if replies is None else replies

    def memory(self, admission: AdmittedCall) -> ReplyMemory:
        """Reserves memory for the replies to the call while the context lasts."""
        return ReplyMemory(self._replies, admission.organization_id)

    async def may_read(self, *, project_id: str, key_id: str) -> RateDecision | None:
        """Whether the body of one more call may be read; None: yes, and then call `has_read`."""
        allowance = (await self._allowance.of(project_id)).live
        models = self._catalogue.entries
        return self.rates.may_read(key_id, models, allowance, self._clock.monotonic())

    def has_read(self, key_id: str) -> None:
        """Ends what `may_read` counted: the body is there, or will not come."""
        self.rates.has_read(key_id)

    async def admit(
        self, endpoint: str, body: bytes, *, project_id: str, key_id: str
    ) -> AdmittedCall:
        """Reads a call and holds it against the limits of its key and model.

        Raises LowtideError `invalid_request`, `missing_required_parameter`, `model_not_found`.
        """
        bounds = await self._allowance.of(project_id)
        owner, size = bounds.organization_id, len(body)
        request = await off_loop(owner, size, read_live, endpoint, body)
        model = self._catalogue.names.get(request.model)
        if model is None:
            raise LowtideError("model_not_found", f"No model named '{request.model}'.", "model")
        rule = self._allowance.defaults.media_rule
        if rule is not None:
            refusal = await off_loop(owner, size, rule.refusal, body)
            if refusal is not None:
                raise LowtideError("invalid_request", refusal[1], refusal[0])
        now_s = self._clock.monotonic()
        verdict = self.rates.admit(key_id, model, bounds.live, request.tokens, now_s)
        return AdmittedCall(request, model, bounds.organization_id, key_id, verdict)

    @asynccontextmanager
    async def open(self, admission: AdmittedCall) -> AsyncIterator[LiveAnswer | LiveStream]:
        """Sends an admitted call; the answer is good within the context.

        Raises LowtideError `model_unavailable`, `engine_error`, `engine_timeout`.
        """
        request = admission.request
        used = request.input_tokens  # a client that leaves before the answer has cost that much
        answer: LiveAnswer | LiveStream | None = None
        try:
            async with AsyncExitStack() as stack:
                answer = await self._answer(admission, stack)
                yield answer
        except LowtideError:
            used = 0
            raise
        finally:
            if isinstance(answer, LiveStream):
                used = answer.tokens_used(request)
            elif answer is not None:
                used = tokens_used(request, answer.body) if answer.status < 300 else 0
            self.rates.correct(
                admission.key_id, admission.model, admission.verdict, used, self._clock.monotonic()
            )

    async def _answer(
        self, admission: AdmittedCall, stack: AsyncExitStack
    ) -> LiveAnswer | LiveStream:
        """The first answer worth passing on; else the last that came, else why none did."""
        tried: list[LiveAttempt] = []
        while len(tried) < limits.LIVE_ATTEMPTS_MAX:
            live = self._choose(admission, [each.live for each in tried])
            if live is None:
                break
            latest = await self._attempt(live, admission, stack)
            if latest.answer is not None and not latest.is_worth_another:
                if latest.is_good:
                    refute(tried)
                return latest.answer
            tried.append(latest)
            # Time is gone, or the next answer would be as large, or it kills what it meets.
            breaks = sum(each.is_broken for each in tried)
            if not latest.is_worth_another or breaks >= limits.LIVE_BREAKS_MAX:
                break
        for each in reversed(tried):
            if each.answer is not None:
                return each.answer
        raise why_failed(tried[-1].outcome) if tried else self._unavailable(admission)

    async def _attempt(
        self, live: LiveReplica, admission: AdmittedCall, stack: AsyncExitStack
    ) -> LiveAttempt:
        """One call to one replica; a stream that has begun is left open on `stack`."""
        request = admission.request
        try:
            body = await off_loop(
                admission.organization_id, len(request.body), _body, live, admission
            )
        except LineFormatError as error:
            raise LowtideError("invalid_request", str(error)) from None
        async with AsyncExitStack() as mine:
            call = mine.enter_context(
                LiveCall(
                    live,
                    self._clock,
                    live.replica.scope((admission.model, request.endpoint)),
                    organization_id=admission.organization_id,
                    input_tokens=request.input_tokens,
                    tokens=request.tokens,
                    streams=request.streams,
                )
            )
            if not request.streams:
                reply = await live.engine.post(
                    request.path, body, live.timeout_s, admission.organization_id
                )
                return whole_answer(live, call, reply)
            owner = admission.organization_id
            opening = live.engine.open_stream(request.path, body, live.timeout_s, owner)
            coming = await mine.enter_async_context(opening)
            if isinstance(coming, NoReply):
                return whole_answer(live, call, coming)
            if coming.status >= 300 or not coming.content_type.startswith(CONTENT_TYPE):
                with self.memory(admission) as memory:
                    reply = await whole_reply(coming, memory)
                return whole_answer(live, call, reply, coming.content_type)
            stream = LiveStream(coming, call)
            broken = await stream.begin()
            if broken is not None:
                return whole_answer(live, call, broken)
            call.first_byte()
            stack.push_async_exit(mine.pop_all())
            return LiveAttempt(live, call, STREAM_BEGUN, stream)

    def _choose(self, admission: AdmittedCall, tried: Sequence[LiveReplica]) -> LiveReplica | None:
        now_s = self._clock.monotonic()
        key = (admission.model, admission.request.endpoint)
        able = [
            live
            for live in self._serving(admission.model)
            if live not in tried
            and live.has_place(admission.organization_id)
            and live.replica.circuit.admits(now_s)
            and live.replica.scope(key).takes_live(now_s)
        ]
        able = [live for live in able if live.replica.scope(key).held is None] or able
        if not able:
            return None
        names = [live.replica.name for live in able]
        return able[choose_replica(names, [live.load for live in able], admission.request.prefix)]

    def _serving(self, model: str) -> list[LiveReplica]:
        return [live for live in self._replicas if model in live.replica.models]

    def _unavailable(self, admission: AdmittedCall) -> LowtideError:
        now_s = self._clock.monotonic()
        serving = self._serving(admission.model)
        waits = [
            at_s - now_s
            for live in serving
            if (at_s := live.replica.circuit.retry_at_s) is not None
        ]
        key = (admission.model, admission.request.endpoint)
        held = [kind for live in serving if (kind := live.replica.scope(key).held) is not None]
        why = "none of its replicas answers" if serving else "no replica serves it"
        without = [live for live in serving if not live.has_place(admission.organization_id)]
        if without and not any(live.places.is_full for live in without):
            raise _too_many_in_flight(admission)
        if without:
            why = "its replicas are busy"
        elif held:
            why = f"the engine behind it {FAULTS[held[0]].public_text}; the operator must mend that"
        wait_s = min(waits, default=float(limits.UNAVAILABLE_RETRY_AFTER_S))
        message = f"The model '{admission.model}' cannot be called right now: {why}."
        return busy(message, max(limits.LIVE_BUSY_RETRY_AFTER_S, ceil(wait_s)))


def _body(live: LiveReplica, admission: AdmittedCall) -> bytes:
    """What the replica is sent. Raises LineFormatError."""
    request = admission.request
    return live.rules.body(
        request.body,
        request.endpoint,
        live.engine_names.get(admission.model),
        admission.organization_id,
        takes_salt=live.replica.takes_cache_salt,
    )


def _too_many_in_flight(admission: AdmittedCall) -> LowtideError:
    return LowtideError(
        "rate_limit_exceeded",
        f"Too many live calls of organization {admission.organization_id} to"
        f" '{admission.model}' are in flight: it may have as many as are left free for others."
        " Wait for answers before sending more.",
        retry_after_s=limits.LIVE_BUSY_RETRY_AFTER_S,
    )
