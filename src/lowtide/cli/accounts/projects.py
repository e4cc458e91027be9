"""`lowtide projects`: create, list. A project owns files, batches and results; keys act for one."""

from typing import Annotated

import typer
from rich.markup import escape

from lowtide.api.objects.accounts import ProjectObject
from lowtide.cli.accounts.admin_backend import choose_named
from lowtide.cli.accounts.admin_target import OpenAdmin, admin_command
from lowtide.cli.client.objects import read_view
from lowtide.cli.options import command_group, examples
from lowtide.cli.server_commands import Answers
from lowtide.cli.terminal import console, table, units
from lowtide.core.accounts.tenancy import DEFAULT_ORGANIZATION

app = command_group(help="Projects: what cannot see each other's files and batches.")


@app.command(
    epilog=examples("lowtide projects create evals", "lowtide projects create evals --org research")
)
@admin_command
def create(
    open_admin: OpenAdmin,
    name: Annotated[str, typer.Argument(metavar="NAME")],
    organization: Annotated[
        str, typer.Option("--org", metavar="ID|NAME", help="The organization that pays.")
    ] = DEFAULT_ORGANIZATION,
) -> Answers:
    """Make a project. Prints its id."""
    backend = open_admin(may_create=True)
    organization_id = choose_named("organization", organization, backend.organizations())
    made = backend.create_project(organization_id, name)
    yield made
    project = read_view(made, ProjectObject)
    console.write(escape(project.id))
    command = f"lowtide keys create NAME --project {escape(project.id)}"
    console.info(f"Next: [bold]{command}[/]")


@app.command(
    "list", epilog=examples("lowtide projects list", "lowtide projects list --org research")
)
@admin_command
def list_projects(
    open_admin: OpenAdmin,
    organization: Annotated[
        str | None,
        typer.Option("--org", metavar="ID|NAME", help="Only projects of this organization."),
    ] = None,
) -> Answers:
    """List projects, the oldest first."""
    backend = open_admin()
    organization_id = None
    if organization:
        organization_id = choose_named("organization", organization, backend.organizations())
    listed = backend.projects(organization_id)
    yield {"object": "list", "data": listed}
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
