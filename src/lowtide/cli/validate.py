"""`lowtide validate`: the server's own validation, offline, with an estimate of tokens and price.

Reads the file only. What it reports is what a batch over this file would fail with.
"""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer
from rich.markup import escape

from lowtide import config, limits
from lowtide.cli import exits, screen
from lowtide.cli.bars import patient_bar
from lowtide.cli.batch_report import line_error_markup
from lowtide.cli.estimate import Estimate, estimate
from lowtide.cli.input_file import (
    DEFAULT_ENDPOINT,
    Inspection,
    guess_endpoint,
    guess_purpose,
    inspect,
    readable_input,
)
from lowtide.cli.options import ConfigOption, JsonOption
from lowtide.cli.views import BatchErrorView, JsonObject
from lowtide.config import Settings
from lowtide.core.file import dialect_of_purpose
from lowtide.core.line import ENDPOINTS
from lowtide.core.plan import Plan
from lowtide.core.validation import Dialect, ValidationFailure, ValidationRules


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
    readable_input(path)
    rules = rules_for(path, settings, endpoint, dialect)
    with patient_bar(f"checking {path.name}", limits.VALIDATE_PROGRESS_AFTER_S) as advance:
        inspection = inspect(path, rules, advance)
    cost = estimate(path, rules.endpoint, inspection, settings)
    too_large = inspection.bytes > settings.limits.file_bytes
    if as_json:
        screen.emit_json(_as_json(path, rules, inspection, cost, settings))
    else:
        _show(path, inspection, cost, settings)
    failed = too_large or isinstance(inspection.result, ValidationFailure)
    raise typer.Exit(exits.BATCH_FAILED if failed else exits.DONE)


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
    )


def known_endpoint(endpoint: str) -> str:
    """`endpoint` as the server takes it. Raises CommandError."""
    if endpoint not in ENDPOINTS:
        raise exits.CommandError(
            f"--endpoint {endpoint!r} is not one that batches can use.",
            f"There are: {', '.join(sorted(ENDPOINTS))}",
        )
    return endpoint


def _accepted_names(settings: Settings) -> dict[str, str] | None:
    if not settings.replica:
        return None
    names = {name: name for replica in settings.replica for name in replica.models}
    for model in settings.model:
        names |= dict.fromkeys((model.id, *model.aliases), model.id)
    return names


def _show(path: Path, inspection: Inspection, cost: Estimate, settings: Settings) -> None:
    screen.say(
        f"[bold]{escape(str(path))}[/]: {screen.plural(inspection.lines, 'line')},"
        f" {screen.human_bytes(inspection.bytes)}"
    )
    too_large = inspection.bytes > settings.limits.file_bytes
    if too_large:
        limit = screen.human_bytes(settings.limits.file_bytes)
        screen.say(f"  [red]file_too_large:[/] a file may have {limit}. Split it into several.")
    if isinstance(inspection.result, ValidationFailure):
        show_failure(inspection.result)
        return
    _show_models(inspection.result, cost)
    if not too_large:
        requests = screen.plural(inspection.result.requests, "request")
        screen.say(f"[green]Good:[/] {requests} would run.")


def show_failure(failure: ValidationFailure) -> None:
    """The bad lines, a line each, and how many there are."""
    for error in failure.errors[: limits.LINE_ERRORS_SHOWN]:
        shown = BatchErrorView(error.code, error.message, error.line, error.param)
        screen.say("  " + line_error_markup(shown))
    more = failure.total_errors - min(len(failure.errors), limits.LINE_ERRORS_SHOWN)
    if more > 0:
        screen.say(f"  [dim]and {screen.plural(more, 'more error')}; --json lists them.[/]")
    errors = screen.plural(failure.total_errors, "error")
    screen.say(f"[red]Bad:[/] {errors}; the batch would fail before anything runs.")


def _show_models(plan: Plan, cost: Estimate) -> None:
    rows = [
        (
            model,
            f"{share.requests:,}",
            f"{share.input_tokens:,}",
            f"{cost.models[model].output_tokens_max:,}" if cost.models[model].is_bounded else "?",
            _dollars(cost.models[model].live_price, cost.models[model].is_bounded),
            _dollars(cost.models[model].batch_price, cost.models[model].is_bounded),
        )
        for model, share in plan.models.items()
    ]
    screen.show_table(
        ("model", "requests", "tokens in (about)", "tokens out (at most)", "live", "batch"), rows
    )


def _dollars(price: float | None, is_bounded: bool) -> str:
    if price is None:
        return "-"
    return ("" if is_bounded else "from ") + (f"${price:,.2f}" if price >= 1 else f"${price:.4f}")


def _as_json(
    path: Path,
    rules: ValidationRules,
    inspection: Inspection,
    cost: Estimate,
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
        "models": {},
    }
    if isinstance(inspection.result, ValidationFailure):
        errors = msgspec.to_builtins(inspection.result.errors)
        return answer | {"errors": errors, "errors_total": inspection.result.total_errors}
    if inspection.bytes > settings.limits.file_bytes:
        message = f"The file is larger than {settings.limits.file_bytes} bytes."
        error = {"code": "file_too_large", "message": message, "line": None, "param": None}
        return answer | {"errors": [error], "errors_total": 1}
    return answer | {"valid": True, "models": msgspec.to_builtins(cost.models)}
