"""Why lines failed, as groups of alike failures: a table for the server's answer.

Shown by `lowtide batches errors`, and in short where a batch that has failures is shown.
"""

from collections.abc import Sequence
from typing import Final

from rich.markup import escape

from lowtide.api.objects.failures import FailureGroupList, FailureGroupObject
from lowtide.cli.terminal import console, table, units

_SHOWN_IN_SHORT: Final = 4


def show_failures(found: FailureGroupList) -> None:
    """All groups, the largest first."""
    if not found.data:
        console.write("No line has failed.")
        return
    table.show_table(
        (
            table.number("lines"),
            table.whole("code"),
            table.whole("group"),
            table.Column("message"),
            table.Column("e.g."),
        ),
        [
            (f"{group.count:,}", group.code, group.id, group.message, _example(group))
            for group in found.data
        ],
    )


def failures_in_short(groups: Sequence[FailureGroupObject]) -> list[str]:
    """The most frequent reasons, each with a count and one line as example."""
    shown = groups[:_SHOWN_IN_SHORT]
    reasons = [
        f"{group.count:,} x {group.code}: {group.message or 'various'} ({_example(group)})"
        for group in shown
    ]
    if more := sum(group.count for group in groups[_SHOWN_IN_SHORT:]):
        reasons.append(f"and {units.plural(more, 'line')} for other reasons")
    return reasons


def _example(group: FailureGroupObject) -> str:
    if not group.examples:
        return ""
    first = group.examples[0]
    return f"line {first.line}, {first.custom_id}" if first.custom_id else f"line {first.line}"


def write_in_short(groups: Sequence[FailureGroupObject], indent: int) -> None:
    """Prints the most frequent reasons under the end of a batch."""
    for reason in failures_in_short(groups):
        console.write(f"{'':{indent}}[dim]{escape(reason)}[/]")
