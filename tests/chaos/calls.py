"""What all engines of a node were asked, and when: read from the files that they append to."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, order=True)
class Call:
    """`at` is the machine's monotonic clock, in seconds."""

    at: float
    text: str
    engine: str


@dataclass(slots=True)
class CallLog:
    """Reads on where it stopped, each time it is asked."""

    files: Mapping[str, Path]
    _calls: list[Call] = field(default_factory=list)
    _read: dict[str, int] = field(default_factory=dict)

    def all(self) -> list[Call]:
        """Since the last `forget`, in order of time."""
        for engine, path in self.files.items():
            self._calls += self._new(engine, path)
        self._calls.sort()
        return self._calls

    def forget(self) -> None:
        """Begin afresh: a round has ended."""
        self.all()
        self._calls.clear()

    def _new(self, engine: str, path: Path) -> Iterable[Call]:
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(self._read.get(engine, 0))
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._read[engine] = self._read.get(engine, 0) + len(whole)
        for line in whole.decode().splitlines():
            at, _, text = line.partition(" ")
            yield Call(float(at), text, engine)


@dataclass(frozen=True, slots=True)
class Repeat:
    """A request that was asked again, between `before` and `after`."""

    before: Call
    after: Call


def repeats(calls: Iterable[Call]) -> list[Repeat]:
    """Each call for something that had been asked before, with the call before it."""
    by_text: dict[str, list[Call]] = defaultdict(list)
    found = []
    for call in calls:
        earlier = by_text[call.text]
        if earlier:
            found.append(Repeat(earlier[-1], call))
        earlier.append(call)
    return found
