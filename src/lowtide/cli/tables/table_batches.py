"""The batches of a run over a table: written as room comes, submitted, watched, fetched.

`table_run` gives it a client and the state; it returns when every row has its answer on disk. A
server's limits are found out by what it refuses: a batch that could never be taken is cut, one that
does not fit beside those under way waits. Each step is recorded once it is done, so a run that is
stopped goes on behind the last one.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from lowtide import limits
from lowtide.api.objects.batches import CountsObject
from lowtide.cli.client.http_client import ServerRefused, ServerUnreachable
from lowtide.cli.client.objects import BatchView, read_view
from lowtide.cli.client.server_client import ServerClient
from lowtide.cli.client.wait import RunBar, pause_s
from lowtide.cli.run.run_client import LOCAL_OUTAGE_S_MAX, LOCAL_POLL_S_MAX
from lowtide.cli.run.run_state import RunFolder
from lowtide.cli.run.run_target import RunBackend
from lowtide.cli.tables.table_parts import PartFiles, batch_over, fetch_answers, fitting_lines
from lowtide.cli.tables.table_state import Part, TableState
from lowtide.cli.terminal.command_errors import CommandError
from lowtide.tables.requests import PartBounds

TOO_LARGE: Final = frozenset({"too_many_tasks", "file_too_large", "request_too_large"})
"""What a server says of a file that it would never take; a smaller one it may."""
_LOCAL_IN_FLIGHT: Final = 2  # one that runs, and one that is checked meanwhile
_NO_ROOM: Final = frozenset({"token_limit_exceeded", "rate_limit_exceeded"})


class WritePart(Protocol):
    """Writes the requests of the rows from `first` on, but not behind `end`, within the bounds."""

    def __call__(self, first: int, end: int, bounds: PartBounds, files: PartFiles) -> Part: ...


def watching(backend: RunBackend) -> dict[str, Any]:
    """Returns how the batches of a run are watched there: `TableBatches` takes it."""
    if backend.server is not None:
        return {"window": backend.completion_window}
    return {
        "window": backend.completion_window,
        "in_flight_max": _LOCAL_IN_FLIGHT,
        "poll_s_max": LOCAL_POLL_S_MAX,
        "outage_s_max": LOCAL_OUTAGE_S_MAX,
    }


class TableBatches:
    """One run's batches."""

    def __init__(
        self,
        client: ServerClient,
        folder: RunFolder,
        state: TableState,
        write_part: WritePart,
        bar: RunBar,
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
        self._counts: dict[int, CountsObject] = {}  # of batches that run, by their first row
        self._reasons: list[str] = []  # why they wait
        self._is_full = False  # the server took no more when it was last asked
        self._full_reason = ""

    def run(self) -> TableState:
        """Runs batches until every row has its answer. Raises CommandError where
        the server refuses for good.
        """
        waited_s = silent_s = 0.0
        while True:
            progressed = False
            try:
                progressed = self._submit_while_there_is_room()
                progressed = self._poll() or progressed
                silent_s, outage = 0.0, ""
            except (ServerUnreachable, ServerRefused) as error:
                is_passing = isinstance(error, ServerUnreachable) or error.status >= 500
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
        """Submits batches while the server takes them. Returns whether one was created."""
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
        """A part that waits, else a new one; None where all rows are under way or done."""
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
            assert part.file_id is not None
            batch_id = batch_over(self._client, part.file_id) or self._create(part, part.file_id)
        except ServerRefused as error:
            if error.code in TOO_LARGE:
                self._split(part, part.lines // 2)
            elif error.code in _NO_ROOM or error.status == 429:
                self._is_full, self._full_reason = True, error.message
            else:
                raise
            return False
        self._record(msgspec.structs.replace(part, batch_id=batch_id))
        return True

    def _create(self, part: Part, file_id: str) -> str:
        rows = f"{part.first + 1}-{part.end}"
        metadata = {"lowtide_run": Path(self.state.table).name[:512], "rows": rows}
        created = self._client.create_batch(file_id, self._endpoint, self._window, metadata)
        return str(created["id"])

    def _split(self, part: Part, lines: int) -> None:
        """Puts the rows of a batch that the server will never take into smaller ones."""
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
        """Asks for the state of every running batch. Returns whether one has ended."""
        ended = False
        self._reasons.clear()
        for part in self._running():
            batch = self._batch_of(part)
            self._counts[part.first] = batch.counts
            if batch.reason:
                self._reasons.append(batch.reason)
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

    def _batch_of(self, part: Part) -> BatchView:
        assert part.batch_id is not None
        try:
            return read_view(self._client.batch(part.batch_id), BatchView)
        except ServerRefused as error:
            if error.status != 404:
                raise
            raise CommandError(
                f"The server does not know the batch {part.batch_id} any more.",
                "Begin anew with --restart.",
                code="batch_lost",
            ) from None

    def _handle_failure(self, part: Part, batch: BatchView) -> None:
        """Handles a batch that failed before anything ran. Raises
        CommandError unless it was too large.
        """
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
        fitting = fitting_lines(self._client, part, self._endpoint)
        if fitting < part.lines:
            self._split(part, fitting)
        else:
            self._is_full, self._full_reason = True, message

    def _finish(self, part: Part, files: PartFiles, batch: BatchView) -> None:
        totals = fetch_answers(self._client, batch, files)
        self._record(
            msgspec.structs.replace(part, is_done=True, status=batch.status, totals=totals)
        )
        files.remove_all_but_answers()

    # ---- keeping and showing ----

    def _record(self, part: Part) -> Part:
        self._save(self.state.with_part(part))
        return part

    def _save(self, state: TableState) -> None:
        self._folder.save(state)
        self.state = state

    def _show(self, outage: str) -> None:
        done = self.state.totals
        running = self._counts.values()
        counts = CountsObject(
            self.state.rows,
            done.succeeded + sum(each.completed for each in running),
            done.failed + sum(each.failed for each in running),
        )
        shown = BatchView(
            id=Path(self.state.table).name,
            status="in_progress",
            request_counts=counts,
            reason=next(iter(self._reasons), self._full_reason if self._is_full else None),
        )
        self._bar.show(shown, outage)
