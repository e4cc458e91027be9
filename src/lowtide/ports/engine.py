"""The port to one engine URL: send one request, get an `Attempt` back.

Contract, held by every adapter:
- `post` never raises for anything the network or the engine does: each failure is a `NoReply`.
- Cancelling the task that awaits `post` closes the upstream connection at once (that is what
  makes vLLM and llama.cpp stop generating) and re-raises CancelledError.
- Connections are kept alive and reused. A request that was written to a kept-alive connection
  which the engine had already closed, with no byte of an answer received, is sent once more on a
  fresh connection before it counts as `broken`.
- At most `connections_max` connections are open; a further `post` waits for one.
"""

from typing import Protocol

from lowtide.core.outcome import Attempt


class Engine(Protocol):
    """One engine URL, e.g. `http://127.0.0.1:9001/v1`."""

    @property
    def url(self) -> str:
        """The base URL, without a trailing slash."""
        ...

    async def post(self, path: str, body: bytes, timeout_s: float) -> Attempt:
        """POST JSON `body` to base URL + `path` (e.g. `/chat/completions`).

        `timeout_s` bounds the whole attempt, connection included.
        """
        ...

    async def get(self, path: str, timeout_s: float) -> Attempt:
        """GET base URL + `path`, e.g. `/models`; for probes and metrics, never on the hot path."""
        ...

    async def aclose(self) -> None:
        """Close all connections. Calls in flight end as `NoReply("broken", ...)`."""
        ...
