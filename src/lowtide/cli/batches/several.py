"""One verb on several batches, named one after the other on the command line.

A refusal of one leaves the others done: it is told on standard error, and the command then ends
with the exit code 1. Called by the commands that steer batches.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from rich.markup import escape

from lowtide.cli.client.http_client import ServerRefused
from lowtide.cli.client.objects import JsonObject
from lowtide.cli.client.server_client import check_id
from lowtide.cli.options import DEFAULT_SERVER, JsonOption, KeyOption, ServerOption, connect
from lowtide.cli.server_commands import Answers, with_options_of
from lowtide.cli.terminal import console
from lowtide.cli.terminal.command_errors import SOME_LINES_FAILED


def batches_command(ask: Callable[..., Answers]) -> Callable[..., None]:
    """Makes a command on several batches of `ask`, which is about one: its first arguments are the
    client and the batch's id. See `server_command`."""

    def command(
        *,
        batch_ids: Annotated[list[str], typer.Argument(metavar="BATCH_ID...")],
        server: ServerOption = DEFAULT_SERVER,
        api_key: KeyOption = None,
        as_json: JsonOption = False,
        **given: Any,
    ) -> None:
        with connect(server, api_key) as client:
            _of_each(batch_ids, lambda batch_id: ask(client, batch_id, **given), as_json=as_json)

    return with_options_of(ask, command, 2)


def _of_each(batch_ids: Sequence[str], ask: Callable[[str], Answers], *, as_json: bool) -> None:
    """Asks for each and shows the answer; as JSON one object for one batch, a list for several.

    Raises CommandError where the one batch is refused, typer.Exit where one of several is.
    """
    for each in batch_ids:
        check_id(each, "batch")
    answers: list[JsonObject] = []
    refused = 0
    for batch_id in batch_ids:
        try:
            for answer in ask(batch_id):
                answers.append(answer)
                if as_json:
                    break
        except ServerRefused as error:
            if len(batch_ids) == 1:
                raise
            refused += 1
            console.info(escape(f"{batch_id}: {error.message}"))
    if as_json:
        console.emit_json(answers[0] if len(batch_ids) == 1 else answers)
    if refused:
        raise typer.Exit(SOME_LINES_FAILED)
