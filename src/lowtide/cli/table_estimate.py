"""`lowtide run TABLE --dry-run`: the first requests, and what all of them would use and cost.

The requests of the first part are written to a temporary folder and judged: by a server's own dry
run where one is named (the file is deleted again), else here, with the prices of the settings. A
table that is larger than one part is estimated from it. Nothing runs.
"""

from decimal import Decimal
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import typer
from rich.markup import escape

from lowtide import limits
from lowtide.cli import exits, screen
from lowtide.cli.estimate import estimate
from lowtide.cli.estimate_report import show_estimate
from lowtide.cli.input_file import inspect
from lowtide.cli.options import connect
from lowtide.cli.run_state import RunFolder
from lowtide.cli.run_target import ALL
from lowtide.cli.table_batches import PartFiles
from lowtide.cli.table_plan import PartWriter, TableJob
from lowtide.cli.table_state import Part
from lowtide.cli.validate import show_failure
from lowtide.cli.views import AmountsView, EstimateView, JsonObject, ModelEstimateView, read_view
from lowtide.core.money import dollars
from lowtide.core.validation import ValidationFailure, ValidationRules
from lowtide.tables.requests import CHAT, PartBounds, read_index

_TEXT_CHARS_SHOWN = 1_000  # of one text in a request; an image has megabytes
_BOUNDS = ("max_tokens", "max_completion_tokens")


def show_dry_run(job: TableJob, *, as_json: bool) -> None:
    """Raises CommandError, and typer.Exit where the batch would fail."""
    with TemporaryDirectory(prefix="lowtide-") as name:
        files = PartFiles(RunFolder(Path(name)), 0)
        bounds = PartBounds(limits.REQUESTS_PER_BATCH, limits.FILE_BYTES)
        part = PartWriter(job)(0, len(job.numbers), bounds, files)
        with files.index.open("rb") as index:
            faults = [entry for entry in read_index(index) if entry.fault]
        if not part.lines:
            raise exits.CommandError(f"No row can be asked about: {faults[0].fault}")
        with files.requests.open("rb") as stream:
            shown = list(islice(stream, limits.TABLE_REQUESTS_SHOWN))
        found = _scaled(_estimate(job, files), len(job.numbers) / part.rows)
    requests = [_shortened(msgspec.json.decode(line)) for line in shown]
    if as_json:
        screen.emit_json(_as_json(job, requests, found, len(faults)))
        return
    for request in requests:
        text = msgspec.json.format(msgspec.json.encode(request), indent=2).decode()
        screen.say(escape(text))
    _show(job, part, found)
    for fault in faults[: limits.LINE_ERRORS_SHOWN]:
        screen.say(f"  row {fault.number + 1:,}: [red]{escape(fault.fault or '')}[/]")


def _estimate(job: TableJob, files: PartFiles) -> EstimateView:
    """Of the first part."""
    if job.who.server is None:
        return _judged_here(job, files.requests)
    with connect(job.who.server, job.who.api_key) as client:
        file_id = str(client.upload(files.requests, "batch")["id"])
        try:
            answer = client.create_batch(file_id, job.template.endpoint, dry_run=True)
        finally:
            client.delete_file(file_id)
    found = read_view(answer, EstimateView)
    # What passes a limit is split by the run itself.
    return msgspec.structs.replace(found, would_exceed=())


def _judged_here(job: TableJob, path: Path) -> EstimateView:
    rules = ValidationRules(endpoint=job.template.endpoint, dialect="openai", requests_max=ALL)
    inspection = inspect(path, rules)
    if isinstance(inspection.result, ValidationFailure):
        show_failure(inspection.result)
        raise typer.Exit(exits.BATCH_FAILED)
    priced = estimate(path, job.template.endpoint, inspection, job.who.settings)
    models = tuple(
        ModelEstimateView(
            model=name,
            requests=share.requests,
            input_tokens=share.input_tokens,
            output_tokens_max=share.output_tokens_max,
            amount=dollars(share.batch_pico),
            live_amount=dollars(share.live_pico),
            saved=dollars(share.live_pico - share.batch_pico),
        )
        for name, share in priced.models.items()
    )
    totals = AmountsView(
        dollars(priced.batch_pico),
        dollars(priced.live_pico),
        dollars(priced.live_pico - priced.batch_pico),
    )
    return EstimateView(sum(model.requests for model in models), models, totals)


def _scaled(found: EstimateView, factor: float) -> EstimateView:
    """For all rows, from what a part of them takes."""
    if factor == 1:
        return found
    share = Decimal(factor)
    models = tuple(
        msgspec.structs.replace(
            model,
            requests=round(model.requests * factor),
            input_tokens=round(model.input_tokens * factor),
            output_tokens_max=round(model.output_tokens_max * factor),
            **_amounts(model, share),
        )
        for model in found.models
    )
    totals = msgspec.structs.replace(found.totals, **_amounts(found.totals, share))
    return msgspec.structs.replace(
        found, requests=round(found.requests * factor), models=models, totals=totals
    )


def _amounts(of: AmountsView, share: Decimal) -> dict[str, Decimal]:
    return {name: getattr(of, name) * share for name in ("amount", "live_amount", "saved")}


def _shortened(value: Any) -> Any:
    """Long texts cut, at any depth."""
    if isinstance(value, dict):
        return {name: _shortened(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_shortened(each) for each in value]
    if isinstance(value, str) and len(value) > _TEXT_CHARS_SHOWN:
        return f"{value[:_TEXT_CHARS_SHOWN]}... ({len(value):,} characters)"
    return value


def _show(job: TableJob, part: Part, found: EstimateView) -> None:
    show_estimate(found)
    if part.rows < len(job.numbers):
        screen.say(f"Estimated from the first {part.rows:,} of {len(job.numbers):,} rows.")
    if job.template.endpoint == CHAT and not any(job.template.params.get(n) for n in _BOUNDS):
        screen.say(
            "Nothing bounds the answers (for example --param max_tokens=200), so their tokens and"
            " price are not in this."
        )


def _as_json(job: TableJob, requests: list[Any], found: EstimateView, faults: int) -> JsonObject:
    return {
        "rows": len(job.numbers),
        "requests": requests,
        "faults": faults,
        "estimate": msgspec.to_builtins(found),
        "columns": [field.name for field in job.columns.fields],
    }
