"""Why lines failed, as groups of alike failures: a table for the server's answer.

Shown by `lowtide batches errors`.
"""

from lowtide.api.objects.failures import FailureGroupList, FailureGroupObject
from lowtide.cli.terminal import console, table


def show_failures(groups: FailureGroupList) -> None:
    """All groups, the largest first."""
    if not groups.data:
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
            for group in groups.data
        ],
    )


def _example(group: FailureGroupObject) -> str:
    if not group.examples:
        return ""
    first = group.examples[0]
    return f"line {first.line}, {first.custom_id}" if first.custom_id else f"line {first.line}"
