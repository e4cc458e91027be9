"""`lowtide run`: one command from an input file to its results, with or without a server.

The life of a run: check everything that can be checked, take the output's folder, find out how far
an earlier life came, upload, create the batch, watch, download, forget. Each step is recorded once
it is done, so whatever ends the process, the same command goes on behind the last one.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.markup import escape

from lowtide.cli import exits, screen
from lowtide.cli.bars import BatchBar, transfer_bar
from lowtide.cli.batch_report import exit_code_of, note_window, show_end
from lowtide.cli.client import ServerClient
from lowtide.cli.http_client import ServerRefused
from lowtide.cli.logs import log_to_file
from lowtide.cli.options import ConfigOption, JsonOption, KeyOption, connect
from lowtide.cli.outputs import errors_beside, writable_target
from lowtide.cli.results import collect
from lowtide.cli.run_plan import Job, Target, check_paths, plan_job
from lowtide.cli.run_state import RunFolder, RunState, check_same, hold
from lowtide.cli.screen import words_on_stderr
from lowtide.cli.standard_streams import input_file, is_standard, refuse_json_beside_results
from lowtide.cli.views import BatchView, JsonObject, read_view
from lowtide.cli.watching import watch

_LOCAL_POLL_S_MAX = 1.0  # asking oneself costs nothing
_LOCAL_OUTAGE_S_MAX = 0.0  # a server in this very process does not come back


def run(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="INPUT.jsonl", help="One request a line. -: standard input.", show_default=False
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", metavar="OUTPUT.jsonl", help="Where results go. -: standard output."
        ),
    ],
    errors: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where failed lines go. Default: OUTPUT.errors.jsonl"),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="demo|GGUF|HUB_ID", help="Answer with this model, on this machine."),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Answer with the engine at http://host:port/v1."),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Hand it to this Lowtide server. [LOWTIDE_SERVER]"),
    ] = None,
    window: Annotated[
        int | None, typer.Option(min=1, help="Requests in flight at once, with --model or --url.")
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Default: what the first line names, else chat."),
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Throw away an unfinished run and begin anew.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an output that is there already.")
    ] = False,
    config_file: ConfigOption = None,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run every request of a file and write the results. No server is needed.

    After Ctrl-C or a crash, the same command goes on where it stopped.
    Exit code: 0 all lines succeeded, 1 some failed, 2 usage, 3 the batch itself failed.
    """
    target = Target(model, url, server, window, config_file, api_key)
    refuse_json_beside_results(output, as_json=as_json)
    to_stdout = is_standard(output)
    with words_on_stderr(when=to_stdout), _paths(source, output, errors) as paths:
        with hold(paths.held) as folder:
            job, state = _begin(paths, endpoint, target, folder, restart=restart, force=force)
            with _place(job, folder, quiet=as_json) as client:
                answer = _carry_through(client, job, folder, state, quiet=as_json)
                batch = read_view(answer, BatchView)
                _remove_stale(batch, paths)
                found = collect(client, batch, paths.output, paths.errors, quiet=as_json)
            folder.remove()
        if as_json:
            screen.emit_json(found | {"batch": answer})
        else:
            show_end(batch, found)
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
def _paths(source: Path, output: Path, errors: Path | None) -> Iterator[_Paths]:
    """Where to read and to write, for as long as the context lasts. Raises CommandError."""
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
        yield _Paths(given, output, error_path, held)


def _begin(
    paths: _Paths,
    endpoint: str | None,
    target: Target,
    folder: RunFolder,
    *,
    restart: bool,
    force: bool,
) -> tuple[Job, RunState]:
    """The job, and where an earlier life of it left off. Raises CommandError."""
    before = None if restart else folder.recall()
    if before is None:
        _refuse_to_replace((paths.held, paths.errors), force=force or restart)
    job = plan_job(paths.source, endpoint, target)
    if before is None:
        _abandon(folder, job)
    else:
        check_same(before, job.state, paths.held)
    if job.mapped is not None:
        screen.note(f"[yellow]Note:[/] {escape(job.mapped)}")
    return job, before or job.state


def _remove_stale(batch: BatchView, paths: _Paths) -> None:
    """Results of another run, that --force allowed to replace and that nothing will replace."""
    if batch.status == "failed":
        return
    if batch.output_id is None and not is_standard(paths.output):
        paths.output.unlink(missing_ok=True)
    if batch.error_id is None:
        paths.errors.unlink(missing_ok=True)


def _refuse_to_replace(paths: tuple[Path, ...], *, force: bool) -> None:
    for path in paths:
        if path.is_file() and not force:
            raise exits.CommandError(
                f"{path} is there already.",
                "Choose another, or replace it with --force.",
                code="output_exists",
            )


def _abandon(folder: RunFolder, job: Job) -> None:
    """Clear what an earlier life left; a batch on a server is cancelled, if it can be."""
    try:
        state = folder.recall()
    except exits.CommandError:
        state = None
    if state is not None and state.server is not None and state.batch_id is not None:
        try:
            with connect(state.server, job.api_key) as client:
                client.cancel_batch(state.batch_id)
        except exits.CommandError as error:
            screen.note(
                f"[yellow]The earlier batch {escape(state.batch_id)} on {escape(state.server)}"
                f" could not be cancelled:[/] {escape(error.message)}"
            )
    folder.clear()


@contextmanager
def _place(job: Job, folder: RunFolder, *, quiet: bool) -> Iterator[ServerClient]:
    """A client for the server named, or for one of our own that lasts as long as the context.

    Says how to go on when the context ends early.
    """
    if job.state.server is not None:
        with connect(job.state.server, job.api_key) as client:
            try:
                yield client
            except (KeyboardInterrupt, exits.Terminated):
                screen.note(
                    f"The batch goes on at {escape(job.state.server)}. The same command waits for"
                    " it again and fetches the results."
                )
                raise
        return
    from lowtide.cli.local_server import LocalServer  # the whole server: slow to load

    log_to_file(folder.log_file)

    def tell(what: str) -> None:
        if not quiet:
            screen.note(f"[dim]{escape(what)}[/]")

    def on_drain() -> None:
        screen.note("Stopping: saving what is done. Ctrl-C again stops at once.")

    settings = job.settings_in(folder.data_dir)
    try:
        with (
            LocalServer(settings, job.embedded, on_progress=tell, on_drain=on_drain) as local,
            connect(local.address, None) as client,
        ):
            yield client
    except (KeyboardInterrupt, exits.Terminated):
        if folder.has_begun:
            screen.note(f"Kept in {escape(str(folder.path))}. The same command goes on from there.")
        raise
    except ServerRefused as error:
        if error.status >= 500:
            error.hint = f"Its log is {folder.log_file}."
        raise


def _carry_through(
    client: ServerClient, job: Job, folder: RunFolder, state: RunState, *, quiet: bool
) -> JsonObject:
    """Upload, create and watch, leaving out what is done already. The batch at its end."""
    state = _record(folder, state)  # from here on there is something to go on with
    if state.file_id is None:
        with transfer_bar(f"uploading {job.source.name}") as advance:
            file = client.upload(job.source, job.purpose, advance)
        state = _record(folder, state, file_id=str(file["id"]))
    if state.batch_id is None:
        state = _record(folder, state, batch_id=_create(client, job, state))
    elif not quiet:
        screen.note(f"Going on with {escape(state.batch_id)}.")
    assert state.batch_id is not None
    is_local = job.state.server is None
    try:
        with BatchBar(quiet=quiet) as bar:
            if is_local:
                return watch(
                    client,
                    state.batch_id,
                    bar,
                    poll_s_max=_LOCAL_POLL_S_MAX,
                    outage_s_max=_LOCAL_OUTAGE_S_MAX,
                )
            return watch(client, state.batch_id, bar)
    except ServerRefused as error:
        if error.status != 404:
            raise
        raise exits.CommandError(
            f"The server does not know the batch {state.batch_id} any more.",
            "Begin anew with --restart.",
            code="batch_lost",
        ) from None


def _record(
    folder: RunFolder, state: RunState, *, file_id: str | None = None, batch_id: str | None = None
) -> RunState:
    """Note a step that is done; from here on a new life begins behind it."""
    state = RunState(
        input=state.input,
        sha256=state.sha256,
        endpoint=state.endpoint,
        server=state.server,
        model=state.model,
        file_id=file_id or state.file_id,
        batch_id=batch_id or state.batch_id,
    )
    folder.remember(state)
    return state


def _create(client: ServerClient, job: Job, state: RunState) -> str:
    """The batch over the uploaded file: the one that an earlier life made and could not record,
    or a new one."""
    assert state.file_id is not None
    for known in client.batches(limit=100).get("data", []):
        if known.get("input_file_id") == state.file_id:
            return str(known["id"])
    created = client.create_batch(
        state.file_id, state.endpoint, job.completion_window, {"lowtide_run": job.source.name}
    )
    note_window(read_view(created, BatchView))
    return str(created["id"])
