"""A batch in words: its record, how it ended, what went wrong with which lines."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
from rich.markup import escape

from lowtide import limits
from lowtide.api.objects.batches import LineErrorObject
from lowtide.api.objects.line_faults import by_fault, lines_of
from lowtide.cli.client.objects import BatchView, EstimateView, JsonObject
from lowtide.cli.terminal import command_errors, console, table, units

_COLOURS: Final = {
    "completed": "green",
    "failed": "red",
    "expired": "red",
    "cancelled": "yellow",
    "cancelling": "yellow",
}
_UNDER_WAY: Final = {
    "validating": "being checked",
    "cancelling": "being cancelled",
    "finalizing": "being put together",
}
_REASONS_SHOWN: Final = 4
_NUMBERS: Final = re.compile(r"\d+")
_LABEL_COLUMNS: Final = 12


def status_markup(status: str) -> str:
    """The state in its colour."""
    return f"[{_COLOURS.get(status, 'cyan')}]{escape(status)}[/]"


def listed_status(batch: BatchView) -> str:
    """`validating, place 2` of a batch that waits for enqueued tokens; else the state."""
    place = batch.queue_position
    return batch.status if place is None else f"{batch.status}, place {place}"


def sentence(batch: BatchView) -> str:
    """`Batch batch_abc123 completed after 40 s`, without a full stop, as markup."""
    name = f"Batch {escape(batch.id)}"
    colour = _COLOURS.get(batch.status, "cyan")
    if not batch.is_over:
        words = _UNDER_WAY.get(batch.status, "running")
        if batch.queue_position is not None:
            words = f"waiting, at place {batch.queue_position}"
        return f"{name} is [{colour}]{words}[/]"
    took = ""
    if batch.ended_at and batch.created_at:  # both in whole seconds
        took = f" after {units.human_whole_seconds(max(batch.ended_at - batch.created_at, 1))}"
    ended = "was cancelled" if batch.status == "cancelled" else escape(batch.status)
    return f"{name} [{colour}]{ended}[/]{took}"


def exit_code_of(batch: BatchView) -> int:
    """0 when every line succeeded, 1 when some failed, 3 when the batch did not complete."""
    if batch.status != "completed":
        return command_errors.BATCH_FAILED
    return command_errors.SOME_LINES_FAILED if batch.counts.failed else command_errors.DONE


def show_batch(batch: BatchView) -> None:
    """Prints the record, a field a line; what is not set is left out."""
    stage = f" ({batch.stage})" if batch.stage else ""
    fields = [
        ("id", escape(batch.id)),
        ("status", status_markup(batch.status) + stage),
        *_waits_for(batch),
        ("retries", escape(batch.retry_of or "")),
        ("requests", counts_of(batch)),
        ("done in about", _time_left(batch)),
        ("window", _window(batch)),
        ("priority", str(batch.priority)),
        ("tokens", _tokens(batch)),
        ("cost", _cost(batch)),
        ("endpoint", escape(batch.endpoint)),
        ("model", escape(model_of(batch))),
        ("input file", escape(batch.input_file_id)),
        ("output file", escape(batch.output_id or "")),
        ("error file", escape(batch.error_id or "")),
        ("created", units.human_instant(batch.created_at)),
        ("ended", units.human_instant(batch.ended_at) if batch.ended_at else ""),
        ("expires", "" if batch.ended_at else units.human_instant(batch.expires_at)),
        ("webhook", escape(batch.webhook or "")),
        ("metadata", escape(metadata_of(batch))),
    ]
    table.show_fields((name, value) for name, value in fields if value)
    show_warnings(batch)
    show_line_errors(batch)


def _waits_for(batch: BatchView) -> Iterator[tuple[str, str]]:
    """Each condition that holds it, the gravest first, and since when."""
    for place, each in enumerate(batch.waiting_reasons):
        since = "" if each.since is None else f" Since {units.human_instant(each.since)}."
        yield "and for" if place else "waits for", f"{escape(each.reason)}[dim]{since}[/]"


def _time_left(batch: BatchView) -> str:
    """Says how long it takes at the usual pace and, where that is known, at a slow one."""
    usual = units.human_seconds(batch.eta_seconds) if batch.eta_seconds else ""
    if not usual or batch.cautious_eta_seconds is None:
        return usual
    return f"{usual}, at a slow pace {units.human_seconds(batch.cautious_eta_seconds)}"


def model_of(batch: BatchView) -> str:
    return batch.model or ""


def metadata_of(batch: BatchView) -> str:
    """`team=evals, run=7`."""
    return ", ".join(f"{key}={value}" for key, value in (batch.metadata or {}).items())


def name_first(batch: BatchView) -> str:
    """`night run, team=evals`: the metadata with the bare name first, for where there is little
    room."""
    pairs = dict(batch.metadata or {})
    named = [pairs.pop("name")] if "name" in pairs else []
    return ", ".join([*named, *(f"{key}={value}" for key, value in pairs.items())])


def short_model_of(batch: BatchView) -> str:
    """The model without its owner."""
    return model_of(batch).rpartition("/")[2]


def note_window(batch: BatchView) -> None:
    """Warns at once of a completion window that may not be kept."""
    if _window(batch):
        console.info(f"[yellow]Completion window:[/] {_window(batch)}")


def _window(batch: BatchView) -> str:
    """The warning about the window; empty while nothing is wrong, or nothing is known."""
    feasibility = batch.feasibility
    if batch.is_over or feasibility is None or feasibility.verdict == "feasible":
        return ""
    words = f"{feasibility.verdict.replace('_', ' ')}. {feasibility.reason or ''}"
    if feasibility.earliest_completion_window:
        words += f" The shortest that could be kept: {feasibility.earliest_completion_window}."
    return escape(words)


def show_end(batch: BatchView, results: JsonObject | None = None) -> None:
    """Prints how a batch ended. `results` is what `results.collect` wrote, where it did."""
    console.write(f"{sentence(batch)}.")
    if batch.status == "failed":
        show_line_errors(batch)
        return
    _show_part("requests", counts_of(batch))
    _show_part("tokens", _tokens(batch))
    _show_part("cost", _cost(batch))
    if results is not None:
        _show_files(results)


def _show_part(label: str, words: str) -> None:
    """Prints a line of the end of a batch; nothing without words."""
    if words:
        console.write(f"  {label:8}  {words}", hanging=_LABEL_COLUMNS)


def counts_of(batch: BatchView) -> str:
    """`200: 190 succeeded, 7 failed, 3 not run`, as markup; of a batch that still runs those that
    are left are `to go`."""
    counts = batch.counts
    if not counts.total:
        return "none were run" if batch.is_over else "not counted yet"
    words = [f"[green]{counts.completed:,} succeeded[/]"]
    failed, never_run = batch.seen_and_failed, batch.not_run_count
    words.append(f"[red]{failed:,} failed[/]" if failed else "none failed")
    if batch.is_over:
        never_run += counts.to_go
    elif counts.to_go:
        words.append(f"{counts.to_go:,} to go")
    if never_run:
        words.append(f"{never_run:,} not run")
    return f"{counts.total:,}: {', '.join(words)}"


def _show_files(results: JsonObject) -> None:
    _show_part("results", escape(results["output"] or ""))
    if results["errors"]:
        _show_part("errors", escape(results["errors"]))
        for reason in error_reasons(Path(results["errors"])):
            console.write(f"{'':{_LABEL_COLUMNS}}[dim]{escape(reason)}[/]")


def _tokens(batch: BatchView) -> str:
    usage = batch.usage
    if usage is None or not (usage.input_tokens or usage.output_tokens):
        return ""
    cached = f" ({usage.cached_tokens:,} cached)" if usage.cached_tokens else ""
    return f"{usage.input_tokens:,} in{cached}, {usage.output_tokens:,} out"


def _cost(batch: BatchView) -> str:
    """The cost; empty where the models have no price, or nothing was charged yet."""
    cost = batch.cost
    if cost is None or not cost.live_amount:
        return ""
    charged, live, saved = map(units.human_dollars, (cost.amount, cost.live_amount, cost.saved))
    return f"{charged} (live {live}, saved {saved})"


def show_line_errors(view: BatchView | EstimateView) -> None:
    """Prints why validation failed: errors that say the same together, up to a screenful."""
    if view.errors is not None:
        show_grouped(view.errors.data, view.errors_total or len(view.errors.data))


def show_grouped(errors: Sequence[LineErrorObject], total: int) -> None:
    """Prints bad lines, those with the same words together. `total` counts those that are not in
    `errors` as well."""
    shown = by_fault(errors)[: limits.LINE_ERRORS_SHOWN]
    for group in shown:
        console.write("  " + line_error_markup(group[0], lines_of(group)))
    more = total - sum(map(len, shown))
    if more > 0:
        console.write(f"  [dim]and {units.plural(more, 'more error')}; --json lists them.[/]")


def show_warnings(view: BatchView | EstimateView) -> None:
    """Prints what validation found that stops nothing."""
    for warning in view.warnings.data if view.warnings is not None else ():
        console.write("  " + warning_markup(warning))


def warning_markup(warning: LineErrorObject) -> str:
    """`warning: context_exceeded: The prompt of line 17 ...`."""
    return f"[yellow]warning: {escape(warning.code or '')}:[/] {escape(warning.message)}"


def line_error_markup(error: LineErrorObject, lines: Sequence[int]) -> str:
    """`line 17: missing_required_parameter: Missing ... (body.model)`, or `lines 3, 5 and 40 more:`
    and the same."""
    text = units.listed([str(line) for line in lines])
    place = f"[bold]line{'s' if len(lines) > 1 else ''} {text}:[/] " if lines else ""
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
    """The most frequent reasons in an error file, each with a count and one line as example.

    Messages that differ in their numbers alone are one reason.
    """
    counted: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], str] = {}
    decode = msgspec.json.Decoder(_ErrorLine).decode
    with path.open("rb") as stream:
        for raw in stream:
            try:
                line = decode(raw)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                line = _ErrorLine()
            code, message = _reason(line)
            reason = (code, _NUMBERS.sub("#", message))
            counted[reason] += 1
            examples.setdefault(reason, f"{message} (custom_id {line.custom_id})")
    shown = counted.most_common(_REASONS_SHOWN)
    reasons = [f"{count:,} x {reason[0]}: {examples[reason]}" for reason, count in shown]
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
