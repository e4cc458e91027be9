"""One file on several models: a batch each in a common group, and their answers side by side.

Called by `lowtide batches create --model A --model B` and `lowtide batches compare`. Invariant: a
row has the answers of one line of the input, whatever order they came in: results joined over
retries are in input order, and each `custom_id` is in each batch once.
"""

import csv
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, TextIO

import typer

from lowtide.cli.batches.outputs import writable_target
from lowtide.cli.client.objects import BatchView, JsonObject, read_view
from lowtide.cli.client.server_client import ServerClient, check_id
from lowtide.cli.options import DEFAULT_SERVER, JsonOption, KeyOption, ServerOption, connect
from lowtide.cli.terminal import console, units
from lowtide.cli.terminal.command_errors import CommandError
from lowtide.cli.terminal.standard_streams import is_standard, refuse_json_beside_results
from lowtide.tables.result_lines import LineResult, read_result

GROUP = "group"
"""The key of `metadata` that batches of one create share."""


def fields_for(models: Sequence[str], metadata: Mapping[str, str]) -> Iterator[JsonObject]:
    """Yields `model` and `metadata` of each batch of a create; without a model, of the one."""
    if len(models) > 1:
        metadata = {GROUP: f"group_{secrets.token_hex(6)}", **metadata}
    for model in models or (None,):
        given = {"model": model} if model is not None else {}
        yield given | ({"metadata": dict(metadata)} if metadata else {})


def compare(
    batch_ids: Annotated[
        list[str], typer.Argument(metavar="BATCH_ID...", help="Ended batches over one input.")
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE.csv", help="Where the table goes.")
    ],
    server: ServerOption = DEFAULT_SERVER,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Put the answers of several batches over one input side by side, a row for each line.

    The columns are custom_id and one for each batch, named by its model. Retries count as part of
    their batch. An answer that failed is empty.
    """
    refuse_json_beside_results(output, as_json=as_json)
    with ExitStack() as stack:
        client = stack.enter_context(connect(server, api_key))
        ids = [check_id(batch_id, "batch") for batch_id in batch_ids]
        batches = [read_view(client.batch(batch_id), BatchView) for batch_id in ids]
        if len({batch.input_file_id for batch in batches}) > 1:
            raise CommandError("These batches have different input files.")
        stream = sys.stdout
        if not is_standard(output):
            stream = stack.enter_context(writable_target(output).open("w", newline=""))
        rows = _write(stream, client, batches)
    if as_json:
        console.emit_json({"output": str(output), "rows": rows, "batches": ids})
    elif not is_standard(output):
        console.write(f"Written: {units.plural(rows, 'row')} to {output}.")


def _write(stream: TextIO, client: ServerClient, batches: Sequence[BatchView]) -> int:
    names = [batch.model or batch.id for batch in batches]
    if len(set(names)) < len(names):
        names = [batch.id for batch in batches]
    table = csv.writer(stream)
    table.writerow(["custom_id", *names])
    rows = 0
    columns = [map(read_result, client.steering.joined_lines(batch.id)) for batch in batches]
    for results in zip_longest(*columns):
        table.writerow(_row(results))
        rows += 1
    return rows


def _row(results: Sequence[LineResult | None]) -> list[str]:
    ids = {result.custom_id if result is not None else None for result in results}
    if len(ids) != 1 or None in ids:
        raise CommandError("These batches do not have the same lines.")
    return [str(ids.pop()), *(result.text or "" for result in results if result is not None)]
