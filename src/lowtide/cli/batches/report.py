"""`lowtide report`: a batch as one page in a file, to keep or to send to whoever has no console."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from lowtide.cli.batches.outputs import writable_target
from lowtide.cli.client.server_client import check_id
from lowtide.cli.client.whole_file import whole_file
from lowtide.cli.options import DEFAULT_SERVER, JsonOption, KeyOption, ServerOption, connect
from lowtide.cli.terminal import console
from lowtide.cli.terminal.standard_streams import is_standard, refuse_json_beside_results


def report(
    batch_id: Annotated[str, typer.Argument(metavar="BATCH_ID")],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="Where the page goes.")
    ],
    server: ServerOption = DEFAULT_SERVER,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a batch's page as one HTML file: states, plots, money, failures, sample lines.

    The file needs nothing else: no server, no script, no other host. It stays under 1 MB.
    """
    from lowtide.cli.batches.report_page import page_of

    check_id(batch_id, "batch")
    refuse_json_beside_results(output, as_json=as_json)
    to_stdout = is_standard(output)
    target = output if to_stdout else writable_target(output)
    with connect(server, api_key) as client:
        page = page_of(client, batch_id)
    if to_stdout:
        sys.stdout.buffer.write(page)
        return
    with whole_file(target) as stream:
        stream.write(page)
    if as_json:
        console.emit_json({"batch": batch_id, "output": str(target), "bytes": len(page)})
    else:
        console.write(f"{escape(str(target))}: {len(page):,} bytes.")
