"""The batches of a run over a table: written as room comes, submitted, watched, fetched.

`table_run` gives it a client and the state; it returns when every row has its answer on disk. A
server's limits are found out by what it refuses: a batch that could never be taken is cut, one that
does not fit beside those under way waits. Each step is recorded once it is done, so a run that is
stopped goes on behind the last one.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

import msgspec

from lowtide import limits
from lowtide.cli.bars import BatchBar
from lowtide.cli.client import ServerClient
from lowtide.cli.exits import CommandError
from lowtide.cli.http_client import ServerGone, ServerRefused
from lowtide.cli.run_state import RunFolder
from lowtide.cli.table_state import Part, TableState, Totals
from lowtide.cli.views import BatchView, CountsView, EstimateView, read_view
from lowtide.cli.watching import pause_s
from lowtide.tables.answers import merge_answers, write_answers
from lowtide.tables.requests import PartBounds, read_index

TOO_LARGE: Final = frozenset({"too_many_tasks", "file_too_large", "request_too_large"})
"""What a server says of a file that it would never take; a smaller one it may."""
_NO_ROOM: Final = frozenset({"token_limit_exceeded", "rate_limit_exceeded"})
_FITS: Final = 0.9  # of a limit on tokens is aimed at: rows differ in length


class WritePart(Protocol):
    """Writes the requests of the rows from `first` on, but not behind `end`, within the bounds."""

    def __call__(self, first: int, end: int, bounds: PartBounds, files: "PartFiles") -> Part: ...


class PartFiles:
    """Where a part's files lie."""

    def __init__(self, folder: RunFolder, first: int) -> None:
        parts = folder.parts_dir
        parts.mkdir(exist_ok=True)
        self.requests = parts / f"{first:012d}.requests.jsonl"
        self.index = parts / f"{first:012d}.index.jsonl"
        self.output = parts / f"{first:012d}.output.jsonl"
        self.errors = parts / f"{first:012d}.errors.jsonl"
        self.answers = parts / f"{first:012d}.answers.jsonl"

    def remove_all_but_answers(self) -> None:
        for path in (self.requests, self.index, self.output, self.errors):
            path.unlink(missing_ok=True)


class TableBatches:
    """One run's batches."""

    def __init__(
        self,
        client: ServerClient,
        folder: RunFolder,
        state: TableState,
        write_part: WritePart,
        bar: BatchBar,
        *,
        endpoint: str,
        window: str | None,
        in_flight_max: int = limits.TABLE_PARTS_IN_FLIGHT,
        poll_s_max: float = limits.WATCH_POLL_S_MAX,
        outage_s_max: float = limits.WATCH_OUTAGE_S_MAX,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.state = state
        self._client = client
        self._folder = folder
        self._write_part = write_part
        self._bar = bar
        self._endpoint = endpoint
        self._window = window
        self._in_flight_max = in_flight_max
        self._poll_s_max = poll_s_max
        self._outage_s_max = outage_s_max
        self._sleep = sleep
        self._counts: dict[int, CountsView] = {}  # of batches that run, by their first row
        self._waits_for = ""
        self._is_full = False  # the server took no more when it was last asked

    def run(self) -> TableState:
        """Until every row has its answer. Raises CommandError where the server refuses for good."""
        waited_s = silent_s = 0.0
        while True:
            progressed = self._submit_while_there_is_room()
            try:
                progressed = self._poll() or progressed
                silent_s, outage = 0.0, ""
            except (ServerGone, ServerRefused) as error:
                is_passing = isinstance(error, ServerGone) or error.status >= 500
                if not is_passing or silent_s > self._outage_s_max:
                    raise
                outage = "the server does not answer, waiting for it"
            self._show(outage)
            if self.state.is_done:
                return self.state
            waited_s = 0.0 if progressed else waited_s
            pause = pause_s(waited_s, self._bar.eta_s, self._poll_s_max)
            if self._is_full and not self._running():  # others' batches take the room
                pause = limits.TABLE_ROOM_RETRY_S
            self._sleep(pause)
            self._is_full = self._is_full and bool(self._running())
            waited_s += pause
            silent_s += pause if outage else 0.0

    # ---- submitting ----

    def _submit_while_there_is_room(self) -> bool:
        """Whether a batch was made."""
        made = False
        while not self._is_full and len(self._running()) < self._in_flight_max:
            part = self._next_part()
            if part is None:
                break
            made = self._submit(part) or made
        return made

    def _running(self) -> list[Part]:
        return [p for p in self.state.parts if p.batch_id is not None and not p.is_done]

    def _next_part(self) -> Part | None:
        """One that waits, else a new one; None where all rows are under way or done."""
        for part in self.state.parts:
            if part.batch_id is None and not part.is_done:
                return part
        if (gap := self.state.gap) is None:
            return None
        first, end = gap
        bounds = PartBounds(self.state.requests_max, self.state.bytes_max)
        part = self._write_part(first, end, bounds, PartFiles(self._folder, first))
        self._record(part)
        return part

    def _submit(self, part: Part) -> bool:
        files = PartFiles(self._folder, part.first)
        if not part.lines:  # no row of it could be made into a request
            self._finish(part, files, BatchView(id="", status="completed"))
            return True
        try:
            if part.file_id is None:
                file = self._client.upload(files.requests, "batch")
                part = self._record(msgspec.structs.replace(part, file_id=str(file["id"])))
                files.requests.unlink()  # a million rows would lie on the disk twice
            batch_id = self._made_earlier(part) or self._create(part)
        except ServerRefused as error:
            if error.code in TOO_LARGE:
                self._split(part, part.lines // 2)
            elif error.code in _NO_ROOM or error.status == 429:
                self._is_full, self._waits_for = True, error.message
            else:
                raise
            return False
        self._record(msgspec.structs.replace(part, batch_id=batch_id))
        return True

    def _made_earlier(self, part: Part) -> str | None:
        """The batch that an earlier life made and could not record."""
        for known in self._client.batches(limit=100).get("data", []):
            if known.get("input_file_id") == part.file_id and known.get("status") != "failed":
                return str(known["id"])
        return None

    def _create(self, part: Part) -> str:
        assert part.file_id is not None
        rows = f"{part.first + 1}-{part.end}"
        metadata = {"lowtide_run": Path(self.state.table).name[:512], "rows": rows}
        created = self._client.create_batch(part.file_id, self._endpoint, self._window, metadata)
        return str(created["id"])

    def _split(self, part: Part, lines: int) -> None:
        """The server will never take so large a batch: its rows go into smaller ones."""
        if part.lines <= 1:
            raise CommandError(
                f"The server takes no batch with the request of row {part.first + 1:,} alone.",
                "Shorten it, or ask the operator about limits.",
                code="row_too_large",
            )
        PartFiles(self._folder, part.first).remove_all_but_answers()
        self._save(self.state.without_part(part, max(1, lines)))

    # ---- watching ----

    def _poll(self) -> bool:
        """Ask after every batch that runs; whether one has ended."""
        ended = False
        for part in self._running():
            assert part.batch_id is not None
            batch = read_view(self._client.batch(part.batch_id), BatchView)
            self._counts[part.first] = batch.counts
            self._waits_for = batch.reason or ""
            if not batch.is_over:
                continue
            ended = True
            del self._counts[part.first]
            if batch.status == "failed":
                self._handle_failure(part, batch)
            else:
                self._is_full = False
                self._finish(part, PartFiles(self._folder, part.first), batch)
        return ended

    def _handle_failure(self, part: Part, batch: BatchView) -> None:
        """A batch that failed before anything ran. Raises CommandError unless it was too large."""
        error = batch.errors.data[0] if batch.errors and batch.errors.data else None
        code, message = (error.code, error.message) if error else (None, "it gives no reason")
        if code in TOO_LARGE:
            self._split(part, part.lines // 2)
            return
        part = self._record(msgspec.structs.replace(part, batch_id=None))
        if code not in _NO_ROOM:
            raise CommandError(
                f"The server refuses the requests: {message}",
                "Nothing of this batch ran. The same command tries again; --restart begins anew.",
                code=code or "batch_failed",
            )
        if (fitting := self._fitting_lines(part)) < part.lines:
            self._split(part, fitting)
        else:
            self._is_full, self._waits_for = True, message

    def _fitting_lines(self, part: Part) -> int:
        """How many of its lines the server's limits would take if nothing else were there."""
        assert part.file_id is not None
        answer = self._client.create_batch(part.file_id, self._endpoint, dry_run=True)
        fitting = part.lines
        for limit in read_view(answer, EstimateView).would_exceed:
            if limit.code == "token_limit_exceeded" and limit.allowed and limit.asked:
                share = int(limit.allowed) / int(limit.asked)
                fitting = min(fitting, int(part.lines * share * _FITS))
        return fitting

    def _finish(self, part: Part, files: PartFiles, batch: BatchView) -> None:
        """Fetch the results, keep what the columns need of them, and forget the rest."""
        for file_id, path in ((batch.output_id, files.output), (batch.error_id, files.errors)):
            path.unlink(missing_ok=True)
            if file_id is not None:
                self._client.download(file_id, path)
            else:
                path.touch()
        whole = files.answers.with_suffix(".part")
        with (
            files.index.open("rb") as index,
            files.output.open("rb") as output,
            files.errors.open("rb") as errors,
            whole.open("wb") as stream,
        ):
            merged = merge_answers(read_index(index), output, errors)
            count, failed = write_answers(merged, stream)
        whole.replace(files.answers)
        totals = _totals(batch, count - failed, failed)
        self._record(
            msgspec.structs.replace(part, is_done=True, status=batch.status, totals=totals)
        )
        files.remove_all_but_answers()

    # ---- keeping and showing ----

    def _record(self, part: Part) -> Part:
        self._save(self.state.with_part(part))
        return part

    def _save(self, state: TableState) -> None:
        self._folder.remember(state)
        self.state = state

    def _show(self, outage: str) -> None:
        done = self.state.totals
        running = self._counts.values()
        counts = CountsView(
            self.state.rows,
            done.succeeded + sum(each.completed for each in running),
            done.failed + sum(each.failed for each in running),
        )
        shown = BatchView(
            id=Path(self.state.table).name,
            status="in_progress",
            request_counts=counts,
            reason=self._waits_for or None,
        )
        self._bar.show(shown, outage)


def _totals(batch: BatchView, succeeded: int, failed: int) -> Totals:
    usage, cost = batch.usage, batch.cost
    return Totals(
        succeeded=succeeded,
        failed=failed,
        input_tokens=usage.input_tokens if usage else 0,
        cached_tokens=usage.cached_tokens if usage else 0,
        output_tokens=usage.output_tokens if usage else 0,
        amount=cost.amount if cost else Totals().amount,
        live_amount=cost.live_amount if cost else Totals().live_amount,
    )
