"""What all commands that ask a server for one thing have in common, said once.

Such a command is a generator function. Its first argument is what it asks; it yields the answer,
with which `--json` prints it and ends, and then goes on to show it to a person.
"""

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

from lowtide.cli.client.objects import JsonObject
from lowtide.cli.options import DEFAULT_SERVER, JsonOption, KeyOption, ServerOption, connect
from lowtide.cli.terminal import console

Answers = Iterator[JsonObject]
"""Yields one answer, and shows it when asked for the next."""


def server_command(ask: Callable[..., Answers]) -> Callable[..., None]:
    """Makes a command of `ask`, whose first argument is the server's client: adds `--server`,
    `--api-key` and `--json`."""

    def command(
        *,
        server: ServerOption = DEFAULT_SERVER,
        api_key: KeyOption = None,
        as_json: JsonOption = False,
        **given: Any,
    ) -> None:
        with connect(server, api_key) as client:
            print_answer(ask(client, **given), as_json=as_json)

    return with_options_of(ask, command)


def print_answer(answers: Answers, *, as_json: bool) -> None:
    """Prints the answer as JSON, or has it shown."""
    for answer in answers:
        if as_json:
            console.emit_json(answer)
            return


def with_options_of(
    ask: Callable[..., Answers], command: Callable[..., None], filled: int = 1
) -> Callable[..., None]:
    """Returns `command` under the name of `ask` and with the parameters of both.

    `filled` counts the first parameters of `ask`, which `command` fills in itself.
    """
    own = [*inspect.signature(ask).parameters.values()][filled:]
    shared = [*inspect.signature(command).parameters.values()][:-1]  # the last one is **given
    required_first = sorted((*own, *shared), key=lambda each: each.default is not each.empty)
    keywords = [each.replace(kind=each.KEYWORD_ONLY) for each in required_first]
    functools.update_wrapper(command, ask, assigned=("__module__", "__name__", "__doc__"))
    command.__signature__ = inspect.Signature(keywords)  # type: ignore[attr-defined] # typer reads it
    return command
