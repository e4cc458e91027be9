"""The record of a run, for a person who reads a failing seed: faults, log lines, what clients did.

The last lines are kept, all of them are hashed: two runs are the same if their digests are.
"""

import asyncio
import hashlib
from collections import Counter, deque
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, Final

import structlog

from testkit.sim.fault_kinds import FaultKind
from testkit.sim.process import PROCESS

LINES_KEPT: Final = 400
_NEVER: Final = ("slot.failed", "results.doubled")
_EXPECTED: Final = ("Store", "Blob")
"""What a loop may fail with: an error of its ports."""


class Trace:
    """The last lines, each with its virtual second and its process.

    `folder` is where the databases of this machine are: lines do not name it.
    """

    def __init__(self, folder: str, *, verbose: bool = False) -> None:
        self._folder = folder
        self._hash = hashlib.sha256()
        self.lines: deque[str] = deque(maxlen=LINES_KEPT)
        self.counts: Counter[str] = Counter()
        self.faults: Counter[FaultKind] = Counter()
        self.deaths: set[str] = set()
        """Awaits (`kill_points.py`) at which a process was killed."""
        self.alarms: list[str] = []
        """Logs lines that no fault explains."""
        self._verbose = verbose

    def note(self, text: str) -> None:
        process = PROCESS.get()
        at_s = asyncio.get_running_loop().time()
        line = f"{at_s:9.3f} {process.name if process else 'world':8} {text}"
        line = line.replace(self._folder, "sim")
        self.lines.append(line)
        self._hash.update(line.encode() + b"\n")
        if self._verbose:
            print(line)

    def count(self, what: str) -> None:
        self.counts[what] += 1

    def fault(self, kind: FaultKind, where: str = "") -> None:
        """Records a fault that has just happened."""
        self.faults[kind] += 1
        self.note(f"{kind}: {where}" if where else kind)

    def digest(self, *sums: object) -> str:
        """The digest of every line so far, and of the other results of the run."""
        whole = self._hash.copy()
        whole.update(repr(sums).encode())
        return whole.hexdigest()

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
