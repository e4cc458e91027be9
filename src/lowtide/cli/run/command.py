"""`lowtide run`: one command from an input to its results, with or without a server.

The options, and the choice between the two kinds of run: over lines that are requests
(`run_lines`), and over the rows of a table (`table_run`).
"""

from pathlib import Path
from typing import Annotated

import typer

from lowtide.cli.options import ConfigOption, JsonOption, KeyOption
from lowtide.cli.run.run_target import RunOptions, RunTarget
from lowtide.cli.tables.table_options import (
    TableOptions,
    is_table,
    require_tables,
    with_table_options,
)


@with_table_options
def run(
    source: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help="Requests, one a line (JSONL; -: standard input); or with --prompt a table: CSV,"
            " TSV, Parquet, JSONL, Arrow, a folder or glob of them, s3:// or gs://.",
            show_default=False,
        ),
    ],
    output: Annotated[
        str,
        typer.Option(
            "-o",
            "--output",
            metavar="OUTPUT",
            help="Where results go. -: standard output. A table's format is that of its ending.",
        ),
    ],
    errors: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where failed lines go. Default: OUTPUT.errors.jsonl"),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Ask this model, whatever the lines name. Without --url and --server it is loaded"
            " here: demo, a GGUF file or a hub id.",
        ),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Answer with the engine at http://host:port/v1."),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Hand it to this Lowtide server. [LOWTIDE_SERVER]"),
    ] = None,
    window: Annotated[
        int | None, typer.Option(min=1, help="Requests in flight at once, with --model or --url.")
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Default: what the first line names, else chat."),
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Throw away an unfinished run and begin anew.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an output that is there already.")
    ] = False,
    *,
    options: TableOptions,
    config_file: ConfigOption = None,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run every request of a file, or one for each row of a table, and write the results.

    No server is needed. A table comes back with the same rows and columns, and the answers beside
    them. After Ctrl-C or a crash, the same command goes on where it stopped.
    Exit code: 0 all lines succeeded, 1 some failed, 2 usage, 3 the batch itself failed.
    """
    target = RunTarget(model, url, server, window, config_file, api_key)
    how = RunOptions(endpoint, restart=restart, force=force, as_json=as_json)
    if not is_table(source, options):
        from lowtide.cli.run.run_lines import run_lines

        run_lines(Path(source), Path(output), errors, target, how)
        return
    require_tables()
    if errors is not None:
        raise typer.BadParameter("--errors is not for tables: the column _error says it by row.")
    from lowtide.cli.tables.table_run import run_table  # loads what only tables need

    run_table(source, output, options, target, how)
