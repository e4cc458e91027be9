"""`lowtide backup`: a copy of the installation on this machine, while its server runs."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from lowtide.cli.options import ConfigOption, DataDirOption, JsonOption
from lowtide.cli.settings import read_settings
from lowtide.cli.terminal import command_errors, console, units
from lowtide.cli.terminal.counter import delayed_counter


def backup(
    dest: Annotated[Path, typer.Argument(metavar="DEST", help="A new folder for the backup.")],
    config_file: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy the database and every file it names into DEST. The server may go on working.

    A backup beside earlier ones stores only what is new: the rest is shared with the newest of
    them by hard links. One that was interrupted goes on when the same command is run again.

    Exit code: 0 all is copied, 1 blobs were missing before.
    """
    settings = read_settings(config_file, {"server.data_dir": str(data_dir) if data_dir else None})
    from lowtide.wiring.backup import BackupError, make_backup

    try:
        with delayed_counter("backing up") as advance:
            report = make_backup(settings, dest, lambda _what, done, of: advance(done, of))
    except BackupError as error:
        raise command_errors.CommandError(error.message, error.hint, code=error.code) from None
    manifest = report.manifest
    if as_json:
        console.emit_json(
            {
                "backup": str(report.path),
                "blobs": manifest.blobs,
                "bytes": manifest.blob_bytes + manifest.database_bytes,
                "new": report.new,
                "linked": report.linked,
                "copied": report.copied,
                "copied_bytes": report.copied_bytes,
                "base": None if report.base is None else str(report.base),
                "missing": manifest.missing,
                "missing_blobs": list(report.missing_keys),
            }
        )
    else:
        size = units.human_bytes(manifest.blob_bytes + manifest.database_bytes)
        blobs = units.plural(manifest.blobs, "blob")
        new = ""
        if report.base is not None:
            new = f"; {report.new:,} new, the rest shared with {report.base}"
        console.write(escape(f"{report.path}: {blobs}, {size}{new}"))
    if manifest.missing:
        console.info(
            f"[yellow]{units.plural(manifest.missing, 'blob')} that the database names were not"
            " there.[/] [dim]`lowtide doctor` says which, and mends it.[/]"
        )
        raise typer.Exit(command_errors.SOME_LINES_FAILED)
