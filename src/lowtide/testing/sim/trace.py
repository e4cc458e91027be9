"""What happened lately, for whoever reads a failing seed: faults, log lines, what clients did."""

import asyncio
from collections import Counter, deque
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, Final

import structlog

from lowtide.testing.sim.process import PROCESS

LINES_KEPT: Final = 400
_NEVER: Final = ("slot.failed", "results.doubled")
_EXPECTED: Final = ("Store", "Blob")
"""What a loop may fail with: an error of its ports."""


class Trace:
    """The last lines, each with its virtual second and its process."""

    def __init__(self, *, verbose: bool = False) -> None:
        self.lines: deque[str] = deque(maxlen=LINES_KEPT)
        self.counts: Counter[str] = Counter()
        self.alarms: list[str] = []
        """Log lines that no weather excuses."""
        self._verbose = verbose

    def note(self, text: str) -> None:
        process = PROCESS.get()
        at_s = asyncio.get_running_loop().time()
        line = f"{at_s:9.3f} {process.name if process else 'world':8} {text}"
        self.lines.append(line)
        if self._verbose:
            print(line)

    def count(self, what: str) -> None:
        self.counts[what] += 1

    @contextmanager
    def of_logs(self) -> Iterator[None]:
        """Take the log lines of everything that runs, too; nothing is printed."""
        before = structlog.get_config()
        structlog.configure(processors=[self._take])
        try:
            yield
        finally:
            structlog.configure(**before)

    def _take(self, _logger: Any, _method: str, event: MutableMapping[str, Any]) -> Any:
        name = event.pop("event")
        if name in _NEVER or (name == "loop.failed" and not event["error"].startswith(_EXPECTED)):
            self.alarms.append(f"{name} {event}")
        event.pop("exc_info", None)
        self.count(name)
        self.note(f"{name} " + " ".join(f"{key}={value}" for key, value in event.items()))
        raise structlog.DropEvent
