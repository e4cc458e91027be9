"""`lowtide report`: a batch as one page in a file, to keep or to send to whoever has no console."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
import typer
from rich.markup import escape

from lowtide import limits
from lowtide.api.console.batches.report import ReportedBatch, Sampled, render_report
from lowtide.api.objects.accounts import BatchCosts
from lowtide.api.objects.batches import BatchObject
from lowtide.api.objects.failures import FailureGroupList
from lowtide.api.objects.history import BatchEventList, BatchHistoryObject
from lowtide.api.objects.lines import LineObject
from lowtide.cli.batches.outputs import writable_target
from lowtide.cli.client.http_client import ServerRefused
from lowtide.cli.client.objects import JsonObject
from lowtide.cli.client.server_client import ServerClient, check_id
from lowtide.cli.client.whole_file import whole_file
from lowtide.cli.options import DEFAULT_SERVER, JsonOption, KeyOption, ServerOption, connect
from lowtide.cli.terminal import console
from lowtide.cli.terminal.standard_streams import is_standard, refuse_json_beside_results

Read = TypeVar("Read", bound=msgspec.Struct)


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
    check_id(batch_id, "batch")
    refuse_json_beside_results(output, as_json=as_json)
    to_stdout = is_standard(output)
    target = output if to_stdout else writable_target(output)
    with connect(server, api_key) as client:
        page = render_report(_gathered(client, batch_id)).encode()
    if to_stdout:
        sys.stdout.buffer.write(page)
        return
    with whole_file(target) as stream:
        stream.write(page)
    if as_json:
        console.emit_json({"batch": batch_id, "output": str(target), "bytes": len(page)})
    else:
        console.write(f"{escape(str(target))}: {len(page):,} bytes.")


def _gathered(client: ServerClient, batch_id: str) -> ReportedBatch:
    batch = _read(client.batch(batch_id), BatchObject)
    failures = _read(client.steering.failures(batch_id), FailureGroupList)
    return ReportedBatch(
        batch=batch,
        filename=_filename(client, batch.input_file_id),
        costs=_read(client.reading.costs(batch_id), BatchCosts).data,
        failures=failures.data,
        rates=_read(client.reading.history(batch_id), BatchHistoryObject).data,
        events=_read(client.reading.events(batch_id), BatchEventList).data,
        results=_sampled(client, batch_id, "output"),
        errors=_sampled(client, batch_id, "errors"),
        made_at=datetime.now(UTC),
    )


def _filename(client: ServerClient, file_id: str) -> str:
    try:
        return str(client.file(file_id).get("filename", ""))
    except ServerRefused:
        return ""  # it is deleted, and the batch goes on without


def _sampled(client: ServerClient, batch_id: str, kind: str) -> Sampled:
    """Lines from places that are spread evenly over what the file has by now."""
    try:
        first = _lines(client, batch_id, kind, 0)
    except ServerRefused:
        return Sampled((), 0)  # the results are deleted
    total = first.total
    wanted = min(limits.REPORT_SAMPLES, total)
    pages = [first]
    pages += [_lines(client, batch_id, kind, each * total // wanted) for each in range(1, wanted)]
    return Sampled([line for page in pages for line in page.lines], total)


def _lines(client: ServerClient, batch_id: str, kind: str, first: int) -> Sampled:
    page = client.reading.lines(batch_id, kind, first, limit=1)
    return Sampled([_line(each) for each in page["data"]], page["total"])


def _line(told: JsonObject) -> LineObject:
    result, request = (
        None if told[name] is None else msgspec.Raw(msgspec.json.encode(told[name]))
        for name in ("result", "request")
    )
    return LineObject(
        place=told["place"], line=told["line"], bytes=told["bytes"], result=result, request=request
    )


def _read(answer: JsonObject, kind: type[Read]) -> Read:
    return msgspec.convert(answer, kind)
