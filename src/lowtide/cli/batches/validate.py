"""`lowtide validate`: the server's own validation, offline, with an estimate of tokens and price.

Reads the file only. What it reports is what a batch over this file would fail with.
"""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer
from rich.markup import escape

from lowtide import config, limits
from lowtide.cli.batches.batch_report import line_error_markup, warning_markup
from lowtide.cli.batches.estimate import OfflineEstimate, OfflineModelEstimate, estimate
from lowtide.cli.batches.input_file import (
    DEFAULT_ENDPOINT,
    Inspection,
    guess_endpoint,
    guess_purpose,
    inspect,
    readable_input,
)
from lowtide.cli.client.objects import BatchErrorView, JsonObject
from lowtide.cli.options import ConfigOption, JsonOption
from lowtide.cli.terminal import command_errors, console
from lowtide.cli.terminal.progress import delayed_bar
from lowtide.cli.terminal.standard_streams import input_file
from lowtide.config import Settings
from lowtide.core.accounts.money import dollars, dollars_text
from lowtide.core.batches.line import ENDPOINTS
from lowtide.core.bodies.media_urls import media_rule
from lowtide.core.files.file import dialect_of_purpose
from lowtide.core.replicas.served_models import ALL
from lowtide.core.validation.validator import Dialect, ValidationFailure, ValidationRules


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
        rules = rules_for(source, settings, endpoint, dialect)
        with delayed_bar(f"checking {source.name}", limits.VALIDATE_PROGRESS_AFTER_S) as advance:
            inspection = inspect(source, rules, advance)
        cost = estimate(source, rules.endpoint, inspection, settings)
    too_large = inspection.bytes > settings.limits.file_bytes
    if as_json:
        console.emit_json(_as_json(path, rules, inspection, cost, settings))
    else:
        _show(path, inspection, cost, settings)
    failed = too_large or isinstance(inspection.result, ValidationFailure)
    raise typer.Exit(command_errors.BATCH_FAILED if failed else command_errors.DONE)


def rules_for(
    path: Path, settings: Settings, endpoint: str | None, dialect: Dialect | None
) -> ValidationRules:
    """What the server would hold this file to. Raises CommandError for an unknown endpoint.

    Without replicas in the settings any model is accepted: nobody knows here what will be served.
    """
    chosen = known_endpoint(endpoint) if endpoint else guess_endpoint(path)
    return ValidationRules(
        endpoint=chosen if chosen in ENDPOINTS else DEFAULT_ENDPOINT,
        dialect=dialect or dialect_of_purpose(guess_purpose(path)),
        models=_accepted_names(settings),
        requests_max=settings.limits.requests_per_batch,
        line_bytes_max=settings.limits.line_bytes,
        contexts=contexts_of(settings),
        media=media_rule(settings.limits.media_urls),
    )


def contexts_of(settings: Settings) -> dict[str, int]:
    """Tokens of prompt and answer together, of the models of which the settings say it."""
    return {m.id: m.context_length for m in settings.model if m.context_length is not None}


def known_endpoint(endpoint: str) -> str:
    """`endpoint` as the server takes it. Raises CommandError."""
    if endpoint not in ENDPOINTS:
        raise command_errors.CommandError(
            f"--endpoint {endpoint!r} is not one that batches can use.",
            f"There are: {', '.join(sorted(ENDPOINTS))}",
        )
    return endpoint


def _accepted_names(settings: Settings) -> dict[str, str] | None:
    """None where that cannot be said here: an engine's own list decides, or there is none yet."""
    served = [name for each in settings.replica for name in (*each.models, *each.names)]
    if not served or ALL in served:
        return None
    names = dict(zip(served, served, strict=True))
    for model in settings.model:
        names |= dict.fromkeys((model.id, *model.aliases), model.id)
    return names


def _show(path: Path, inspection: Inspection, cost: OfflineEstimate, settings: Settings) -> None:
    console.write(
        f"[bold]{escape(str(path))}[/]: {console.plural(inspection.lines, 'line')},"
        f" {console.human_bytes(inspection.bytes)}"
    )
    too_large = inspection.bytes > settings.limits.file_bytes
    if too_large:
        limit = console.human_bytes(settings.limits.file_bytes)
        console.write(f"  [red]file_too_large:[/] a file may have {limit}. Split it into several.")
    if isinstance(inspection.result, ValidationFailure):
        show_failure(inspection.result)
        return
    _show_models(cost)
    show_inspection_warnings(inspection)
    if not too_large:
        requests = console.plural(inspection.result.requests, "request")
        console.write(f"[green]Good:[/] {requests} would run.")


def show_inspection_warnings(inspection: Inspection) -> None:
    """What stops nothing, and is better known before it runs."""
    for warning in inspection.warnings:
        shown = BatchErrorView(warning.code, warning.message, warning.line, warning.param)
        console.write("  " + warning_markup(shown))


def show_failure(failure: ValidationFailure) -> None:
    """The bad lines, a line each, and how many there are."""
    for error in failure.errors[: limits.LINE_ERRORS_SHOWN]:
        shown = BatchErrorView(error.code, error.message, error.line, error.param)
        console.write("  " + line_error_markup(shown))
    more = failure.total_errors - min(len(failure.errors), limits.LINE_ERRORS_SHOWN)
    if more > 0:
        console.write(f"  [dim]and {console.plural(more, 'more error')}; --json lists them.[/]")
    errors = console.plural(failure.total_errors, "error")
    console.write(f"[red]Bad:[/] {errors}; the batch would fail before anything runs.")


def _show_models(cost: OfflineEstimate) -> None:
    rows = [
        (
            model,
            f"{share.requests:,}",
            f"{share.input_tokens:,}",
            f"{share.output_tokens_max:,}" if share.is_bounded else "?",
            _price(share.live_pico, share),
            _price(share.batch_pico, share),
            _price(share.live_pico - share.batch_pico, share),
        )
        for model, share in cost.models.items()
    ]
    headings = ("model", "requests", "in (about)", "out (at most)")
    console.show_table((*headings, "live", "batch", "saved"), rows, numbers=6)
    if cost.has_price:
        batch, live = _dollars(cost.batch_pico), _dollars(cost.live_pico)
        saved = _dollars(cost.live_pico - cost.batch_pico)
        most = "at most " if cost.is_bounded else "more than "
        console.write(f"As a batch {most}{batch}; live {live}. Saved: {saved}.")


def _price(pico: int, share: OfflineModelEstimate) -> str:
    if not share.has_price:
        return "-"
    return ("" if share.is_bounded else "from ") + _dollars(pico)


def _dollars(pico: int) -> str:
    return console.human_dollars(dollars(pico))


def _as_json(
    path: Path,
    rules: ValidationRules,
    inspection: Inspection,
    cost: OfflineEstimate,
    settings: Settings,
) -> JsonObject:
    answer: JsonObject = {
        "file": str(path),
        "bytes": inspection.bytes,
        "lines": inspection.lines,
        "sha256": inspection.sha256,
        "endpoint": rules.endpoint,
        "dialect": rules.dialect,
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
    models = {name: _model_json(share) for name, share in cost.models.items()}
    return answer | {"valid": True, "models": models, "totals": _amounts(cost)}


def _model_json(share: OfflineModelEstimate) -> JsonObject:
    return {
        "requests": share.requests,
        "input_tokens": share.input_tokens,
        "output_tokens_max": share.output_tokens_max,
        "is_bounded": share.is_bounded,
        **_amounts(share),
    }


def _amounts(cost: OfflineEstimate | OfflineModelEstimate) -> JsonObject:
    """Exact, under the names that a server's estimate has; null where no price is known."""
    pico = (cost.batch_pico, cost.live_pico, cost.live_pico - cost.batch_pico)
    texts = [dollars_text(amount) if cost.has_price else None for amount in pico]
    return dict(zip(("amount", "live_amount", "saved"), texts, strict=True))
