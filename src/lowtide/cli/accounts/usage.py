"""`lowtide usage`: tokens and money by day, model and project; a table, CSV or JSON.

Amounts in CSV and JSON are exact, as the ledger has them; the table is for people and rounds.
"""

import csv
import sys
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Final, get_args

import msgspec
import typer

from lowtide.cli.accounts.admin_backend import AdminBackend, UsageQuestion, choose_named
from lowtide.cli.accounts.admin_target import AdminTarget, open_admin
from lowtide.cli.accounts.times import instant_back
from lowtide.cli.client.objects import AmountsView, JsonObject, read_view
from lowtide.cli.options import (
    ConfigOption,
    DataDirOption,
    DeskServerOption,
    JsonOption,
    KeyOption,
)
from lowtide.cli.terminal import console, table, units
from lowtide.cli.terminal.command_errors import CommandError
from lowtide.ports.accounts import GroupBy

_GROUPS: Final[tuple[GroupBy, ...]] = get_args(GroupBy)
_HEADINGS: Final = ("requests", "input", "cached", "output", "charge", "live price", "saved")


class UsageReportView(msgspec.Struct, frozen=True):
    """The rows and the total stay as they came: their keys are the columns."""

    since: datetime
    until: datetime
    group_by: tuple[str, ...]
    data: tuple[dict[str, Any], ...]
    total: dict[str, Any]


class SumsView(AmountsView, frozen=True):
    requests: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0


def usage(
    since: Annotated[
        str | None,
        typer.Option(metavar="DATE|30d", help="From then on. Default: the first of the month."),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="DATE", help="Up to then, not including. Default: now.")
    ] = None,
    by: Annotated[
        str,
        typer.Option(metavar="LIST", help="Any of day, model, project; or none, for the total."),
    ] = "day,model",
    project: Annotated[
        str | None, typer.Option(metavar="ID|NAME", help="Only of this project.")
    ] = None,
    organization: Annotated[
        str | None, typer.Option("--org", metavar="ID|NAME", help="Only of this organization.")
    ] = None,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print CSV: a header, then a line for each row.")
    ] = False,
    server: DeskServerOption = None,
    api_key: KeyOption = None,
    config_file: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what was used and charged, and what the same would have cost live. Days are UTC.

    A key without the scope admin sees its own project.
    """
    if as_csv and as_json:
        raise typer.BadParameter("--csv and --json exclude each other.")
    now = datetime.now(UTC)
    asked = UsageQuestion(
        since=instant_back(since, "--since", now) if since else None,
        until=instant_back(until, "--until", now) if until else None,
        group_by=_groups(by),
        organization_id=organization,
        project_id=project,
    )
    with open_admin(AdminTarget(server, api_key, config_file, data_dir)) as backend:
        answer = backend.usage(_with_ids(asked, backend))
    if as_json:
        console.emit_json(answer)
        return
    report = read_view(answer, UsageReportView)
    if as_csv:
        _write_csv(report)
    else:
        _show(report)


def _groups(by: str) -> tuple[GroupBy, ...]:
    named = {part.strip() for part in by.split(",")} - {"", "none"}
    if unknown := sorted(named - set(_GROUPS)):
        raise CommandError(
            f"--by {unknown[0]!r} is nothing to group by.", f"There are: {', '.join(_GROUPS)}, none"
        )
    return tuple(group for group in _GROUPS if group in named)


def _with_ids(asked: UsageQuestion, backend: AdminBackend) -> UsageQuestion:
    """The question with ids in place of names; only an administrator may see which there are."""
    if (asked.organization_id is None and asked.project_id is None) or not backend.is_admin():
        return asked
    organization, project = asked.organization_id, asked.project_id
    if organization is not None:
        organization = choose_named("organization", organization, backend.organizations())
    if project is not None:
        project = choose_named("project", project, backend.projects(organization))
    return msgspec.structs.replace(asked, organization_id=organization, project_id=project)


def _columns(report: UsageReportView) -> list[str]:
    return ["project_id" if group == "project" else group for group in report.group_by]


def _write_csv(report: UsageReportView) -> None:
    """Writes the rows without the total: the reader's own sum agrees with it, because
    nothing was rounded.
    """
    columns = [*_columns(report), *report.total]
    writer = csv.DictWriter(sys.stdout, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    # Without groups a server may have no row at all, or one that is the total.
    writer.writerows(report.data)
    sys.stdout.flush()


def _show(report: UsageReportView) -> None:
    groups = _columns(report)
    rows = [(*(str(row.get(name) or "-") for name in groups), *_sums(row)) for row in report.data]
    if groups:
        rows.append(("total", *[""] * (len(groups) - 1), *_sums(report.total)))
    elif not rows:
        rows = [_sums(report.total)]
    named = (table.whole(each) if each == "day" else table.name(each) for each in groups)
    columns = (*named, *map(table.number, _HEADINGS))
    table.show_table(columns, rows)
    console.info(f"[dim]{_instant(report.since)} to {_instant(report.until)} UTC[/]")


def _sums(row: JsonObject) -> tuple[str, ...]:
    sums = read_view(row, SumsView)
    counts = (sums.requests, sums.input_tokens, sums.cached_tokens, sums.output_tokens)
    amounts: tuple[Decimal, ...] = (sums.amount, sums.live_amount, sums.saved)
    return (*(f"{count:,}" for count in counts), *map(units.human_dollars, amounts))


def _instant(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M}"
