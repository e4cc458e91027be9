"""What a run over a table remembers: what it was asked for, and how far each of its batches is.

Kept in the folder of the run, like the state of every run. A part is a stretch of the rows that
take part, and becomes one batch. Invariants: parts do not overlap; a part is `done` only when the
answers of all its rows are in its file.
"""

from collections.abc import Iterable
from decimal import Decimal

import msgspec

from lowtide.cli.run.run_state import KeptState, refuse_changed


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """Figures that add up over batches. Money in dollars, exact."""

    succeeded: int = 0
    failed: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    amount: Decimal = Decimal(0)
    live_amount: Decimal = Decimal(0)

    def __add__(self, other: "Totals") -> "Totals":
        names = self.__struct_fields__
        return Totals(**{name: getattr(self, name) + getattr(other, name) for name in names})


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Rows `first` to `first + rows` of those that take part; `lines` of them are requests.

    `batch_id` without `is_done`: it runs. Neither: it is written, and waits for room.
    """

    first: int
    rows: int
    lines: int
    file_id: str | None = None
    batch_id: str | None = None
    is_done: bool = False
    status: str = ""
    totals: Totals = Totals()

    @property
    def end(self) -> int:
        return self.first + self.rows


class TableState(KeptState, frozen=True, kw_only=True):
    """A run as begun. `asked`: a digest over all that decides on the requests, by option."""

    table: str
    identity: str
    rows: int
    asked: dict[str, str]
    model: str
    requests_max: int
    bytes_max: int
    parts: tuple[Part, ...] = ()

    @property
    def unfinished(self) -> tuple[str, ...]:
        return tuple(p.batch_id for p in self.parts if p.batch_id and not p.is_done)

    @property
    def is_done(self) -> bool:
        return self.gap is None and all(part.is_done for part in self.parts)

    @property
    def gap(self) -> tuple[int, int] | None:
        """The first rows that no part has: from, to; None where every row has its part."""
        reached = 0
        for part in self.parts:
            if part.first > reached:
                return reached, part.first
            reached = part.end
        return (reached, self.rows) if reached < self.rows else None

    @property
    def totals(self) -> Totals:
        return sum((part.totals for part in self.parts), Totals())

    def with_part(self, part: Part) -> "TableState":
        """The state with this part in place of the one that begins at the same row."""
        others = [each for each in self.parts if each.first != part.first]
        return self._with_parts([*others, part])

    def without_part(self, part: Part, requests_max: int) -> "TableState":
        """The state without this part; later parts have at most so many requests."""
        others = [each for each in self.parts if each.first != part.first]
        smaller = msgspec.structs.replace(self, requests_max=requests_max)
        return smaller._with_parts(others)

    def _with_parts(self, parts: Iterable[Part]) -> "TableState":
        ordered = tuple(sorted(parts, key=lambda each: each.first))
        return msgspec.structs.replace(self, parts=ordered)


def check_same_table(state: TableState, asked: TableState, output: str) -> None:
    """Refuses to go on with another table or other options. Raises CommandError."""
    changed = None
    if state.identity != asked.identity:
        changed = f"the table {asked.table} is not what it was"
    elif state.server != asked.server:
        changed = f"it was begun {state.place}, not {asked.place}"
    elif state.model != asked.model:
        changed = f"its model was {state.model}, not {asked.model}"
    else:
        options = [name for name, digest in asked.asked.items() if state.asked.get(name) != digest]
        if options or state.rows != asked.rows:
            changed = f"{', '.join(options) or '--limit'} was different then"
    refuse_changed(output, changed)
