"""`lowtide serve` whose history is written only while a file stands beside its configuration.

    python -m bench.switched_server serve --config FOLDER/lowtide.toml

Called by `bench.console_cost`: with and without history are then turns of one process. The product
has no such switch, for a history with holes is of no use to anybody.
"""

import sys
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from lowtide.cli.app import main
from lowtide.loops.history.record import HistoryLoop
from lowtide.loops.history.replicas import ReplicaHistoryLoop

SWITCH: Final = "history.on"
POLL_S: Final = 0.25

Tick = Callable[[Any, datetime], Awaitable[datetime | None]]


def switched(tick: Tick, is_on: Callable[[], bool]) -> Tick:
    """The tick of a loop, while it is switched on."""

    async def either(self: Any, now: datetime) -> datetime | None:
        if is_on():
            return await tick(self, now)
        return now + timedelta(seconds=POLL_S)

    return either


if __name__ == "__main__":
    file = Path(sys.argv[sys.argv.index("--config") + 1]).with_name(SWITCH)
    for loop in (HistoryLoop, ReplicaHistoryLoop):
        loop.tick = switched(loop.tick, file.exists)  # type: ignore[attr-defined]
    sys.exit(main())
