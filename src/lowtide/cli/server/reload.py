"""`lowtide reload`: has the server or worker of a data directory read its settings again."""

import os
import signal
from pathlib import Path

from lowtide.cli.options import ConfigOption, DataDirOption
from lowtide.cli.settings import read_settings
from lowtide.cli.terminal import console
from lowtide.cli.terminal.command_errors import CommandError
from lowtide.data_dir import LOCK_FILE, DataDirInUse, locked_data_dir


def reload(config_file: ConfigOption = None, data_dir: DataDirOption = None) -> None:
    """Have the server or worker on this machine read its settings again, without a restart.

    Settings with a mistake are told here, and the process is not asked. It is found by its data
    directory; what it made of the settings is in its log and in `lowtide engines`.
    """
    flags = {"server.data_dir": str(data_dir) if data_dir else None}
    folder = read_settings(config_file, flags).server.data_dir
    owner = _server_on(folder)
    if owner is None:
        raise CommandError(
            f"No server or worker runs on {folder.absolute()}.",
            "Name the folder of the one that runs with --data-dir.",
            code="not_running",
        )
    try:
        os.kill(owner, signal.SIGHUP)
    except (ProcessLookupError, PermissionError) as error:
        raise CommandError(
            f"Process {owner} cannot be asked: {error.strerror}.",
            "Run this as the user of the server, and in its container.",
            code="not_asked",
        ) from None
    console.info(f"Process {owner} reads its settings again; its log says what changed.")


def _server_on(folder: Path) -> int | None:
    """The process that runs on the folder and reloads at SIGHUP; None where none does. A command
    that holds the folder would be ended by the signal. Makes no folder.
    """
    if not (folder / LOCK_FILE).exists():
        return None
    try:
        with locked_data_dir(folder):
            return None
    except DataDirInUse as error:
        return int(error.owner) if error.reloads and error.owner.isdecimal() else None
