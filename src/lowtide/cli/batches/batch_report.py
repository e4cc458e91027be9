"""A batch in words: its record, how it ended, what went wrong with which lines."""

from collections import Counter
from pathlib import Path
from typing import Final

import msgspec
from rich.markup import escape

from lowtide import limits
from lowtide.cli.client.objects import BatchErrorView, BatchView, EstimateView, JsonObject
from lowtide.cli.terminal import command_errors, console

_COLOURS: Final = {
    "completed": "green",
    "failed": "red",
    "expired": "red",
    "cancelled": "yellow",
    "cancelling": "yellow",
}
_REASONS_SHOWN: Final = 3


def status_markup(status: str) -> str:
    """The state in its colour."""
    return f"[{_COLOURS.get(status, 'cyan')}]{escape(status)}[/]"


def exit_code_of(batch: BatchView) -> int:
    """0 when every line succeeded, 1 when some failed, 3 when the batch did not complete."""
    if batch.status != "completed":
        return command_errors.BATCH_FAILED
    return command_errors.SOME_LINES_FAILED if batch.counts.failed else command_errors.DONE


def show_batch(batch: BatchView) -> None:
    """The record, a field a line; what is not set is left out."""
    counts = batch.counts
    stage = f" ({batch.stage})" if batch.stage else ""
    requests = f"{counts.settled:,} of {counts.total:,} done, {counts.failed:,} failed"
    fields = [
        ("id", escape(batch.id)),
        ("status", status_markup(batch.status) + stage),
        ("waits for", escape(batch.reason or "")),
        ("requests", requests),
        ("done in about", console.human_seconds(batch.eta_seconds) if batch.eta_seconds else ""),
        ("window", _window(batch)),
        ("tokens", _tokens(batch)),
        ("cost", _cost(batch)),
        ("endpoint", escape(batch.endpoint)),
        ("model", escape(batch.model or "")),
        ("input file", escape(batch.input_file_id)),
        ("output file", escape(batch.output_id or "")),
        ("error file", escape(batch.error_id or "")),
        ("created", console.human_instant(batch.created_at)),
        ("ended", console.human_instant(batch.ended_at) if batch.ended_at else ""),
        ("expires", "" if batch.ended_at else console.human_instant(batch.expires_at)),
        ("metadata", escape(", ".join(f"{k}={v}" for k, v in (batch.metadata or {}).items()))),
    ]
    console.show_fields((name, value) for name, value in fields if value)
    show_warnings(batch)
    show_line_errors(batch)


def note_window(batch: BatchView) -> None:
    """A window that may not be kept is said when the batch is made, not when it has expired."""
    if _window(batch):
        console.info(f"[yellow]Completion window:[/] {_window(batch)}")


def _window(batch: BatchView) -> str:
    """Empty while nothing is wrong, or nothing is known."""
    found = batch.feasibility
    if batch.is_over or found is None or found.verdict == "feasible":
        return ""
    words = f"{found.verdict.replace('_', ' ')}. {found.reason or ''}"
    if found.earliest_completion_window:
        words += f" The shortest that could be kept: {found.earliest_completion_window}."
    return escape(words)


def show_end(batch: BatchView, found: JsonObject | None = None) -> None:
    """How a batch ended. `found` is what `results.collect` wrote, where it did."""
    counts = batch.counts
    took = ""
    if batch.ended_at and batch.created_at:
        took = f" in {console.human_seconds(max(batch.ended_at - batch.created_at, 1))}"
    console.write(f"The batch {escape(batch.id)} is {status_markup(batch.status)}{took}.")
    if batch.status == "failed":
        show_line_errors(batch)
        return
    succeeded = f"[green]{counts.completed:,} succeeded[/]"
    failed = f"[red]{counts.failed:,} failed[/]" if counts.failed else "none failed"
    console.write(f"  requests  {counts.total:,}: {succeeded}, {failed}")
    if _tokens(batch):
        console.write(f"  tokens    {_tokens(batch)}")
    if _cost(batch):
        console.write(f"  cost      {_cost(batch)}")
    if found is not None:
        _show_files(found)


def _show_files(found: JsonObject) -> None:
    if found["output"]:
        console.write(f"  results   {escape(found['output'])}")
    if found["errors"]:
        console.write(f"  errors    {escape(found['errors'])}")
        for reason in error_reasons(Path(found["errors"])):
            console.write(f"            [dim]{escape(reason)}[/]")


def _tokens(batch: BatchView) -> str:
    usage = batch.usage
    if usage is None or not (usage.input_tokens or usage.output_tokens):
        return ""
    cached = f" ({usage.cached_tokens:,} cached)" if usage.cached_tokens else ""
    return f"{usage.input_tokens:,} in{cached}, {usage.output_tokens:,} out"


def _cost(batch: BatchView) -> str:
    """Empty where the models have no price, or nothing was charged yet."""
    cost = batch.cost
    if cost is None or not cost.live_amount:
        return ""
    charged, live, saved = map(console.human_dollars, (cost.amount, cost.live_amount, cost.saved))
    return f"{charged} (live {live}, saved {saved})"


def show_line_errors(found: BatchView | EstimateView) -> None:
    """Why validation failed, a line each, up to a screenful."""
    if found.errors is None:
        return
    total = found.errors_total or len(found.errors.data)
    for error in found.errors.data[: limits.LINE_ERRORS_SHOWN]:
        console.write("  " + line_error_markup(error))
    more = total - min(len(found.errors.data), limits.LINE_ERRORS_SHOWN)
    if more > 0:
        console.write(f"  [dim]and {console.plural(more, 'more error')}.[/]")


def show_warnings(found: BatchView | EstimateView) -> None:
    """What validation found that stops nothing."""
    for warning in found.warnings.data if found.warnings is not None else ():
        console.write("  " + warning_markup(warning))


def warning_markup(warning: BatchErrorView) -> str:
    """`warning: context_exceeded: The prompt of line 17 ...`."""
    return f"[yellow]warning: {escape(warning.code or '')}:[/] {escape(warning.message)}"


def line_error_markup(error: BatchErrorView) -> str:
    """`line 17: missing_required_parameter: Missing ... (body.model)`."""
    place = f"[bold]line {error.line}:[/] " if error.line is not None else ""
    param = f" [dim]({escape(error.param)})[/]" if error.param else ""
    return f"{place}[red]{escape(error.code or 'error')}:[/] {escape(error.message)}{param}"


class _Detail(msgspec.Struct):
    code: str | int | None = None
    message: str = ""


class _Body(msgspec.Struct):
    error: _Detail | str | None = None


class _Response(msgspec.Struct):
    status_code: int = 0
    body: _Body | None = None


class _ErrorLine(msgspec.Struct):
    custom_id: str = ""
    error: _Detail | None = None
    response: _Response | None = None


def error_reasons(path: Path) -> list[str]:
    """The most frequent reasons in an error file, each with a count and one line as example."""
    counted: Counter[str] = Counter()
    examples: dict[str, str] = {}
    decode = msgspec.json.Decoder(_ErrorLine).decode
    with path.open("rb") as stream:
        for raw in stream:
            try:
                line = decode(raw)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                line = _ErrorLine()
            code, message = _reason(line)
            counted[code] += 1
            examples.setdefault(code, f"{message} (custom_id {line.custom_id})")
    shown = counted.most_common(_REASONS_SHOWN)
    reasons = [f"{count:,} x {code}: {examples[code]}" for code, count in shown]
    if len(counted) > len(shown):
        reasons.append(f"and {len(counted) - len(shown):,} other reasons")
    return reasons


def _reason(line: _ErrorLine) -> tuple[str, str]:
    detail: _Detail | str | None = line.error
    status = ""
    if detail is None and line.response is not None:
        status = f"HTTP {line.response.status_code}"
        detail = line.response.body.error if line.response.body is not None else None
    if isinstance(detail, _Detail):
        return str(detail.code or status or "error"), detail.message
    return status or "error", detail or "no reason given"
