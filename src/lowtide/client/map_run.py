"""One call of `lowtide.map`, from rows in to the same rows with answers out.

It goes through the steps of any run (`cli/tables/table_run.py`): check all that can be checked,
take the run's folder, find out how far an earlier process came, run the batches, join the answers,
forget. Whatever ends it before, the same call goes on behind the last step that was recorded.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from typing import Any

import pyarrow as pa

from lowtide.cli.client.http_client import ServerRefused
from lowtide.cli.client.server_client import ServerClient
from lowtide.cli.options import connect
from lowtide.cli.run.run_client import discard_previous
from lowtide.cli.run.run_state import RunFolder
from lowtide.cli.tables.row_counts import RowCounts
from lowtide.cli.tables.table_batches import TableBatches, watching
from lowtide.cli.tables.table_parts import read_run
from lowtide.cli.tables.table_state import TableState
from lowtide.cli.terminal.command_errors import CommandError
from lowtide.client.kept_runs import forget_old_runs, kept_run, runs_dir
from lowtide.client.map_plan import (
    MapJob,
    MapOptions,
    MemoryPartWriter,
    Question,
    plan_map,
    plan_question,
)
from lowtide.client.reporting import Reporter
from lowtide.client.stopping import ThreadStop
from lowtide.limits import TABLE_BATCH_ROWS
from lowtide.tables.answers import Answer


def run_map(given: Any, options: MapOptions, stop: ThreadStop) -> tuple[Any, RowCounts]:
    """The rows with their answers, and what they came to. Raises CommandError, TableError,
    ConfigError, TypeError, ValueError, KeyboardInterrupt."""
    question = plan_question(given, options)
    reporter = Reporter(quiet=not options.progress)
    counts = RowCounts(question.columns)
    if not len(question.rows):
        return _joined(question, counts, iter(())), counts
    runs = runs_dir(options.state_dir)
    job = plan_map(question, options)
    forget_old_runs(runs)
    with kept_run(runs, job.key) as folder:
        state = _begin(job, folder, reporter, fresh=options.fresh)
        if not state.is_done:
            state = _run_batches(job, folder, state, reporter, stop)
        with closing(read_run(folder, state)) as answers:
            result = _joined(question, counts, answers)
        folder.remove()
    is_whole = all(part.status == "completed" for part in state.parts)
    reporter.summarize(state.rows, counts, is_whole=is_whole)
    return result, counts


def _begin(job: MapJob, folder: RunFolder, reporter: Reporter, *, fresh: bool) -> TableState:
    before = None if fresh else folder.load(TableState)
    if before is None:
        discard_previous(folder, TableState, job.backend.api_key)
        return job.state
    done = sum(part.rows for part in before.parts if part.is_done)
    running = ", ".join(before.unfinished)
    reporter.say(
        f"Going on with an earlier run of this call {before.place}: {done:,} of {before.rows:,}"
        f" rows are fetched{f', {running} is under way' if running else ''}."
        " fresh=True begins anew."
    )
    return before


def _run_batches(
    job: MapJob, folder: RunFolder, state: TableState, reporter: Reporter, stop: ThreadStop
) -> TableState:
    batches: TableBatches | None = None
    try:
        with _open_client(job, folder, reporter) as client, reporter:
            folder.save(state)  # from here on there is something to go on with
            batches = TableBatches(
                client,
                folder,
                state,
                MemoryPartWriter(job),
                reporter,
                endpoint=job.template.endpoint,
                sleep=stop.pause,
                **watching(job.backend),
            )
            return batches.run()
    except KeyboardInterrupt:
        _say_how_to_go_on(job, folder, reporter)
        raise
    except CommandError as error:
        is_internal = isinstance(error, ServerRefused) and error.status >= 500  # the log says why
        reached = batches.state if batches is not None else state
        if not is_internal and not reached.unfinished and not any(p.is_done for p in reached.parts):
            folder.clear()  # nothing to go on with
        raise


def _say_how_to_go_on(job: MapJob, folder: RunFolder, reporter: Reporter) -> None:
    if not folder.has_begun:
        return
    counts = reporter.counts
    server = job.backend.server
    done = f"Stopped after {counts.settled:,} of {job.state.rows:,} rows."
    if server is not None:
        done += f" What was submitted goes on at {server}."
    reporter.say(f"{done} The same call goes on from there.")


@contextmanager
def _open_client(job: MapJob, folder: RunFolder, reporter: Reporter) -> Iterator[ServerClient]:
    """A client of the server named, or of a local one that lasts as long as the context."""
    backend = job.backend
    if backend.server is not None:
        with connect(backend.server, backend.api_key) as client:
            yield client
        return
    from lowtide.cli.run.local_server import LocalServer  # the whole server: slow to load
    from lowtide.cli.server.logs import log_beside_a_program

    def on_drain() -> None:
        reporter.say("Stopping: saving what is done. Interrupt again to stop at once.")

    server = LocalServer(
        backend.settings_in(folder.data_dir),
        backend.embedded,
        on_progress=reporter.say,
        on_drain=on_drain,
        is_whole_process=False,
    )
    with (
        log_beside_a_program(folder.log_file),
        server as local,
        connect(local.address, None) as client,
    ):
        try:
            yield client
        except ServerRefused as error:
            if error.status >= 500:
                error.hint = f"Its log is {folder.log_file}."
            raise


def _joined(question: Question, counts: RowCounts, answers: Iterator[Answer]) -> Any:
    """The caller's rows with the columns of the answers beside their own."""
    chunks: list[list[pa.Array]] = []
    objects: list[Any] = []
    while block := list(islice(answers, TABLE_BATCH_ROWS)):
        read = [question.schema.read(answer) for answer in block]
        if question.gives_objects:
            objects += [each for _, each in read]
        chunks.append(question.columns.arrays([counts.count(answer) for answer, _ in read]))
    fields = question.columns.fields
    arrays = [
        pa.chunked_array([chunk[place] for chunk in chunks], field.type)
        for place, field in enumerate(fields)
    ]
    result = question.rows.joined(fields, arrays)
    if question.gives_objects:
        _set_objects(result, fields[0].name, objects)
    return result


def _set_objects(rows: Sequence[dict[str, Any]], name: str, objects: Sequence[Any]) -> None:
    for row, each in zip(rows, objects, strict=True):
        row[name] = each
