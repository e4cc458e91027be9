"""The port to one engine URL: send one request, get an `Attempt` back.

Contract, held by every adapter:
- `post` never raises for anything the network or the engine does: each failure is a `NoReply`.
- Cancelling the task that awaits `post` closes the upstream connection at once (that is what
  makes vLLM and llama.cpp stop generating) and re-raises CancelledError.
- Connections are kept alive and reused. A request that was written to a kept-alive connection
  which the engine had already closed, with no byte of an answer received, is sent once more on a
  fresh connection before it counts as `broken`.
- At most `connections_max` connections are open; a further `post` waits for one. Owners that wait
  have turns: next is the one that holds the fewest.
- Long replies to `post` share a budget of memory by owner (core/scheduling/reply_budget.py): one
  that is above its share is read on when there is room, or when its turn comes.
- `open_stream` keeps all of these, and leaving it before the end of the reply closes the connection
  at once. A reader that takes its time slows the engine down: what waits to be read is bounded.
"""

from contextlib import AbstractAsyncContextManager
from typing import Protocol

import msgspec

from lowtide.core.capacity.engine_metrics import EngineMetrics
from lowtide.core.faults.outcome import Attempt, NoReply


class ReplyStream(Protocol):
    """A reply whose body comes in blocks. Good only within `open_stream`."""

    @property
    def status(self) -> int: ...

    @property
    def content_type(self) -> str:
        """The media type as sent; empty when it was not."""

    @property
    def retry_after_s(self) -> float | None: ...

    async def read(self) -> bytes | NoReply:
        """All that has come since the last read, at least a byte.

        b"" once the reply is complete, NoReply once it is known that it never will be.
        """


class Engine(Protocol):
    """One engine URL, e.g. `http://127.0.0.1:9001/v1`."""

    @property
    def url(self) -> str:
        """The base URL, without a trailing slash."""

    async def post(self, path: str, body: bytes, timeout_s: float, owner: str = "") -> Attempt:
        """POST JSON `body` to base URL + `path` (e.g. `/chat/completions`).

        `timeout_s` bounds the whole attempt, connection included. `owner`: the organization whose
        share of memory a long reply takes, and whose turn it is where calls wait for a connection.
        """

    async def get(self, path: str, timeout_s: float) -> Attempt:
        """GET base URL + `path`, e.g. `/models`; for probes and metrics, never on the hot path."""

    async def aclose(self) -> None:
        """Closes all connections. Calls in flight end as `NoReply("broken", ...)`."""


class StreamingEngine(Protocol):
    """The same engine for the live API, which passes replies on while they come."""

    async def post(self, path: str, body: bytes, timeout_s: float, owner: str = "") -> Attempt:
        """Posts as `Engine.post` does."""

    def open_stream(
        self, path: str, body: bytes, timeout_s: float, owner: str = ""
    ) -> AbstractAsyncContextManager[ReplyStream | NoReply]:
        """POST JSON `body`; the reply as soon as its head is there, or why it does not come.

        `timeout_s` bounds the wait for the head, connection included, and then each silence;
        `owner` as for `post`.
        """


class MetricsReader(Protocol):
    """Reads what an engine reports about itself; called twice a second."""

    async def read(self) -> EngineMetrics | None:
        """One reading; None when the engine did not answer, or told nothing that can be read.

        Never raises for anything the network or the engine does, and takes CONTROL_READ_S at most.
        """


class EngineInfo(msgspec.Struct, frozen=True):
    """What was found out about an engine. `reader` None: it tells nothing about itself.

    `priority` is what to send as the `priority` of batch calls so that live ones go first; None:
    send none.
    """

    kind: str
    reader: MetricsReader | None
    priority: int | None
    is_complete: bool = True
    """False: the engine was too busy to say whether it takes a priority; worth another look."""
    missing: tuple[str, ...] = ()
    """Names without which its page of metrics tells nothing, as after they were renamed."""


class Prober(Protocol):
    """Finds out what kind of engine answers at one URL."""

    async def probe(self) -> EngineInfo | None:
        """None while the engine does not answer. Never raises; takes PROBE_S at most."""


class ModelList(Protocol):
    """What an engine says that it serves, LoRA adapters included, in its own words."""

    async def read(self) -> tuple[str, ...] | None:
        """None when the engine gives no list now. Never raises for anything the network or the
        engine does, and takes CONTROL_READ_S at most."""
