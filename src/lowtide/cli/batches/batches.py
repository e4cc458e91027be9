"""`lowtide batches`: create, list, get, watch, results, cancel; steering.py has the other verbs."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.markup import escape

from lowtide.api.console.batches.filter_box import query_of, read_filter
from lowtide.cli.batches.batch_report import (
    counts_of,
    exit_code_of,
    listed_status,
    metadata_of,
    model_of,
    name_first,
    note_window,
    sentence,
    short_model_of,
    show_batch,
    show_end,
)
from lowtide.cli.batches.comparison import compare, fields_for
from lowtide.cli.batches.estimate_report import exit_code_of_estimate, show_estimate
from lowtide.cli.batches.files import upload_file
from lowtide.cli.batches.outputs import errors_beside, writable_target
from lowtide.cli.batches.results import collect, collect_joined, follow
from lowtide.cli.batches.several import batches_command
from lowtide.cli.batches.steering import BatchId, add_commands, key_and_value
from lowtide.cli.client.objects import BatchView, EstimateView, JsonObject, read_view
from lowtide.cli.client.server_client import ServerClient, check_id
from lowtide.cli.client.stopped import hint_on_stop
from lowtide.cli.client.wait import watch as wait_for
from lowtide.cli.options import (
    DEFAULT_SERVER,
    JsonOption,
    KeyOption,
    ServerOption,
    command_group,
    connect,
    examples,
)
from lowtide.cli.server_commands import Answers, server_command
from lowtide.cli.terminal import command_errors, console, table, units
from lowtide.cli.terminal.command_errors import CommandError
from lowtide.cli.terminal.console import words_on_stderr
from lowtide.cli.terminal.progress import BatchBar
from lowtide.cli.terminal.standard_streams import is_standard, refuse_json_beside_results

app = command_group(help="Batches on a Lowtide server.")


@app.command(
    epilog=examples(
        "lowtide batches create batch.jsonl",
        "lowtide batches create file-abc123 --endpoint /v1/embeddings --metadata team=evals",
        "lowtide batches create file-abc123 --dry-run",
    )
)
def create(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="A JSONL file of requests, which is uploaded first; - for standard input; or the"
            " id that `files upload` printed.",
        ),
    ],
    endpoint: Annotated[
        str, typer.Option(metavar="PATH", help="Where every line's request goes.")
    ] = "/v1/chat/completions",
    completion_window: Annotated[
        str | None, typer.Option(metavar="24h", help="Time until what is left expires.")
    ] = None,
    metadata: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="May be given up to 16 times.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL",
            help="Run all lines on it, whatever they name. Repeated: a batch for each.",
        ),
    ] = None,
    delete_input: Annotated[
        bool, typer.Option("--delete-input", help="Delete the input file when the batch ends.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Start nothing: show the server's verdict and its price."),
    ] = False,
    server: ServerOption = DEFAULT_SERVER,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Start a batch over a file, here or uploaded before. Prints its id.

    With --dry-run, exit code: 0 it would run, 3 it would fail or pass a limit.
    """
    pairs = dict(key_and_value(text) for text in metadata or [])
    if dry_run and model and len(model) > 1:
        raise CommandError("--dry-run takes one --model at a time.")
    common = {"delete_input": True} if delete_input else {}
    with connect(server, api_key) as client:
        file_id = upload_file(client, Path(file)) if _is_path(file) else check_id(file, "file")
        answers = [
            client.create_batch(
                file_id, endpoint, completion_window, dry_run=dry_run, more=common | fields
            )
            for fields in fields_for(model or (), pairs)
        ]
    if as_json:
        console.emit_json(answers[0] if len(answers) == 1 else answers)
    if dry_run:
        estimate = read_view(answers[0], EstimateView)
        if not as_json:
            show_estimate(estimate)
        raise typer.Exit(exit_code_of_estimate(estimate))
    if not as_json:
        _show_created([read_view(answer, BatchView) for answer in answers])


def _show_created(batches: Sequence[BatchView]) -> None:
    for batch in batches:
        console.write(batch.id)
        note_window(batch)
    watch = f"lowtide batches watch {escape(batches[0].id)}"
    if len(batches) > 1:
        ids = " ".join(escape(batch.id) for batch in batches)
        watch = f"lowtide batches compare {ids} -o answers.csv"
    console.info(f"Next: [bold]{watch}[/]")


def _is_path(file: str) -> bool:
    """Whether a file is meant, rather than the id of one. Ids have neither a dot nor a slash."""
    path = Path(file)
    return is_standard(path) or path.exists() or bool(path.suffix) or len(path.parts) > 1


_ROOMY_COLUMNS: Final = 140  # from here on names and instants have room beside each other


@app.command(
    "list",
    epilog=examples(
        "lowtide batches list --limit 5",
        "lowtide batches list --filter 'state:running model:qwen created:<2d'",
        "lowtide batches list --filter error:timeout --quiet | xargs lowtide batches retry",
    ),
)
@server_command
def list_batches(
    client: ServerClient,
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many, newest first.")] = 20,
    typed: Annotated[
        str,
        typer.Option(
            "--filter",
            metavar="TEXT",
            help="As in the console's box: state:, model:, error:, created:<2d, text:, words.",
        ),
    ] = "",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the ids only.")] = False,
) -> Answers:
    """List batches, newest first."""
    query = query_of(read_filter(typed, datetime.now(UTC)))
    answer = client.batches(limit, query)
    if quiet:
        for entry in answer.get("data", []):
            console.write(read_view(entry, BatchView).id)
        return
    yield answer
    batches = [read_view(entry, BatchView) for entry in answer.get("data", [])]
    if not batches:
        console.info("No batch is like that." if typed.strip() else "No batch yet.")
        return
    show_list(batches)


def show_list(batches: Sequence[BatchView]) -> None:
    """Prints a row for each; the fewer columns the terminal has, the less of it."""
    created, shown_time = table.created(_ROOMY_COLUMNS)
    has_room = not console.is_narrow(_ROOMY_COLUMNS)
    wide = {} if console.is_narrow() else {"model": model_of if has_room else short_model_of}
    if wide and any(batch.metadata for batch in batches):
        wide["metadata"] = metadata_of if has_room else name_first
    table.show_table(
        (
            table.whole("id"),
            table.whole("status"),
            *map(table.number, ("succeeded", "failed", "not run", "to go")),
            created,
            *(table.name(heading) for heading in wide),
        ),
        [
            (
                batch.id,
                listed_status(batch),
                f"{batch.counts.completed:,}",
                f"{batch.seen_and_failed:,}",
                f"{batch.not_run_count:,}",
                f"{batch.counts.to_go:,}",
                shown_time(batch.created_at),
                *(what(batch) for what in wide.values()),
            )
            for batch in batches
        ],
    )


@app.command(epilog=examples("lowtide batches get batch_abc123 --json | jq .request_counts"))
@server_command
def get(client: ServerClient, batch_id: BatchId) -> Answers:
    """Show one batch as it is now."""
    answer = client.batch(check_id(batch_id, "batch"))
    yield answer
    show_batch(read_view(answer, BatchView))


@app.command(epilog=examples("lowtide batches watch batch_abc123 && echo all lines succeeded"))
def watch(
    batch_id: BatchId,
    server: ServerOption = DEFAULT_SERVER,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Wait for a batch with a progress bar. Ctrl-C stops the watching, not the batch.

    With --json: one line for each change, the last one is the end.
    Exit code: 0 all lines succeeded, 1 some failed, 3 the batch itself failed.
    """

    def tell(answer: JsonObject, _batch: BatchView) -> None:
        if as_json:
            console.emit_json_line(answer)

    check_id(batch_id, "batch")
    with (
        connect(server, api_key) as client,
        hint_on_stop(server, "watches it", batch_id),
        BatchBar(quiet=as_json) as bar,
    ):
        answer = wait_for(client, batch_id, bar, on_change=tell)
    batch = read_view(answer, BatchView)
    if not as_json:
        show_end(batch)
        if batch.output_id or batch.error_id:
            command = f"lowtide batches results {escape(batch.id)} -o results.jsonl"
            console.info(f"Next: [bold]{command}[/]")
    raise typer.Exit(exit_code_of(batch))


@app.command(
    epilog=examples(
        "lowtide batches results batch_abc123 -o results.jsonl",
        "lowtide batches results batch_abc123 -o results.jsonl --follow",
        "lowtide batches results batch_abc123 -o results.jsonl --with-retries",
    )
)
def results(
    batch_id: BatchId,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="Where the results go.")
    ],
    errors: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where failed lines go. Default: OUTPUT.errors.jsonl"),
    ] = None,
    follow_on: Annotated[
        bool,
        typer.Option(
            "--follow", help="Write lines as they finish, in the order they do, until the end."
        ),
    ] = False,
    with_retries: Annotated[
        bool,
        typer.Option(
            "--with-retries",
            help="Joined over the batch and its retries: each line once, a success if it has one.",
        ),
    ] = False,
    server: ServerOption = DEFAULT_SERVER,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Download results. Of a batch that still runs: what is finished by now.

    Exit code: 0 all lines succeeded, 1 some failed, 3 the batch itself failed.
    """
    check_id(batch_id, "batch")
    refuse_json_beside_results(output, as_json=as_json)
    to_stdout = is_standard(output)
    named = Path(f"{batch_id}.jsonl") if to_stdout else writable_target(output)
    error_path = writable_target(errors or errors_beside(named), "--errors", "errors.jsonl")
    with words_on_stderr(when=to_stdout), connect(server, api_key) as client:
        if follow_on:
            with hint_on_stop(server, "begins the file anew", batch_id):
                answer = follow(client, batch_id, output, quiet=as_json)
        else:
            answer = client.batch(batch_id)
        batch = read_view(answer, BatchView)
        if with_retries:
            collected = collect_joined(client, batch_id, output, error_path)
        else:
            collected = collect(
                client, batch, output, error_path, quiet=as_json, has_output=follow_on and to_stdout
            )
        if as_json:
            console.emit_json(collected | {"batch": answer})
        elif with_retries:
            _show_written("Joined over the batch and its retries.", collected)
        else:
            _show_results(batch, collected)
    if with_retries:
        is_clean = not collected["error_lines"]
        raise typer.Exit(command_errors.DONE if is_clean else command_errors.SOME_LINES_FAILED)
    raise typer.Exit(exit_code_of(batch) if batch.is_over else command_errors.DONE)


def _show_results(batch: BatchView, collected: JsonObject) -> None:
    if batch.is_over:
        show_end(batch, collected)
        return
    _show_written(f"{sentence(batch)}: {counts_of(batch)}.", collected)


def _show_written(words: str, collected: JsonObject) -> None:
    console.write(
        f"{words} Written: {units.plural(collected['output_lines'], 'result')},"
        f" {units.plural(collected['error_lines'], 'error')}."
    )


@app.command(
    epilog=examples(
        "lowtide batches cancel batch_abc123",
        "lowtide batches list --filter state:paused --quiet | xargs lowtide batches cancel",
    )
)
@batches_command
def cancel(client: ServerClient, batch_id: str) -> Answers:
    """Cancel a batch. What is finished stays, and can be downloaded."""
    answer = client.cancel_batch(batch_id)
    yield answer
    console.write(f"{sentence(read_view(answer, BatchView))}.")


add_commands(app)
app.command(epilog=examples("lowtide batches compare batch_abc123 batch_def456 -o answers.csv"))(
    compare
)
