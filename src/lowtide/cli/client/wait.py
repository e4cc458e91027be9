"""Waiting for a batch: poll, show, come back when it is over.

The pauses follow the batch: short at first and near the estimated end, longer the longer it runs.
A server that goes away for a while (restart, upgrade) is waited for; the batch is safe there.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from lowtide import limits
from lowtide.cli.client.http_client import ServerRefused, ServerUnreachable
from lowtide.cli.client.objects import BatchView, JsonObject, read_view
from lowtide.cli.client.server_client import ServerClient

OnChange = Callable[[JsonObject, BatchView], None]


class RunBar(Protocol):
    """Shows how far something is: `cli.terminal.progress.BatchBar`, or a notebook's."""

    @property
    def eta_s(self) -> float | None: ...

    def show(self, batch: BatchView, outage: str = "") -> None: ...


def pause_s(watched_s: float, eta_s: float | None, poll_s_max: float) -> float:
    """Seconds until the next reading, after `watched_s` of watching and with `eta_s` to go."""
    pause = limits.WATCH_POLL_SHARE * watched_s
    if eta_s is not None:
        pause = min(pause, eta_s / 2)
    return min(max(pause, limits.WATCH_POLL_S_MIN), poll_s_max)


def polled(
    client: ServerClient,
    batch_id: str,
    *,
    eta_s: Callable[[], float | None] = lambda: None,
    poll_s_max: float = limits.WATCH_POLL_S_MAX,
    outage_s_max: float = limits.WATCH_OUTAGE_S_MAX,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[tuple[JsonObject, BatchView, str]]:
    """The batch each time it was asked about, until it is over; the last text says why what is
    known may be old, and is empty while the server answers.

    `eta_s`: what the caller makes of the time left, where the server does not say. Raises
    ServerUnreachable when the server stays away for longer than `outage_s_max`.
    """
    started = seen_at = clock()
    answer = client.batch(batch_id)
    outage = ""
    while True:
        batch = read_view(answer, BatchView)
        yield answer, batch, outage
        if batch.is_over:
            return
        left_s = batch.eta_seconds if batch.eta_seconds is not None else eta_s()
        sleep(pause_s(clock() - started, left_s, poll_s_max))
        try:
            answer = client.batch(batch_id)
        except (ServerUnreachable, ServerRefused) as error:
            is_passing = isinstance(error, ServerUnreachable) or error.status >= 500
            if not is_passing or clock() - seen_at > outage_s_max:
                raise
            outage = "the server does not answer, waiting for it"
            continue
        seen_at, outage = clock(), ""


def watch(
    client: ServerClient,
    batch_id: str,
    bar: RunBar,
    *,
    on_change: OnChange | None = None,
    **polling: Any,
) -> JsonObject:
    """Waits until the batch is over; the batch as the server tells it then.

    `on_change` sees each answer that differs from the one before. `polling`, errors: as `polled`.
    """
    shown: JsonObject | None = None
    answer: JsonObject = {}
    for answer, batch, outage in polled(client, batch_id, eta_s=lambda: bar.eta_s, **polling):
        bar.show(batch, outage)
        if on_change is not None and answer != shown and not outage:
            on_change(answer, batch)
            shown = answer
    return answer
