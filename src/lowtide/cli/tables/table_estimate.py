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
from lowtide.cli.batches.estimate_report import exit_code_of_estimate, show_estimate
from lowtide.cli.batches.input_file import inspect
from lowtide.cli.batches.validate import offline_planner, show_failure
from lowtide.cli.client.http_client import ServerRefused
from lowtide.cli.client.objects import (
    AmountsView,
    EstimateView,
    JsonObject,
    ModelEstimateView,
    read_view,
)
from lowtide.cli.options import connect
from lowtide.cli.run.run_state import RunFolder
from lowtide.cli.run.run_target import ALL
from lowtide.cli.tables.table_batches import TOO_LARGE
from lowtide.cli.tables.table_parts import PartFiles
from lowtide.cli.tables.table_plan import PartWriter, TableJob
from lowtide.cli.tables.table_state import Part
from lowtide.cli.terminal import command_errors, console
from lowtide.core.accounts.money import dollars
from lowtide.core.validation.validator import ValidationFailure
from lowtide.tables.requests import CHAT, PartBounds, read_index

_TEXT_CHARS_SHOWN = 1_000  # of one text in a request; an image has megabytes
_BOUNDS = ("max_tokens", "max_completion_tokens")


def show_dry_run(job: TableJob, *, as_json: bool) -> None:
    """Prints the estimate. Ends with 0 when it would run, 3 when it would not. Raises
    CommandError, typer.Exit.
    """
    with TemporaryDirectory(prefix="lowtide-") as name:
        files = PartFiles(RunFolder(Path(name)), 0)
        part, estimate = _first_part(job, files)
        with files.index.open("rb") as index:
            faults = [entry for entry in read_index(index) if entry.fault]
        with files.requests.open("rb") as stream:
            shown = list(islice(stream, limits.TABLE_REQUESTS_SHOWN))
        estimate = _scaled(estimate, len(job.numbers) / part.rows)
    requests = [_shortened(msgspec.json.decode(line)) for line in shown]
    if as_json:
        console.emit_json(_as_json(job, requests, estimate, len(faults)))
        raise typer.Exit(exit_code_of_estimate(estimate))
    for request in requests:
        text = msgspec.json.format(msgspec.json.encode(request), indent=2).decode()
        console.write(escape(text))
    _show(job, part, estimate)
    for fault in faults[: limits.LINE_ERRORS_SHOWN]:
        console.write(f"  row {fault.number + 1:,}: [red]{escape(fault.fault or '')}[/]")
    raise typer.Exit(exit_code_of_estimate(estimate))


def _first_part(job: TableJob, files: PartFiles) -> tuple[Part, EstimateView]:
    """The largest first part of the table that fits in one batch, and its
    estimate. Raises CommandError.
    """
    requests_max = limits.REQUESTS_PER_BATCH
    while True:
        bounds = PartBounds(requests_max, limits.FILE_BYTES)
        part = PartWriter(job)(0, len(job.numbers), bounds, files)
        if not part.lines:
            with files.index.open("rb") as index:
                fault = next(read_index(index)).fault
            raise command_errors.CommandError(f"No row can be asked about: {fault}")
        estimate = _estimate(job, files.requests)
        if estimate is not None:
            return part, estimate
        if part.lines == 1:
            raise command_errors.CommandError(
                "The server takes no batch with the first request alone."
            )
        requests_max = part.lines // 2


def _estimate(job: TableJob, requests: Path) -> EstimateView | None:
    """The estimate of the file; None where it has more than the server takes in one batch."""
    if job.backend.server is None:
        return _judged_here(job, requests)
    with connect(job.backend.server, job.backend.api_key) as client:
        try:
            file_id = str(client.upload(requests, "batch")["id"])
        except ServerRefused as error:
            if error.code in TOO_LARGE:
                return None
            raise
        try:
            answer = client.create_batch(file_id, job.template.endpoint, dry_run=True)
        finally:
            client.delete_file(file_id)
    estimate = read_view(answer, EstimateView)
    if estimate.errors is not None and any(e.code in TOO_LARGE for e in estimate.errors.data):
        return None
    # What else passes a limit is split by the run itself.
    return msgspec.structs.replace(estimate, would_exceed=())


def _judged_here(job: TableJob, path: Path) -> EstimateView:
    planner = offline_planner(job.backend.settings)
    validator = planner.begin(job.template.endpoint, "openai", ALL, takes_any_model=True)
    result = inspect(path, validator).result
    if isinstance(result, ValidationFailure):
        show_failure(result)
        raise typer.Exit(command_errors.BATCH_FAILED)
    priced = planner.price(result)
    models = tuple(
        ModelEstimateView(
            model=share.model,
            requests=share.requests,
            input_tokens=share.input_tokens,
            output_tokens_max=share.output_tokens_max,
            amount=dollars(share.batch_pico),
            live_amount=dollars(share.live_pico),
            saved=dollars(share.live_pico - share.batch_pico),
        )
        for share in priced.models
    )
    totals = AmountsView(
        dollars(priced.batch_pico),
        dollars(priced.live_pico),
        dollars(priced.live_pico - priced.batch_pico),
    )
    return EstimateView(priced.requests, models, totals)


def _scaled(estimate: EstimateView, factor: float) -> EstimateView:
    """The estimate of all rows, scaled by `factor` from that of a part of them."""
    if factor == 1:
        return estimate
    share = Decimal(factor)
    models = tuple(
        msgspec.structs.replace(
            model,
            requests=round(model.requests * factor),
            input_tokens=round(model.input_tokens * factor),
            output_tokens_max=round(model.output_tokens_max * factor),
            **_amounts(model, share),
        )
        for model in estimate.models
    )
    totals = msgspec.structs.replace(estimate.totals, **_amounts(estimate.totals, share))
    return msgspec.structs.replace(
        estimate, requests=round(estimate.requests * factor), models=models, totals=totals
    )


def _amounts(of: AmountsView, share: Decimal) -> dict[str, Decimal]:
    return {name: getattr(of, name) * share for name in ("amount", "live_amount", "saved")}


def _shortened(value: Any) -> Any:
    """The value with long texts cut, at any depth."""
    if isinstance(value, dict):
        return {name: _shortened(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_shortened(each) for each in value]
    if isinstance(value, str) and len(value) > _TEXT_CHARS_SHOWN:
        return f"{value[:_TEXT_CHARS_SHOWN]}... ({len(value):,} characters)"
    return value


def _show(job: TableJob, part: Part, estimate: EstimateView) -> None:
    show_estimate(estimate)
    if part.rows < len(job.numbers):
        console.write(f"Estimated from the first {part.rows:,} of {len(job.numbers):,} rows.")
    if job.template.endpoint == CHAT and not any(job.template.params.get(n) for n in _BOUNDS):
        console.write(
            "Nothing bounds the answers (for example --param max_tokens=200), so their tokens and"
            " price are not in this."
        )


def _as_json(job: TableJob, requests: list[Any], estimate: EstimateView, faults: int) -> JsonObject:
    return {
        "rows": len(job.numbers),
        "requests": requests,
        "faults": faults,
        "estimate": msgspec.to_builtins(estimate),
        "columns": [field.name for field in job.columns.fields],
    }
