"""Gathers a batch from a server and renders its page, for `lowtide report`.

The command imports this when it runs: the console's templates take a third of a second to import.
"""

from datetime import UTC, datetime
from typing import TypeVar

import msgspec

from lowtide import limits
from lowtide.api.console.batches.report import ReportedBatch, Sampled, render_report
from lowtide.api.objects.accounts import BatchCosts
from lowtide.api.objects.batches import BatchObject
from lowtide.api.objects.failures import FailureGroupList
from lowtide.api.objects.history import BatchEventList, BatchHistoryObject
from lowtide.api.objects.lines import LineObject
from lowtide.cli.client.http_client import ServerRefused
from lowtide.cli.client.objects import JsonObject
from lowtide.cli.client.server_client import ServerClient

Read = TypeVar("Read", bound=msgspec.Struct)


def page_of(client: ServerClient, batch_id: str) -> bytes:
    """Returns the page as HTML in UTF-8. Raises what the client's calls raise."""
    return render_report(_gathered(client, batch_id)).encode()


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


def _line(record: JsonObject) -> LineObject:
    result, request = (
        None if record[name] is None else msgspec.Raw(msgspec.json.encode(record[name]))
        for name in ("result", "request")
    )
    return LineObject(
        place=record["place"],
        line=record["line"],
        bytes=record["bytes"],
        result=result,
        request=request,
    )


def _read(answer: JsonObject, kind: type[Read]) -> Read:
    return msgspec.convert(answer, kind)
