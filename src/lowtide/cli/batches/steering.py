"""`lowtide batches retry` and `errors`: what failed, and running it again.

Added to the group of batches.py.
"""

from typing import Annotated

import typer
from rich.markup import escape

from lowtide.api.objects.failures import FailureGroupList
from lowtide.cli.batches.failures import show_failures
from lowtide.cli.client.objects import BatchView, JsonObject, read_view
from lowtide.cli.client.server_client import check_id
from lowtide.cli.options import (
    DEFAULT_SERVER,
    JsonOption,
    KeyOption,
    ServerOption,
    connect,
    examples,
)
from lowtide.cli.terminal import console

BatchId = Annotated[str, typer.Argument(metavar="BATCH_ID")]


def add_commands(app: typer.Typer) -> None:
    """Adds the commands of this module to the group of batches."""
    app.command(
        epilog=examples(
            "lowtide batches retry batch_abc123",
            "lowtide batches retry batch_abc123 --only failed --code 429 --model llama-3.1-8b",
        )
    )(retry)
    app.command(epilog=examples("lowtide batches errors batch_abc123"))(errors)


def retry(
    batch_id: BatchId,
    only: Annotated[
        str,
        typer.Option(
            metavar="failed|expired|cancelled|all_unsuccessful", help="Which lines without success."
        ),
    ] = "all_unsuccessful",
    code: Annotated[
        list[str] | None,
        typer.Option(metavar="CODE", help="Only lines with this error code; may be repeated."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Run them on this model instead.")
    ] = None,
    completion_window: Annotated[
        str | None,
        typer.Option(
            "--completion-window", "--window", metavar="24h", help="Default: as the batch had."
        ),
    ] = None,
    priority: Annotated[
        int | None, typer.Option(metavar="N", help="Higher goes first. Default: as the batch had.")
    ] = None,
    server: ServerOption = DEFAULT_SERVER,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run the lines of an ended batch that have no success again, as a new batch. Prints its id.

    Nothing is uploaded, and a line that succeeded in the batch or in a retry of it is not run.
    """
    asked = {
        "only": only,
        "codes": code,
        "model": model,
        "completion_window": completion_window,
        "priority": priority,
    }
    with connect(server, api_key) as client:
        given = {name: value for name, value in asked.items() if value is not None}
        answer = client.steering.retry(check_id(batch_id, "batch"), given)
    if as_json:
        console.emit_json(answer)
        return
    batch = read_view(answer, BatchView)
    console.write(batch.id)
    watch = f"lowtide batches watch {escape(batch.id)}"
    results = f"lowtide batches results {escape(batch.id)} --with-retries -o results.jsonl"
    console.info(f"Next: [bold]{watch}[/], then [bold]{results}[/]")


def errors(
    batch_id: BatchId,
    server: ServerOption = DEFAULT_SERVER,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show why lines failed so far: alike failures together, counted, with an example."""
    with connect(server, api_key) as client:
        answer: JsonObject = client.steering.failures(check_id(batch_id, "batch"))
    if as_json:
        console.emit_json(answer)
        return
    show_failures(read_view(answer, FailureGroupList))
