"""`lowtide projects`: create, list. A project owns files, batches and results; keys act for one."""

from typing import Annotated

import typer
from rich.markup import escape

from lowtide.api.objects.accounts import ProjectObject
from lowtide.cli.accounts.admin_backend import choose_named
from lowtide.cli.accounts.admin_target import AdminTarget, open_admin
from lowtide.cli.client.objects import read_view
from lowtide.cli.options import (
    AdminKeyOption,
    ConfigOption,
    DataDirOption,
    DeskServerOption,
    JsonOption,
    examples,
)
from lowtide.cli.terminal import console, table, units
from lowtide.core.accounts.tenancy import DEFAULT_ORGANIZATION

app = typer.Typer(
    no_args_is_help=True,
    help="Projects: what cannot see each other's files and batches.",
    rich_markup_mode="rich",
)


@app.command(
    epilog=examples("lowtide projects create evals", "lowtide projects create evals --org research")
)
def create(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    organization: Annotated[
        str, typer.Option("--org", metavar="ID|NAME", help="The organization that pays.")
    ] = DEFAULT_ORGANIZATION,
    server: DeskServerOption = None,
    api_key: AdminKeyOption = None,
    config_file: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a project. Prints its id."""
    place = AdminTarget(server, api_key, config_file, data_dir)
    with open_admin(place, may_create=True) as backend:
        organization_id = choose_named("organization", organization, backend.organizations())
        made = backend.create_project(organization_id, name)
    if as_json:
        console.emit_json(made)
        return
    project = read_view(made, ProjectObject)
    console.write(escape(project.id))
    command = f"lowtide keys create NAME --project {escape(project.id)}"
    console.info(f"Next: [bold]{command}[/]")


@app.command(
    "list", epilog=examples("lowtide projects list", "lowtide projects list --org research")
)
def list_projects(
    organization: Annotated[
        str | None,
        typer.Option("--org", metavar="ID|NAME", help="Only projects of this organization."),
    ] = None,
    server: DeskServerOption = None,
    api_key: AdminKeyOption = None,
    config_file: ConfigOption = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """List projects, the oldest first."""
    with open_admin(AdminTarget(server, api_key, config_file, data_dir)) as backend:
        organization_id = None
        if organization:
            organization_id = choose_named("organization", organization, backend.organizations())
        listed = backend.projects(organization_id)
    if as_json:
        console.emit_json({"object": "list", "data": listed})
        return
    projects = [read_view(entry, ProjectObject) for entry in listed]
    table.show_table(
        (
            table.whole("id"),
            table.name("name"),
            table.whole("organization"),
            table.whole("created"),
        ),
        [
            (
                project.id,
                project.name,
                project.organization_id,
                units.human_instant(project.created_at),
            )
            for project in projects
        ],
    )
