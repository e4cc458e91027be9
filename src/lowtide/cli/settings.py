"""How a command of the operator reads its settings, and says from which file.

`serve`, `worker`, `doctor`, `backup`, `restore` and the administrator's commands use it: where no
file is named and there is no ./lowtide.toml, /etc/lowtide/lowtide.toml is read. Commands for
submitters read a local file alone, for they are no part of an installation.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.markup import escape

from lowtide import config
from lowtide.cli.terminal import console
from lowtide.config import Settings


def read_settings(
    named: Path | None, flags: Mapping[str, Any] | None = None, *, always_say: bool = False
) -> Settings:
    """The settings of the installation on this machine. Raises ConfigError.

    Says on standard error which file was read, where the user did not choose it or `always_say`.
    """
    file = config.settings_file(named, system=True)
    settings = config.load(file, flags=flags)
    if file is not None and (always_say or file == config.SYSTEM_FILE):
        console.info(f"[dim]settings: {escape(str(file))}[/]")
    elif always_say:
        nowhere = f"no ./{config.DEFAULT_FILE} and no {config.SYSTEM_FILE}: the defaults"
        console.info(f"[dim]settings: {escape(nowhere)}[/]")
    return settings
