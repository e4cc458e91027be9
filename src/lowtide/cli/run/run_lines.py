"""`lowtide run` on a file of requests: from the input to its results, with or without a server.

A run goes through these steps: check everything that can be checked, take the output's
folder, find out how far an earlier process came, upload, create the batch, watch, download,
forget. Each step is recorded once it is done, so whatever ends the process, the same command
goes on behind the last one.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import typer
from rich.markup import escape

from lowtide.cli.batches.batch_report import exit_code_of, note_window, show_end
from lowtide.cli.batches.outputs import errors_beside, writable_target
from lowtide.cli.batches.results import collect
from lowtide.cli.client.http_client import ServerRefused
from lowtide.cli.client.objects import BatchView, JsonObject, read_view
from lowtide.cli.client.server_client import ServerClient
from lowtide.cli.client.wait import watch
from lowtide.cli.run.run_client import (
    LOCAL_OUTAGE_S_MAX,
    LOCAL_POLL_S_MAX,
    discard_previous,
    run_client,
)
from lowtide.cli.run.run_override import override_model
from lowtide.cli.run.run_plan import Job, check_paths, plan_job
from lowtide.cli.run.run_state import RunFolder, RunState, check_same, lock, refuse_to_replace
from lowtide.cli.run.run_target import RunOptions, RunTarget
from lowtide.cli.terminal import command_errors, console
from lowtide.cli.terminal.console import words_on_stderr
from lowtide.cli.terminal.progress import BatchBar, transfer_bar
from lowtide.cli.terminal.standard_streams import (
    input_file,
    is_standard,
    refuse_json_beside_results,
)


def run_lines(
    source: Path, output: Path, errors: Path | None, target: RunTarget, how: RunOptions
) -> None:
    """Runs the file. Ends with the exit code of the batch. Raises CommandError,
    ConfigError, typer.Exit.
    """
    refuse_json_beside_results(output, as_json=how.as_json)
    quiet = how.as_json
    to_stdout = is_standard(output)
    with (
        words_on_stderr(when=to_stdout),
        _paths(source, output, errors, target.override) as paths,
    ):
        with lock(paths.held) as folder:
            job, state = _begin(paths, target, folder, how)
            with run_client(job.backend, folder, quiet=quiet) as client:
                answer = _run_batch(client, job, folder, state, quiet=quiet)
                batch = read_view(answer, BatchView)
                _remove_stale(batch, paths)
                collected = collect(client, batch, paths.output, paths.errors, quiet=quiet)
            folder.remove()
        if how.as_json:
            console.emit_json(collected | {"batch": answer})
        else:
            show_end(batch, collected)
    raise typer.Exit(exit_code_of(batch))


@dataclass(frozen=True, slots=True)
class _Paths:
    """`held`: what the folder of the run is named after; `output`, or a file of its own where
    results go to standard output: such a run cannot be gone on with.
    """

    source: Path
    output: Path
    errors: Path
    held: Path


@contextmanager
def _paths(source: Path, output: Path, errors: Path | None, model: str | None) -> Iterator[_Paths]:
    """Where to read and to write, for as long as the context lasts. Raises CommandError.

    `model`: to be asked by every line, which is read from a copy then.
    """
    with ExitStack() as stack:
        given = stack.enter_context(input_file(source))
        if is_standard(output):
            folder = stack.enter_context(TemporaryDirectory(prefix="lowtide-"))
            held = Path(folder) / "results.jsonl"
            beside = Path(f"{given.stem}.jsonl")  # in the working directory
        else:
            held = beside = writable_target(output)
        error_path = errors or errors_beside(beside)
        check_paths(given, held, error_path)
        if model is not None:
            copies = stack.enter_context(TemporaryDirectory(prefix="lowtide-"))
            copy = Path(copies) / given.name
            override_model(given, copy, model)
            given = copy
        yield _Paths(given, output, error_path, held)


def _begin(
    paths: _Paths, target: RunTarget, folder: RunFolder, how: RunOptions
) -> tuple[Job, RunState]:
    """The job, and the step at which an earlier process of it stopped. Raises CommandError."""
    before = None if how.restart else folder.load(RunState)
    if before is None:
        for path in (paths.held, paths.errors):
            refuse_to_replace(path, is_there=path.is_file(), force=how.force or how.restart)
    job = plan_job(paths.source, how.endpoint, target)
    if before is None:
        discard_previous(folder, RunState, job.backend.api_key)
    else:
        check_same(before, job.state, paths.held)
    if job.backend.mapped is not None:
        console.info(f"[yellow]Note:[/] {escape(job.backend.mapped)}")
    return job, before or job.state


def _remove_stale(batch: BatchView, paths: _Paths) -> None:
    """Results of another run, that --force allowed to replace and that nothing will replace."""
    if batch.status == "failed":
        return
    if batch.output_id is None and not is_standard(paths.output):
        paths.output.unlink(missing_ok=True)
    if batch.error_id is None:
        paths.errors.unlink(missing_ok=True)


def _run_batch(
    client: ServerClient, job: Job, folder: RunFolder, state: RunState, *, quiet: bool
) -> JsonObject:
    """Uploads, creates and watches, leaving out what is done already. The batch at its end."""
    state = _record(folder, state)  # from here on there is something to go on with
    if state.file_id is None:
        with transfer_bar(f"Uploading {job.source.name}") as advance:
            file = client.upload(job.source, job.purpose, advance)
        state = _record(folder, state, file_id=str(file["id"]))
    if state.batch_id is None:
        state = _record(folder, state, batch_id=_create(client, job, state))
    elif not quiet:
        console.info(f"Going on with {escape(state.batch_id)}.")
    assert state.batch_id is not None
    is_local = job.state.server is None
    try:
        with BatchBar(quiet=quiet) as bar:
            if is_local:
                return watch(
                    client,
                    state.batch_id,
                    bar,
                    poll_s_max=LOCAL_POLL_S_MAX,
                    outage_s_max=LOCAL_OUTAGE_S_MAX,
                )
            return watch(client, state.batch_id, bar)
    except ServerRefused as error:
        if error.status != 404:
            raise
        raise command_errors.CommandError(
            f"The server does not know the batch {state.batch_id} any more.",
            "Begin anew with --restart.",
            code="batch_lost",
        ) from None


def _record(folder: RunFolder, state: RunState, **ids: str) -> RunState:
    """Saves the run's progress, so that a restarted run resumes after this step."""
    state = msgspec.structs.replace(state, **ids)
    folder.save(state)
    return state


def _create(client: ServerClient, job: Job, state: RunState) -> str:
    """The batch over the uploaded file: the one that an earlier process created and could
    not record, or a new one.
    """
    assert state.file_id is not None
    for known in client.batches(limit=100).get("data", []):
        if known.get("input_file_id") == state.file_id:
            return str(known["id"])
    created = client.create_batch(
        state.file_id,
        state.endpoint,
        job.backend.completion_window,
        {"lowtide_run": job.source.name},
    )
    note_window(read_view(created, BatchView))
    return str(created["id"])
