"""The options that many commands share, declared once so that they read the same everywhere."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lowtide.cli.client.address import DEFAULT_SERVER as DEFAULT_SERVER
from lowtide.cli.client.address import server_address

if TYPE_CHECKING:
    from lowtide.cli.client.server_client import ServerClient

ServerOption = Annotated[
    str,
    typer.Option(
        "--server", envvar="LOWTIDE_SERVER", metavar="URL", help="The Lowtide server to talk to."
    ),
]
KeyOption = Annotated[
    str | None,
    typer.Option(
        "--api-key", envvar="LOWTIDE_API_KEY", metavar="KEY", help="Key for that server, if any."
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON value on standard output, nothing else.")
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Settings file. Default: ./lowtide.toml; for a server and its administration, else"
        " /etc/lowtide/lowtide.toml.",
    ),
]

DataDirOption = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="The installation's folder, instead of the settings' own."),
]
DeskServerOption = Annotated[
    str | None,
    typer.Option(
        "--server",
        envvar="LOWTIDE_SERVER",
        metavar="URL",
        help="Ask this running server. Default: work on the installation on this machine.",
    ),
]
AdminKeyOption = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        envvar="LOWTIDE_API_KEY",
        metavar="KEY",
        help="Key for that server, with the scope admin.",
    ),
]


def connect(server: str, api_key: str | None) -> "ServerClient":
    """A client for what the two options say. Raises CommandError when the address is none."""
    from lowtide.cli.client.http_client import HttpClient
    from lowtide.cli.client.server_client import (
        ServerClient,  # `serve` has these options' module, and no client
    )

    return ServerClient(HttpClient(server_address(server), api_key))


def command_group(*, help: str) -> typer.Typer:
    """A group of commands; `cli.commands` reads its help from the source."""
    return typer.Typer(no_args_is_help=True, help=help, rich_markup_mode="rich")


def examples(*commands: str) -> str:
    """The end of a help text: commands that work as they stand, one a line."""
    return "\n\n".join(("[bold]Examples[/]", *(f"  {command}" for command in commands)))
