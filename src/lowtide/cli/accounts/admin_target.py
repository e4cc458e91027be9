"""Which installation an operator's command is about, and the backend that serves it; what all
commands have in common that ask it for one thing (see server_commands.py).
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from lowtide.cli.accounts.admin_backend import AdminBackend
from lowtide.cli.client.address import server_address
from lowtide.cli.client.http_client import HttpClient
from lowtide.cli.options import (
    AdminKeyOption,
    ConfigOption,
    DataDirOption,
    DeskServerOption,
    JsonOption,
)
from lowtide.cli.server_commands import Answers, print_answer, with_options_of
from lowtide.cli.settings import read_settings
from lowtide.cli.terminal.command_errors import CommandError

OpenAdmin = Callable[..., AdminBackend]


class AdminTarget(msgspec.Struct, frozen=True):
    """The place of the backend, as the options of a command give it."""

    server: str | None
    api_key: str | None
    config_file: Path | None
    data_dir: Path | None


@contextmanager
def open_admin(place: AdminTarget, *, may_create: bool = False) -> Iterator[AdminBackend]:
    """The backend of a server where one is named, else that of the installation on this machine.

    `may_create`: make the installation's database if there is none yet. Raises CommandError.
    """
    server = _server_of(place)
    if server is not None:
        from lowtide.cli.accounts.remote_admin import RemoteAdmin

        with RemoteAdmin(HttpClient(server_address(server), place.api_key)) as remote:
            yield remote
        return
    flags = {"server.data_dir": str(place.data_dir) if place.data_dir else None}
    settings = read_settings(place.config_file, flags)
    from lowtide.cli.accounts.local_admin import LocalAdmin  # the whole store: slow to load

    with LocalAdmin(settings, may_create=may_create) as local:
        yield local


def _server_of(place: AdminTarget) -> str | None:
    """An option is stronger than the variable that names a server for all commands."""
    if place.server is None or (place.config_file is None and place.data_dir is None):
        return place.server
    if place.server == os.environ.get("LOWTIDE_SERVER"):
        return None
    option = "--data-dir" if place.data_dir is not None else "--config"
    raise CommandError(
        f"--server and {option} exclude each other.",
        f"A server has its own installation; {option} names one on this machine.",
    )


def admin_command(ask: Callable[..., Answers]) -> Callable[..., None]:
    """Makes a command of `ask`, whose first argument opens the backend, with `may_create` as
    `open_admin` has it: adds the options that name an installation, and `--json`."""

    def command(
        *,
        server: DeskServerOption = None,
        api_key: AdminKeyOption = None,
        config_file: ConfigOption = None,
        data_dir: DataDirOption = None,
        as_json: JsonOption = False,
        **given: Any,
    ) -> None:
        target = AdminTarget(server, api_key, config_file, data_dir)
        with ExitStack() as stack:

            def opened(*, may_create: bool = False) -> AdminBackend:
                return stack.enter_context(open_admin(target, may_create=may_create))

            print_answer(ask(opened, **given), as_json=as_json)

    return with_options_of(ask, command)
