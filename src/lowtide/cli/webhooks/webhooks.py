"""`lowtide webhooks`: create, list, show, set, delete, rotate, test, deliveries, replay."""

from typing import Annotated, Any, Literal

import typer
from rich.markup import escape

from lowtide.api.objects.webhooks import DeliveryObject, WebhookObject
from lowtide.cli.client.objects import read_view
from lowtide.cli.client.server_client import check_id
from lowtide.cli.options import DEFAULT_SERVER, JsonOption, KeyOption, ServerOption, examples
from lowtide.cli.terminal import console, table, units
from lowtide.cli.terminal.command_errors import CommandError
from lowtide.cli.webhooks.webhook_client import connect_webhooks
from lowtide.core.webhooks.endpoint import EVENT_TYPES
from lowtide.limits import PAGE_SIZE_MAX_BATCHES, WEBHOOK_OVERLAP_S

app = typer.Typer(
    no_args_is_help=True,
    help="Addresses that a server calls when batches end.",
    rich_markup_mode="rich",
)

WebhookId = Annotated[
    str, typer.Argument(metavar="WEBHOOK_ID", help="From `webhooks list`: wh_...")
]
OrProject = Annotated[
    str,
    typer.Argument(
        metavar="WEBHOOK_ID",
        help="From `webhooks list`; or `project`, for addresses that batches name themselves.",
    ),
]
EventOption = Annotated[
    list[str] | None,
    typer.Option(
        "--event", metavar="NAME", help=f"One of {', '.join(EVENT_TYPES)}. May be repeated."
    ),
]
_SHOWN_ONCE = "[yellow]It is shown only now:[/] give it to the receiver."


@app.command(
    epilog=examples(
        "lowtide webhooks create https://example.org/hooks",
        "lowtide webhooks create https://example.org/hooks --event batch.failed --json",
    )
)
def create(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where events are sent to.")],
    event: EventOption = None,
    name: Annotated[str, typer.Option(metavar="NAME", help="What it is for.")] = "",
    server: ServerOption = DEFAULT_SERVER,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Name an address that hears of all batches of the project. Prints its id and its secret.

    Without --event it hears of every end.
    """
    with connect_webhooks(server, api_key) as client:
        made = client.create(url, event, name)
    if as_json:
        console.emit_json(made)
        return
    console.write(f"{made['id']}\n{made['secret']}")
    console.info(f"The second line is the secret. {_SHOWN_ONCE}")
    console.info(f"Next: [bold]lowtide webhooks test {escape(made['id'])}[/]")


@app.command("list", epilog=examples("lowtide webhooks list"))
def list_webhooks(
    server: ServerOption = DEFAULT_SERVER,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the project's webhooks, newest first."""
    with connect_webhooks(server, api_key) as client:
        answer = client.all()
    if as_json:
        console.emit_json(answer)
        return
    webhooks = [read_view(each, WebhookObject) for each in answer.get("data", [])]
    table.show_table(
        (table.whole("id"), table.whole("state"), table.name("url"), table.name("name")),
        [(each.id, _state(each), each.url, each.name) for each in webhooks],
    )


@app.command(epilog=examples("lowtide webhooks show wh_abc123"))
def show(
    webhook_id: WebhookId,
    server: ServerOption = DEFAULT_SERVER,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show one webhook: where it goes, and how it does."""
    with connect_webhooks(server, api_key) as client:
        answer = client.get(check_id(webhook_id, "webhook"))
    _show(answer, as_json=as_json)


@app.command(
    "set",
    epilog=examples(
        "lowtide webhooks set wh_abc123 --enable",
        "lowtide webhooks set wh_abc123 --url https://example.org/new --event batch.failed",
    ),
)
def change(
    webhook_id: WebhookId,
    url: Annotated[str | None, typer.Option(metavar="URL", help="Another address.")] = None,
    event: EventOption = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Another name.")] = None,
    enable: Annotated[
        bool | None, typer.Option("--enable/--disable", help="Call it again; or no more.")
    ] = None,
    server: ServerOption = DEFAULT_SERVER,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change what is given; the rest stays."""
    asked: dict[str, Any] = {"url": url, "events": event or None, "name": name, "enabled": enable}
    fields = {key: value for key, value in asked.items() if value is not None}
    if not fields:
        raise CommandError("Nothing to change.", "Give --url, --event, --name or --enable.")
    with connect_webhooks(server, api_key) as client:
        answer = client.change(check_id(webhook_id, "webhook"), fields)
    _show(answer, as_json=as_json)


@app.command(epilog=examples("lowtide webhooks delete wh_abc123"))
def delete(
    webhook_id: WebhookId,
    server: ServerOption = DEFAULT_SERVER,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Call an address no more, and forget what was sent there."""
    with connect_webhooks(server, api_key) as client:
        answer = client.delete(check_id(webhook_id, "webhook"))
    if as_json:
        console.emit_json(answer)
        return
    console.write(f"Deleted {escape(webhook_id)}.")


@app.command(
    epilog=examples(
        "lowtide webhooks rotate wh_abc123",
        "lowtide webhooks rotate wh_abc123 --overlap-hours 0",
        "lowtide webhooks rotate project",
    )
)
def rotate(
    webhook_id: OrProject,
    overlap_hours: Annotated[
        float, typer.Option(metavar="HOURS", min=0, help="For which the old secret signs, too.")
    ] = WEBHOOK_OVERLAP_S / 3600,
    server: ServerOption = DEFAULT_SERVER,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make another secret, and print it.

    Of `project`: the secret for addresses that batches name, which the first call makes.
    """
    with connect_webhooks(server, api_key) as client:
        answer = client.rotate(check_id(webhook_id, "webhook"), overlap_hours * 3600)
    if as_json:
        console.emit_json(answer)
        return
    console.write(str(answer["secret"]))
    console.info(_SHOWN_ONCE)


@app.command(epilog=examples("lowtide webhooks test wh_abc123 --event batch.failed"))
def test(
    webhook_id: WebhookId,
    event: Annotated[
        str | None, typer.Option(metavar="NAME", help="Default: the first that it asks for.")
    ] = None,
    server: ServerOption = DEFAULT_SERVER,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send an event about a batch that there is none of, and print what was answered.

    Exit code: 0 the receiver answered with a 2xx, 1 with anything else.
    """
    with connect_webhooks(server, api_key) as client:
        answer = client.test(check_id(webhook_id, "webhook"), event)
    status = int(answer["status_code"])
    if as_json:
        console.emit_json(answer)
    else:
        console.write(f"{answer['event_type']}: the receiver answered {status}.")
    raise typer.Exit(0 if 200 <= status < 300 else 1)


@app.command(
    epilog=examples(
        "lowtide webhooks deliveries wh_abc123 --state failed",
        "lowtide webhooks deliveries project --json | jq .data",
    )
)
def deliveries(
    webhook_id: OrProject,
    state: Annotated[
        Literal["pending", "delivered", "failed"] | None,
        typer.Option(help="Only those in this state."),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, max=PAGE_SIZE_MAX_BATCHES, help="How many, newest first.")
    ] = 20,
    server: ServerOption = DEFAULT_SERVER,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what was sent in the last 30 days, and what came of it."""
    with connect_webhooks(server, api_key) as client:
        answer = client.deliveries(check_id(webhook_id, "webhook"), limit, state)
    if as_json:
        console.emit_json(answer)
        return
    deliveries_sent = [read_view(each, DeliveryObject) for each in answer.get("data", [])]
    created, shown_time = table.created()
    table.show_table(
        (
            table.whole("event"),
            table.whole("type"),
            table.whole("state"),
            table.number("attempts"),
            created,
            table.name("what happened"),
        ),
        [
            (
                each.event_id,
                each.type,
                each.state,
                str(each.attempts),
                shown_time(each.created_at),
                each.error or (f"answered {each.status_code}" if each.status_code else ""),
            )
            for each in deliveries_sent
        ],
    )


@app.command(
    epilog=examples(
        "lowtide webhooks replay wh_abc123", "lowtide webhooks replay wh_abc123 evt_def456"
    )
)
def replay(
    webhook_id: OrProject,
    event_id: Annotated[
        str | None, typer.Argument(metavar="EVENT_ID", help="Default: all that have failed.")
    ] = None,
    server: ServerOption = DEFAULT_SERVER,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send events once more, with their ids."""
    with connect_webhooks(server, api_key) as client:
        asked = None if event_id is None else check_id(event_id, "event")
        answer = client.replay(check_id(webhook_id, "webhook"), asked)
    if as_json:
        console.emit_json(answer)
        return
    console.write(f"Sending {units.plural(int(answer['replayed']), 'event')} once more.")


def _show(answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        console.emit_json(answer)
        return
    webhook = read_view(answer, WebhookObject)
    fields = [
        ("id", webhook.id),
        ("url", escape(webhook.url)),
        ("name", escape(webhook.name)),
        ("events", ", ".join(webhook.events) or "those of batches that name it"),
        ("state", _state(webhook)),
        ("reason", escape(webhook.disabled_reason or "")),
        ("created", units.human_instant(webhook.created_at)),
        ("last success", units.human_instant(webhook.last_success_at)),
        ("failing since", units.human_instant(webhook.failing_since)),
    ]
    table.show_fields((name, value) for name, value in fields if value and value != "-")


def _state(webhook: WebhookObject) -> str:
    if not webhook.enabled:
        return "disabled"
    return "failing" if webhook.failing_since is not None else "enabled"
