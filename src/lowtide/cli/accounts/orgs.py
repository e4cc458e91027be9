"""`lowtide orgs`: create, list, set. An organization pays, and has limits and a spend cap."""

from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Annotated

import typer
from msgspec import UNSET
from rich.markup import escape

from lowtide.cli.accounts.admin_backend import Bounds, Cap, choose_named
from lowtide.cli.accounts.admin_target import OpenAdmin, admin_command
from lowtide.cli.client.objects import JsonObject, OrganizationView, read_view
from lowtide.cli.options import command_group, examples
from lowtide.cli.server_commands import Answers
from lowtide.cli.terminal import console, table, units
from lowtide.cli.terminal.command_errors import CommandError
from lowtide.core.accounts.tenancy import OrganizationLimits

app = command_group(help="Organizations: who pays, what they may use and spend.")

_LIMITS = ", ".join(OrganizationLimits.__struct_fields__)
LimitOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help=f"May be given for each of {_LIMITS}. The value default takes an own limit away.",
    ),
]
CapOption = Annotated[
    str | None,
    typer.Option(metavar="DOLLARS|none", help="For batch work, in a calendar month (UTC)."),
]


@app.command(
    epilog=examples(
        "lowtide orgs create research --spend-cap 500",
        "lowtide orgs create research --limit batches_per_hour=100",
    )
)
@admin_command
def create(
    open_admin: OpenAdmin,
    name: Annotated[str, typer.Argument(metavar="NAME")],
    limit: LimitOption = None,
    spend_cap: CapOption = None,
) -> Answers:
    """Make an organization. Prints its id. Limits that are not given are those of the settings."""
    bounds, cap = _bounds(limit or []), _cap(spend_cap)
    backend = open_admin(may_create=True)
    made = backend.create_organization(name, bounds, None if cap is UNSET else cap)
    yield made
    organization = read_view(made, OrganizationView)
    console.write(escape(organization.id))
    command = f"lowtide projects create NAME --org {escape(organization.id)}"
    console.info(f"Next: [bold]{command}[/]")


@app.command("list", epilog=examples("lowtide orgs list --json | jq '.data[].spend_cap'"))
@admin_command
def list_organizations(open_admin: OpenAdmin) -> Answers:
    """List organizations with their own limits and caps, the oldest first."""
    backend = open_admin()
    listed = backend.organizations()
    yield {"object": "list", "data": listed}
    organizations = [read_view(entry, OrganizationView) for entry in listed]
    table.show_table(
        (
            table.whole("id"),
            table.name("name"),
            table.number("spend cap"),
            table.Column("limits"),
            table.whole("created"),
        ),
        [
            (
                organization.id,
                organization.name,
                _cap_text(organization),
                _limits_text(organization) or "-",
                units.human_instant(organization.created_at),
            )
            for organization in organizations
        ],
    )


@app.command(
    "set",
    epilog=examples(
        "lowtide orgs set research --spend-cap 750",
        "lowtide orgs set org_default --limit requests_in_flight=200",
        "lowtide orgs set research --spend-cap none --limit batches_per_hour=default",
    ),
)
@admin_command
def change(
    open_admin: OpenAdmin,
    organization: Annotated[str, typer.Argument(metavar="ID|NAME")],
    limit: LimitOption = None,
    spend_cap: CapOption = None,
) -> Answers:
    """Change limits and spend cap; what is not named stays. A higher cap lets paused batches go
    on."""
    bounds, cap = _bounds(limit or []), _cap(spend_cap)
    if not bounds and cap is UNSET:
        raise typer.BadParameter("Give --limit or --spend-cap.")
    backend = open_admin()
    organization_id = choose_named("organization", organization, backend.organizations())
    changed = backend.change_organization(organization_id, bounds, cap)
    yield changed
    _show(changed)
    if delay_s := backend.change_delay_s:
        console.info(f"[dim]A running server knows it within {delay_s:.0f} s.[/]")


def _show(answer: JsonObject) -> None:
    organization = read_view(answer, OrganizationView)
    table.show_fields(
        (
            ("id", escape(organization.id)),
            ("name", escape(organization.name)),
            ("spend cap", _cap_text(organization)),
            ("limits", _limits_text(organization) or "those of the settings"),
        )
    )


def _cap_text(organization: OrganizationView) -> str:
    """The cap, and since when it is reached and holds batches."""
    cap, paused_at = organization.spend_cap, organization.paused_at
    text = "none" if cap is None else f"{units.human_dollars(cap)} a month"
    return text if paused_at is None else f"{text}, spent since {units.human_instant(paused_at)}"


def _limits_text(organization: OrganizationView) -> str:
    own = {name: value for name, value in organization.limits.items() if value is not None}
    return ", ".join(f"{name}={value}" for name, value in own.items())


def _bounds(given: Sequence[str]) -> Bounds:
    """`["batches_per_hour=100"]` -> what to change. Raises CommandError."""
    bounds: dict[str, int | None] = {}
    for text in given:
        name, _, value = text.partition("=")
        if name not in OrganizationLimits.__struct_fields__:
            raise CommandError(f"There is no limit {name!r}.", f"There are: {_LIMITS}")
        try:
            bounds[name] = None if value == "default" else int(value)
        except ValueError:
            raise CommandError(
                f"--limit {text!r}: give NAME=VALUE with a whole number, or the word default.",
                f"For example: --limit {name}=1000",
            ) from None
    return bounds


def _cap(text: str | None) -> Cap:
    """Dollars; UNSET where the option was not given. Raises CommandError."""
    if text is None:
        return UNSET
    if text == "none":
        return None
    try:
        return Decimal(text.removeprefix("$"))
    except InvalidOperation:
        raise CommandError(
            f"--spend-cap {text!r} is no amount of dollars.",
            "For example: --spend-cap 500, or --spend-cap none",
        ) from None
