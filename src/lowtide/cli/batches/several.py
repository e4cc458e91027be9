"""One verb on several batches, named one after the other on the command line.

A refusal of one leaves the others done: it is told on standard error, and the command then ends
with the exit code 1. Called by the commands that steer batches.
"""

from collections.abc import Callable, Sequence
from typing import Annotated

import typer
from rich.markup import escape

from lowtide.cli.client.http_client import ServerRefused
from lowtide.cli.client.objects import JsonObject
from lowtide.cli.client.server_client import check_id
from lowtide.cli.terminal import console
from lowtide.cli.terminal.command_errors import SOME_LINES_FAILED

BatchIds = Annotated[list[str], typer.Argument(metavar="BATCH_ID...")]


def of_each(
    batch_ids: Sequence[str],
    ask: Callable[[str], JsonObject],
    tell: Callable[[JsonObject], None],
    *,
    as_json: bool,
) -> None:
    """Asks for each and tells the answer; as JSON one object for one batch, a list for several.

    Raises CommandError where the one batch is refused, typer.Exit where one of several is.
    """
    for each in batch_ids:
        check_id(each, "batch")
    answers: list[JsonObject] = []
    refused = 0
    for batch_id in batch_ids:
        try:
            answer = ask(batch_id)
        except ServerRefused as error:
            if len(batch_ids) == 1:
                raise
            refused += 1
            console.info(escape(f"{batch_id}: {error.message}"))
            continue
        answers.append(answer)
        if not as_json:
            tell(answer)
    if as_json:
        console.emit_json(answers[0] if len(batch_ids) == 1 else answers)
    if refused:
        raise typer.Exit(SOME_LINES_FAILED)
