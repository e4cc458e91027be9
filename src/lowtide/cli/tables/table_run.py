"""`lowtide run` on a table: rows in, the same rows with answers out.

It goes through the steps of any run: check all that can be checked, take the output's folder, find
out how far an earlier process came, run the batches, write the output, forget. What is over when it
is stopped stays in the folder, and the same command goes on behind it.
"""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import msgspec
import typer
from rich.markup import escape

from lowtide.cli.client.objects import JsonObject
from lowtide.cli.run.run_client import discard_previous, run_client
from lowtide.cli.run.run_state import RunFolder, lock, refuse_to_replace
from lowtide.cli.run.run_target import RunOptions, RunTarget
from lowtide.cli.tables.row_counts import RowCounts
from lowtide.cli.tables.table_batches import TableBatches, watching
from lowtide.cli.tables.table_estimate import show_dry_run
from lowtide.cli.tables.table_options import TableOptions
from lowtide.cli.tables.table_parts import read_run
from lowtide.cli.tables.table_plan import PartWriter, TableJob, plan_table, table_errors
from lowtide.cli.tables.table_state import TableState, Totals, check_same_table
from lowtide.cli.terminal import command_errors, console, units
from lowtide.cli.terminal.counter import delayed_counter
from lowtide.cli.terminal.progress import BatchBar
from lowtide.tables import sources
from lowtide.tables.writers import joined_batches, result_schema, table_writer

_REASONS_SHOWN = 3


def run_table(
    source: str, output: str, options: TableOptions, target: RunTarget, how: RunOptions
) -> None:
    """Runs the table. Ends with the exit code of a batch. Raises CommandError,
    ConfigError, typer.Exit.
    """
    with table_errors():
        job = plan_table(source, output, options, target, how.endpoint)
    if options.dry_run:
        show_dry_run(job, as_json=how.as_json)
        return
    with lock(job.held) as folder:
        state = _begin(job, folder, how)
        if not state.is_done:
            state = _run_batches(job, folder, state, quiet=how.as_json)
        counts = RowCounts(job.columns)
        with table_errors():
            _write_output(job, folder, state, counts)
        folder.remove()
    _report(job, state, counts, as_json=how.as_json)
    is_whole = all(part.status == "completed" for part in state.parts)
    failed = command_errors.SOME_LINES_FAILED if counts.failed else command_errors.DONE
    raise typer.Exit(failed if is_whole else command_errors.BATCH_FAILED)


def _begin(job: TableJob, folder: RunFolder, how: RunOptions) -> TableState:
    before = None if how.restart else folder.load(TableState)
    if before is None:
        with table_errors():
            _refuse_to_replace(job, force=how.force or how.restart)
        discard_previous(folder, TableState, job.backend.api_key)
        return job.state
    check_same_table(before, job.state, job.output)
    done = sum(part.rows for part in before.parts if part.is_done)
    console.info(f"Going on: {done:,} of {before.rows:,} rows are done.")
    return before


def _run_batches(job: TableJob, folder: RunFolder, state: TableState, *, quiet: bool) -> TableState:
    with (
        run_client(job.backend, folder, quiet=quiet) as client,
        BatchBar(quiet=quiet, is_of_many=True) as bar,
    ):
        folder.save(state)  # from here on there is something to go on with
        batches = TableBatches(
            client,
            folder,
            state,
            PartWriter(job),
            bar,
            endpoint=job.template.endpoint,
            **watching(job.backend),
        )
        return batches.run()


def _refuse_to_replace(job: TableJob, *, force: bool) -> None:
    is_bucket = sources.is_bucket(job.output)
    path = Path(job.output)
    if not is_bucket and any(_is_same(file.name, path) for file, _ in job.table.files):
        raise command_errors.CommandError(f"{path} is the table itself.", "Choose another -o.")
    is_there = sources.exists(job.output) if is_bucket else path.is_file()
    refuse_to_replace(job.output, is_there=is_there, force=force)


def _is_same(name: str, output: Path) -> bool:
    return not sources.is_bucket(name) and output.exists() and output.samefile(name)


def _write_output(job: TableJob, folder: RunFolder, state: TableState, counts: RowCounts) -> None:
    """Writes the output to a temporary file, then move or uploads it to its place."""
    part = folder.path / "output.part"
    schema = result_schema(job.table, job.columns)
    name = job.output.rpartition("/")[2]
    written = 0
    with (
        closing(read_run(folder, state)) as answers,
        delayed_counter(f"writing {name}") as advance,
        part.open("wb") as stream,
    ):
        writer = table_writer(job.kind, stream, schema)
        seen = map(counts.count, answers)
        for batch in joined_batches(job.table, job.numbers, job.columns, seen):
            writer.write(batch)
            written += batch.num_rows
            advance(written, state.rows)
        writer.close()
    if sources.is_bucket(job.output):
        sources.upload(part, job.output)
    else:
        part.replace(job.output)


def _report(job: TableJob, state: TableState, counts: RowCounts, *, as_json: bool) -> None:
    totals = msgspec.structs.replace(
        state.totals, succeeded=state.rows - counts.failed, failed=counts.failed
    )
    batches = [part.batch_id for part in state.parts if part.batch_id]
    if as_json:
        console.emit_json(_as_json(job, state, totals, batches))
        return
    succeeded = f"[green]{totals.succeeded:,} succeeded[/]"
    failed = f"[red]{totals.failed:,} failed[/]" if totals.failed else "none failed"
    console.write(f"  rows      {state.rows:,}: {succeeded}, {failed}")
    if len(batches) > 1:
        console.write(f"  batches   {len(batches):,}")
    if totals.input_tokens or totals.output_tokens:
        cached = f" ({totals.cached_tokens:,} cached)" if totals.cached_tokens else ""
        console.write(
            f"  tokens    {totals.input_tokens:,} in{cached}, {totals.output_tokens:,} out"
        )
    if totals.live_amount:
        saved = totals.live_amount - totals.amount
        charged, live, less = map(units.human_dollars, (totals.amount, totals.live_amount, saved))
        console.write(f"  cost      {charged} (live {live}, saved {less})")
    console.write(f"  results   {escape(job.output)}")
    for reason, count in counts.reasons.most_common(_REASONS_SHOWN):
        example = f" (row {counts.examples[reason]:,})"
        console.write(f"            [dim]{count:,} x {escape(reason + example)}[/]")
    if len(counts.reasons) > _REASONS_SHOWN:
        console.write("            [dim]and others: see the column _error[/]")


def _as_json(
    job: TableJob, state: TableState, totals: Totals, batches: Sequence[str]
) -> JsonObject:
    return {
        "output": job.output,
        "rows": state.rows,
        "succeeded": totals.succeeded,
        "failed": totals.failed,
        "input_tokens": totals.input_tokens,
        "output_tokens": totals.output_tokens,
        "amount": str(totals.amount),
        "live_amount": str(totals.live_amount),
        "batches": list(batches),
        "columns": [field.name for field in job.columns.fields],
    }
