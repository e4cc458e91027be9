"""`lowtide restore`: a backup put back into an empty data directory."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from lowtide.cli.options import ConfigOption, DataDirOption, JsonOption
from lowtide.cli.settings import read_settings
from lowtide.cli.terminal import command_errors, console, units
from lowtide.cli.terminal.counter import delayed_counter


def restore(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A folder made by lowtide backup.")],
    config_file: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put the backup SRC into an empty data directory, after every byte of it was verified.

    Batches go on from where the backup has them when the server starts. What finished later runs
    again.
    """
    settings = read_settings(config_file, {"server.data_dir": str(data_dir) if data_dir else None})
    from lowtide.wiring.backup import BackupError
    from lowtide.wiring.restore import restore_backup

    try:
        with delayed_counter("restoring") as advance:
            report = restore_backup(settings, source, lambda _what, done, of: advance(done, of))
    except BackupError as error:
        raise command_errors.CommandError(error.message, error.hint, code=error.code) from None
    manifest = report.manifest
    if as_json:
        console.emit_json(
            {
                "data_dir": str(report.data_dir),
                "created_at": manifest.created_at.isoformat(),
                "blobs": manifest.blobs,
                "linked": report.linked,
                "copied": report.copied,
                "missing": manifest.missing,
            }
        )
        return
    when = units.human_instant(int(manifest.created_at.timestamp()))
    blobs = units.plural(manifest.blobs, "blob")
    console.write(
        escape(f"{report.data_dir}: as of {when}, {blobs}. `lowtide serve` goes on from there.")
    )
    if manifest.missing:
        console.info(
            f"[yellow]{units.plural(manifest.missing, 'blob')} were missing when it was made.[/]"
            " [dim]`lowtide doctor --repair` mends that.[/]"
        )
