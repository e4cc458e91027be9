"""The page of one batch as a file of its own: what `lowtide report` writes. Pure.

It is made of the HTTP API's objects alone and holds all it needs: the stylesheet stands in it,
there is no script, and a policy of its own forbids loading anything. Invariant: it stays under
`REPORT_BYTES_MAX` whatever a batch has, because everything in it is bounded.
"""

from collections.abc import Sequence
from datetime import datetime
from importlib.resources import files

import msgspec
from markupsafe import Markup

from lowtide import limits
from lowtide.api.console.batches.batch_rows import row_of, steps_of
from lowtide.api.console.batches.ended_reason import title_of_errors
from lowtide.api.console.batches.history_view import event_row, pace_of
from lowtide.api.console.batches.shown_lines import shown_line
from lowtide.api.console.rendering import render
from lowtide.api.objects.accounts import UsageLine
from lowtide.api.objects.batches import BatchObject
from lowtide.api.objects.failures import FailureGroupObject
from lowtide.api.objects.history import BatchEventObject, RateObject
from lowtide.api.objects.lines import LineObject
from lowtide.api.plots.batch_plot import batch_plot
from lowtide.core.batches.batch import TERMINAL
from lowtide.core.batches.failures import FailureExample, FailureGroup


class Sampled(msgspec.Struct, frozen=True):
    """Some lines of a result file, and how many it has."""

    lines: Sequence[LineObject]
    total: int


class ReportedBatch(msgspec.Struct, frozen=True, kw_only=True):
    """What a report is made of. `made_at`: the instant of its making, in UTC."""

    batch: BatchObject
    filename: str
    costs: Sequence[UsageLine]
    failures: Sequence[FailureGroupObject]
    rates: Sequence[RateObject]
    events: Sequence[BatchEventObject]
    results: Sampled
    errors: Sampled
    made_at: datetime


def render_report(report: ReportedBatch) -> str:
    """The HTML of the report."""
    batch = report.batch
    groups = [_group(each) for each in report.failures]
    row = row_of(batch, {batch.input_file_id: report.filename})
    budget = limits.REPORT_SAMPLES_BYTES_MAX
    results, spent = _shown(report.results, budget // 2)
    errors, _ = _shown(report.errors, budget - spent)
    context = {
        **row,
        "css": Markup((files("lowtide.api.console") / "static" / "console.css").read_text()),
        "steps": steps_of(batch),
        "failures": groups,
        "costs": report.costs[: limits.REPORT_LIST_ROWS],
        "plots": batch_plot(batch, report.rates, report.events),
        "pace": pace_of(report.rates),
        "events": [event_row(each) for each in reversed(report.events)],
        "samples": [
            ("Some results", results, report.results.total),
            ("Some failures", errors, report.errors.total),
        ],
        "made_at": report.made_at,
        "has_ended": batch.status in TERMINAL,
        "lists": [
            (title, each.data[: limits.REPORT_LIST_ROWS])
            for title, each in (
                (title_of_errors(batch), batch.errors),
                ("Warnings", batch.warnings),
            )
            if each
        ],
    }
    return render("report.html", context)


def _shown(sampled: Sampled, budget: int) -> tuple[list[Markup], int]:
    """The lines as HTML, as many as fit, and their bytes."""
    parts: list[Markup] = []
    spent = 0
    for line in sampled.lines:
        html = render("parts/report_line.html", {"line": shown_line(line)})
        spent += len(html.encode())
        if spent > budget:
            return parts, spent - len(html.encode())
        parts.append(Markup(html))
    return parts, spent


def _group(group: FailureGroupObject) -> FailureGroup:
    examples = tuple(
        FailureExample(each.line, each.custom_id, each.message) for each in group.examples
    )
    return FailureGroup(group.code, group.message, group.count, examples)
