"""`lowtide keys`: create, list, revoke. A key is printed once, when it is made."""

import re
import time
from datetime import UTC, datetime
from typing import Annotated, Final

import typer
from rich.markup import escape

from lowtide.cli.accounts.admin_backend import AdminBackend, choose_named
from lowtide.cli.accounts.admin_target import OpenAdmin, admin_command
from lowtide.cli.accounts.times import instant_ahead
from lowtide.cli.client.http_client import ServerRefused
from lowtide.cli.client.objects import KeyView, read_view
from lowtide.cli.client.server_client import check_id
from lowtide.cli.options import command_group, examples
from lowtide.cli.server_commands import Answers
from lowtide.cli.terminal import console, table, units
from lowtide.cli.terminal.command_errors import CommandError
from lowtide.core.accounts.tenancy import DEFAULT_PROJECT
from lowtide.core.errors import LowtideError

app = command_group(help="API keys of an installation, for auth.mode = 'keys'.")

_WHOLE_KEY: Final = re.compile(r"lt-([A-Za-z0-9]+)-[A-Za-z0-9]+")


@app.command(
    epilog=examples(
        "lowtide keys create operator --scopes read,submit,admin",
        "lowtide keys create nightly --project evals --expires 90d",
        'LOWTIDE_API_KEY="$(lowtide keys create ci --quiet)" lowtide batches list',
    )
)
@admin_command
def create(
    open_admin: OpenAdmin,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is for, or who has it.")],
    project: Annotated[
        str, typer.Option(metavar="ID|NAME", help="The project that it acts for.")
    ] = DEFAULT_PROJECT,
    scopes: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help="read: see the project's work; submit: upload, run, cancel, delete;"
            " admin: keys, projects, organizations. Each is given on its own.",
        ),
    ] = "read,submit",
    expires: Annotated[
        str | None,
        typer.Option(metavar="30d|DATE", help="When it ends. Default: when it is revoked."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the key only.")] = False,
) -> Answers:
    """Make an API key and print it: now, and never again. Only its hash is kept.

    Without --server it works on the installation itself, which is how the first key is made.
    """
    backend = open_admin(may_create=True)
    expires_at = None
    if expires is not None:
        expires_at = instant_ahead(expires, "--expires", datetime.now(UTC))
    asked_scopes = [scope.strip() for scope in scopes.split(",") if scope.strip()]
    project_id = choose_named("project", project, backend.projects())
    made = backend.create_key(project_id, name, asked_scopes, expires_at)
    yield made
    key = read_view(made, KeyView)
    console.write(escape(key.key or ""))
    if quiet:
        return
    end = f"until {units.human_instant(key.expires_at)}" if key.expires_at else "until revoked"
    console.info(
        f"Key {key.id} for {escape(key.project_id)} of {escape(backend.place)}:"
        f" {', '.join(key.scopes)}, {end}."
    )
    console.info("[yellow]It is shown only now:[/] keep it where secrets are kept.")


@app.command(
    "list", epilog=examples("lowtide keys list", "lowtide keys list --project evals --json")
)
@admin_command
def list_keys(
    open_admin: OpenAdmin,
    project: Annotated[
        str | None, typer.Option(metavar="ID|NAME", help="Only keys of this project.")
    ] = None,
) -> Answers:
    """List keys, newest first, revoked and expired ones included."""
    backend = open_admin()
    project_id = choose_named("project", project, backend.projects()) if project else None
    listed = backend.keys(project_id)
    yield {"object": "list", "data": listed}
    keys = [read_view(entry, KeyView) for entry in listed]
    table.show_table(
        (
            table.whole("id"),
            table.name("name"),
            table.whole("project"),
            table.Column("scopes"),
            table.whole("state"),
            table.whole("last used"),
        ),
        [
            (
                key.id,
                key.name,
                key.project_id,
                ",".join(key.scopes),
                _state(key),
                units.human_day(key.last_used_at),
            )
            for key in keys
        ],
    )


def _state(key: KeyView) -> str:
    if key.revoked_at is not None:
        return "revoked"
    if key.expires_at is None:
        return "valid"
    return "expired" if key.expires_at <= time.time() else f"to {units.human_day(key.expires_at)}"


@app.command(epilog=examples("lowtide keys revoke Zk3f9QpL0aXw"))
@admin_command
def revoke(
    open_admin: OpenAdmin,
    key_id: Annotated[
        str, typer.Argument(metavar="KEY_ID", help="From `keys list`; the key itself will do.")
    ],
) -> Answers:
    """Refuse a key from now on. What it started goes on, and belongs to its project."""
    whole = _WHOLE_KEY.fullmatch(key_id)
    known_by = whole[1] if whole else check_id(key_id, "key")
    backend = open_admin()
    revoked = _revoked(backend, known_by)
    yield revoked
    key = read_view(revoked, KeyView)
    delay_s = backend.change_delay_s
    when = f" A running server refuses it within {delay_s:.0f} s." if delay_s else ""
    console.write(f"Revoked {escape(key.id)} ({escape(key.name)}).{when}")


def _revoked(backend: AdminBackend, key_id: str) -> dict[str, object]:
    try:
        return backend.revoke_key(key_id)
    except (LowtideError, ServerRefused) as error:
        if error.code != "key_not_found":
            raise
        hint = "`lowtide keys list` shows those that there are."
        raise CommandError(error.message, hint, code=error.code) from None
