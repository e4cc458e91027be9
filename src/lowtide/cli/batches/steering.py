"""`lowtide batches retry`, `errors`, `pause`, `resume` and `set`: steering a batch that exists.

Added to the group of batches.py.
"""

from typing import Annotated

import typer
from rich.markup import escape

from lowtide.api.objects.failures import FailureGroupList
from lowtide.cli.batches.batch_report import show_batch
from lowtide.cli.batches.failures import show_failures
from lowtide.cli.batches.several import BatchIds, of_each
from lowtide.cli.client.objects import BatchView, HoldsView, JsonObject, read_view
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
from lowtide.cli.terminal.command_errors import CommandError

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
    app.command(
        epilog=examples(
            "lowtide batches pause batch_abc123",
            "lowtide batches pause batch_abc123 --in-flight abort",
        )
    )(pause)
    app.command(epilog=examples("lowtide batches resume batch_abc123"))(resume)
    app.command(
        "set",
        epilog=examples(
            "lowtide batches set batch_abc123 --priority 10",
            "lowtide batches set batch_abc123 --window 48h --metadata team=evals",
        ),
    )(change)
    app.command(epilog=examples("lowtide batches delete batch_abc123"))(delete)


def retry(
    batch_ids: BatchIds,
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
    group: Annotated[
        list[str] | None,
        typer.Option(metavar="GROUP", help="Only lines of this group, as `errors` shows it."),
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
        "groups": group,
        "model": model,
        "completion_window": completion_window,
        "priority": priority,
    }
    given = {name: value for name, value in asked.items() if value is not None}

    def tell(answer: JsonObject) -> None:
        batch_id = escape(read_view(answer, BatchView).id)
        console.write(batch_id)
        watch = f"lowtide batches watch {batch_id}"
        results = f"lowtide batches results {batch_id} --with-retries -o results.jsonl"
        console.info(f"Next: [bold]{watch}[/], then [bold]{results}[/]")

    with connect(server, api_key) as client:

        def ask(batch_id: str) -> JsonObject:
            return client.steering.retry(batch_id, given)

        of_each(batch_ids, ask, tell, as_json=as_json)


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


def delete(
    batch_ids: BatchIds,
    server: ServerOption = DEFAULT_SERVER,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete a batch that has ended, with its results. The input file stays."""
    with connect(server, api_key) as client:
        of_each(batch_ids, client.steering.delete, _show_deleted, as_json=as_json)


def _show_deleted(answer: JsonObject) -> None:
    console.write(f"Batch {escape(str(answer.get('id')))} and its results are deleted.")


OperatorOption = Annotated[
    bool,
    typer.Option(
        "--operator", help="As the operator, of any project's batch; needs a key with scope admin."
    ),
]


def pause(
    batch_ids: BatchIds,
    in_flight: Annotated[
        str, typer.Option(metavar="finish|abort", help="What becomes of calls that are under way.")
    ] = "finish",
    operator: OperatorOption = False,
    server: ServerOption = DEFAULT_SERVER,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Pause a batch: no further request starts. Its completion window goes on."""
    with connect(server, api_key) as client:

        def ask(batch_id: str) -> JsonObject:
            return client.steering.pause(batch_id, in_flight, operator=operator)

        of_each(batch_ids, ask, _show_holds, as_json=as_json)


def resume(
    batch_ids: BatchIds,
    operator: OperatorOption = False,
    server: ServerOption = DEFAULT_SERVER,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a paused batch go on, unless another hold is left."""
    with connect(server, api_key) as client:

        def ask(batch_id: str) -> JsonObject:
            return client.steering.resume(batch_id, operator=operator)

        of_each(batch_ids, ask, _show_holds, as_json=as_json)


def _show_holds(answer: JsonObject) -> None:
    batch = read_view(answer, HoldsView)
    who = {"user": "its users", "operator": "the operator", "spend_cap": "the spend cap"}
    names = " and ".join(who.get(hold, hold) for hold in batch.holds)
    words = f"is paused by {names}" if names else "may go on"
    console.write(f"Batch {escape(batch.id)} {escape(words)}.")


def change(
    batch_id: BatchId,
    priority: Annotated[int | None, typer.Option(metavar="N", help="Higher goes first.")] = None,
    completion_window: Annotated[
        str | None,
        typer.Option(
            "--completion-window", "--window", metavar="48h", help="Counts from its creation."
        ),
    ] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Replaces all of it; may be repeated."),
    ] = None,
    server: ServerOption = DEFAULT_SERVER,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change priority, completion window or metadata of a batch that has not ended."""
    asked = {
        "priority": priority,
        "completion_window": completion_window,
        "metadata": dict(key_and_value(text) for text in metadata) if metadata else None,
    }
    given = {name: value for name, value in asked.items() if value is not None}
    if not given:
        raise CommandError("Nothing to change.", "Give --priority, --window or --metadata.")
    with connect(server, api_key) as client:
        answer = client.steering.change(check_id(batch_id, "batch"), given)
    if as_json:
        console.emit_json(answer)
        return
    show_batch(read_view(answer, BatchView))


def key_and_value(text: str) -> tuple[str, str]:
    """Splits KEY=VALUE of --metadata. Raises typer.BadParameter."""
    key, equals, value = text.partition("=")
    if not (equals and key):
        raise typer.BadParameter(f"--metadata {text!r}: give KEY=VALUE.")
    return key, value
