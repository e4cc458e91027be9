"""`lowtide validate`: the server's own validation, offline, with an estimate of tokens and price.

Reads the file only. What it reports is what a batch over this file would fail with.
"""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer
from rich.markup import escape

from lowtide import config, limits
from lowtide.api.objects.batches import LineErrorObject
from lowtide.cli.batches.batch_report import show_grouped, warning_markup
from lowtide.cli.batches.estimate_report import ESTIMATE_COLUMNS
from lowtide.cli.batches.input_file import (
    Inspection,
    guess_endpoint,
    guess_purpose,
    inspect,
    readable_input,
)
from lowtide.cli.client.objects import JsonObject
from lowtide.cli.options import ConfigOption, JsonOption
from lowtide.cli.terminal import command_errors, console, table, units
from lowtide.cli.terminal.progress import delayed_bar
from lowtide.cli.terminal.standard_streams import input_file
from lowtide.config import Settings
from lowtide.core.accounts.estimate import Estimate, ModelEstimate
from lowtide.core.accounts.money import dollars, dollars_text
from lowtide.core.batches.line import ENDPOINTS, Dialect
from lowtide.core.files.file import dialect_of_purpose
from lowtide.core.replicas.served_models import ALL
from lowtide.core.validation.first_line import DEFAULT_ENDPOINT
from lowtide.core.validation.planner import Planner
from lowtide.core.validation.validator import ValidationFailure
from lowtide.service.catalogue import catalogue_of


def validate(
    path: Annotated[Path, typer.Argument(metavar="INPUT.jsonl", help="A file of requests.")],
    endpoint: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Default: what the first line names, else chat."),
    ] = None,
    dialect: Annotated[
        Literal["openai", "together"] | None,
        typer.Option(help="openai wants method and url on each line. Default: as the first line."),
    ] = None,
    config_file: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check an input file as the server would, without one. Shows bad lines, tokens and price.

    Exit code: 0 the batch would run, 3 it would fail.
    """
    settings = config.load(config_file)
    with input_file(path) as source:
        readable_input(source)
        chosen = known_endpoint(endpoint) if endpoint else guess_endpoint(source)
        judged = chosen if chosen in ENDPOINTS else DEFAULT_ENDPOINT
        spoken = dialect or dialect_of_purpose(guess_purpose(source))
        planner = offline_planner(settings)
        validator = planner.begin(
            judged,
            spoken,
            settings.limits.requests_per_batch,
            takes_any_model=not _are_models_known(settings),
        )
        with delayed_bar(f"checking {source.name}", limits.VALIDATE_PROGRESS_AFTER_S) as advance:
            inspection = inspect(source, validator, advance)
    result = inspection.result
    cost = Estimate() if isinstance(result, ValidationFailure) else planner.price(result)
    too_large = inspection.bytes > settings.limits.file_bytes
    if as_json:
        console.emit_json(_as_json(path, judged, spoken, inspection, cost, settings))
    else:
        _show(path, inspection, cost, settings)
    failed = too_large or isinstance(inspection.result, ValidationFailure)
    raise typer.Exit(command_errors.BATCH_FAILED if failed else command_errors.DONE)


def offline_planner(settings: Settings) -> Planner:
    """The planner of a server with these settings."""
    return Planner(catalogue_of(settings), lambda: settings.limits)


def known_endpoint(endpoint: str) -> str:
    """`endpoint` as the server takes it. Raises CommandError."""
    if endpoint not in ENDPOINTS:
        raise command_errors.CommandError(
            f"--endpoint {endpoint!r} is not one that batches can use.",
            f"There are: {', '.join(sorted(ENDPOINTS))}",
        )
    return endpoint


def _are_models_known(settings: Settings) -> bool:
    """Whether the models are known; False where an engine's own list decides, or there
    is no engine yet.
    """
    served = [name for each in settings.replica for name in (*each.models, *each.names)]
    return bool(served) and ALL not in served


def _show(path: Path, inspection: Inspection, cost: Estimate, settings: Settings) -> None:
    console.write(
        f"[bold]{escape(str(path))}[/]: {units.plural(inspection.lines, 'line')},"
        f" {units.human_bytes(inspection.bytes)}"
    )
    too_large = inspection.bytes > settings.limits.file_bytes
    if too_large:
        limit = units.human_bytes(settings.limits.file_bytes)
        console.write(f"  [red]file_too_large:[/] a file may have {limit}. Split it into several.")
    if isinstance(inspection.result, ValidationFailure):
        show_failure(inspection.result)
        return
    _show_models(cost)
    show_inspection_warnings(inspection)
    if not too_large:
        requests = units.plural(inspection.result.requests, "request")
        console.write(f"[green]Good:[/] {requests} would run.")


def show_inspection_warnings(inspection: Inspection) -> None:
    """Prints what stops nothing, and is better known before it runs."""
    for warning in inspection.warnings:
        shown = LineErrorObject(warning.code, warning.message, warning.line, warning.param)
        console.write("  " + warning_markup(shown))


def show_failure(failure: ValidationFailure) -> None:
    """Prints the bad lines, and how many there are."""
    errors = [LineErrorObject(e.code, e.message, e.line, e.param) for e in failure.errors]
    show_grouped(errors, failure.total_errors)
    count = units.plural(failure.total_errors, "error")
    console.write(f"[red]Bad:[/] {count}; the batch would fail before anything runs.")


def _show_models(cost: Estimate) -> None:
    rows = [
        (
            share.model,
            f"{share.requests:,}",
            f"{share.input_tokens:,}",
            f"{share.output_tokens_max:,}" if share.is_bounded else "?",
            _price(share.live_pico, share),
            _price(share.batch_pico, share),
            _price(share.live_pico - share.batch_pico, share),
        )
        for share in cost.models
    ]
    table.show_table(ESTIMATE_COLUMNS, rows)
    if cost.has_price:
        batch, live = _dollars(cost.batch_pico), _dollars(cost.live_pico)
        saved = _dollars(cost.live_pico - cost.batch_pico)
        most = "at most " if cost.is_bounded else "more than "
        console.write(f"As a batch {most}{batch}; live {live}. Saved: {saved}.")


def _price(pico: int, share: ModelEstimate) -> str:
    if not share.has_price:
        return "-"
    return ("" if share.is_bounded else "from ") + _dollars(pico)


def _dollars(pico: int) -> str:
    return units.human_dollars(dollars(pico))


def _as_json(
    path: Path,
    endpoint: str,
    dialect: Dialect,
    inspection: Inspection,
    cost: Estimate,
    settings: Settings,
) -> JsonObject:
    answer: JsonObject = {
        "file": str(path),
        "bytes": inspection.bytes,
        "lines": inspection.lines,
        "sha256": inspection.sha256,
        "endpoint": endpoint,
        "dialect": dialect,
        "valid": False,
        "errors": [],
        "errors_total": 0,
        "warnings": msgspec.to_builtins(inspection.warnings),
        "models": {},
        "totals": None,
    }
    if isinstance(inspection.result, ValidationFailure):
        errors = msgspec.to_builtins(inspection.result.errors)
        return answer | {"errors": errors, "errors_total": inspection.result.total_errors}
    if inspection.bytes > settings.limits.file_bytes:
        message = f"The file is larger than {settings.limits.file_bytes} bytes."
        error = {"code": "file_too_large", "message": message, "line": None, "param": None}
        return answer | {"errors": [error], "errors_total": 1}
    models = {share.model: _model_json(share) for share in cost.models}
    return answer | {"valid": True, "models": models, "totals": _amounts(cost)}


def _model_json(share: ModelEstimate) -> JsonObject:
    return {
        "requests": share.requests,
        "input_tokens": share.input_tokens,
        "output_tokens_max": share.output_tokens_max,
        "is_bounded": share.is_bounded,
        **_amounts(share),
    }


def _amounts(cost: Estimate | ModelEstimate) -> JsonObject:
    """The exact amounts, under the names that a server's estimate has; null where
    no price is known.
    """
    pico = (cost.batch_pico, cost.live_pico, cost.live_pico - cost.batch_pico)
    texts = [dollars_text(amount) if cost.has_price else None for amount in pico]
    return dict(zip(("amount", "live_amount", "saved"), texts, strict=True))
