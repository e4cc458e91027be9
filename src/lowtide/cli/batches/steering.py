"""`lowtide batches retry`, `errors`, `pause`, `resume` and `set`: steering a batch that exists.

Added to the group of batches.py.
"""

from typing import Annotated

import typer
from rich.markup import escape

from lowtide.api.objects.failures import FailureGroupList
from lowtide.cli.batches.batch_report import show_batch
from lowtide.cli.batches.failures import show_failures
from lowtide.cli.batches.several import batches_command
from lowtide.cli.client.objects import BatchView, HoldsView, JsonObject, read_view
from lowtide.cli.client.server_client import ServerClient, check_id
from lowtide.cli.options import examples
from lowtide.cli.server_commands import Answers, server_command
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


@batches_command
def retry(
    client: ServerClient,
    batch_id: str,
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
) -> Answers:
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
    answer = client.steering.retry(batch_id, given)
    yield answer
    made = escape(read_view(answer, BatchView).id)
    console.write(made)
    watch = f"lowtide batches watch {made}"
    results = f"lowtide batches results {made} --with-retries -o results.jsonl"
    console.info(f"Next: [bold]{watch}[/], then [bold]{results}[/]")


@server_command
def errors(client: ServerClient, batch_id: BatchId) -> Answers:
    """Show why lines failed so far: alike failures together, counted, with an example."""
    answer: JsonObject = client.steering.failures(check_id(batch_id, "batch"))
    yield answer
    show_failures(read_view(answer, FailureGroupList))


@batches_command
def delete(client: ServerClient, batch_id: str) -> Answers:
    """Delete a batch that has ended, with its results. The input file stays."""
    answer = client.steering.delete(batch_id)
    yield answer
    console.write(f"Batch {escape(str(answer.get('id')))} and its results are deleted.")


OperatorOption = Annotated[
    bool,
    typer.Option(
        "--operator", help="As the operator, of any project's batch; needs a key with scope admin."
    ),
]


@batches_command
def pause(
    client: ServerClient,
    batch_id: str,
    in_flight: Annotated[
        str, typer.Option(metavar="finish|abort", help="What becomes of calls that are under way.")
    ] = "finish",
    operator: OperatorOption = False,
) -> Answers:
    """Pause a batch: no further request starts. Its completion window goes on."""
    answer = client.steering.pause(batch_id, in_flight, operator=operator)
    yield answer
    _show_holds(answer)


@batches_command
def resume(client: ServerClient, batch_id: str, operator: OperatorOption = False) -> Answers:
    """Let a paused batch go on, unless another hold is left."""
    answer = client.steering.resume(batch_id, operator=operator)
    yield answer
    _show_holds(answer)


def _show_holds(answer: JsonObject) -> None:
    batch = read_view(answer, HoldsView)
    who = {"user": "its users", "operator": "the operator", "spend_cap": "the spend cap"}
    names = " and ".join(who.get(hold, hold) for hold in batch.holds)
    words = f"is paused by {names}" if names else "may go on"
    console.write(f"Batch {escape(batch.id)} {escape(words)}.")


@server_command
def change(
    client: ServerClient,
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
) -> Answers:
    """Change priority, completion window or metadata of a batch that has not ended."""
    asked = {
        "priority": priority,
        "completion_window": completion_window,
        "metadata": dict(key_and_value(text) for text in metadata) if metadata else None,
    }
    given = {name: value for name, value in asked.items() if value is not None}
    if not given:
        raise CommandError("Nothing to change.", "Give --priority, --window or --metadata.")
    answer = client.steering.change(check_id(batch_id, "batch"), given)
    yield answer
    show_batch(read_view(answer, BatchView))


def key_and_value(text: str) -> tuple[str, str]:
    """Splits KEY=VALUE of --metadata. Raises typer.BadParameter."""
    key, equals, value = text.partition("=")
    if not (equals and key):
        raise typer.BadParameter(f"--metadata {text!r}: give KEY=VALUE.")
    return key, value
