"""`lowtide webhooks`: create, list, show, set, delete, rotate, test, deliveries, replay."""

from typing import Annotated, Any, Literal

import typer
from rich.markup import escape

from lowtide.api.objects.webhooks import DeliveryObject, WebhookObject
from lowtide.cli.client.objects import JsonObject, read_view
from lowtide.cli.client.server_client import ServerClient, check_id
from lowtide.cli.options import (
    DEFAULT_SERVER,
    JsonOption,
    KeyOption,
    ServerOption,
    command_group,
    connect,
    examples,
)
from lowtide.cli.server_commands import Answers, server_command
from lowtide.cli.terminal import console, table, units
from lowtide.cli.terminal.command_errors import CommandError
from lowtide.core.webhooks.endpoint import EVENT_TYPES
from lowtide.limits import PAGE_SIZE_MAX_BATCHES, WEBHOOK_OVERLAP_S

app = command_group(help="Addresses that a server calls when batches end.")

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
@server_command
def create(
    client: ServerClient,
    url: Annotated[str, typer.Argument(metavar="URL", help="Where events are sent to.")],
    event: EventOption = None,
    name: Annotated[str, typer.Option(metavar="NAME", help="What it is for.")] = "",
) -> Answers:
    """Name an address that hears of all batches of the project. Prints its id and its secret.

    Without --event it hears of every end.
    """
    answer = client.webhooks.create(url, event, name)
    yield answer
    console.write(f"{answer['id']}\n{answer['secret']}")
    console.info(f"The second line is the secret. {_SHOWN_ONCE}")
    console.info(f"Next: [bold]lowtide webhooks test {escape(answer['id'])}[/]")


@app.command("list", epilog=examples("lowtide webhooks list"))
@server_command
def list_webhooks(client: ServerClient) -> Answers:
    """List the project's webhooks, newest first."""
    answer = client.webhooks.all()
    yield answer
    webhooks = [read_view(each, WebhookObject) for each in answer.get("data", [])]
    table.show_table(
        (table.whole("id"), table.whole("state"), table.name("url"), table.name("name")),
        [(each.id, _state(each), each.url, each.name) for each in webhooks],
    )


@app.command(epilog=examples("lowtide webhooks show wh_abc123"))
@server_command
def show(client: ServerClient, webhook_id: WebhookId) -> Answers:
    """Show one webhook: where it goes, and how it does."""
    answer = client.webhooks.get(check_id(webhook_id, "webhook"))
    yield answer
    _show(answer)


@app.command(
    "set",
    epilog=examples(
        "lowtide webhooks set wh_abc123 --enable",
        "lowtide webhooks set wh_abc123 --url https://example.org/new --event batch.failed",
    ),
)
@server_command
def change(
    client: ServerClient,
    webhook_id: WebhookId,
    url: Annotated[str | None, typer.Option(metavar="URL", help="Another address.")] = None,
    event: EventOption = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Another name.")] = None,
    enable: Annotated[
        bool | None, typer.Option("--enable/--disable", help="Call it again; or no more.")
    ] = None,
) -> Answers:
    """Change what is given; the rest stays."""
    asked: dict[str, Any] = {"url": url, "events": event or None, "name": name, "enabled": enable}
    fields = {key: value for key, value in asked.items() if value is not None}
    if not fields:
        raise CommandError("Nothing to change.", "Give --url, --event, --name or --enable.")
    answer = client.webhooks.change(check_id(webhook_id, "webhook"), fields)
    yield answer
    _show(answer)


@app.command(epilog=examples("lowtide webhooks delete wh_abc123"))
@server_command
def delete(client: ServerClient, webhook_id: WebhookId) -> Answers:
    """Call an address no more, and forget what was sent there."""
    yield client.webhooks.delete(check_id(webhook_id, "webhook"))
    console.write(f"Deleted {escape(webhook_id)}.")


@app.command(
    epilog=examples(
        "lowtide webhooks rotate wh_abc123",
        "lowtide webhooks rotate wh_abc123 --overlap-hours 0",
        "lowtide webhooks rotate project",
    )
)
@server_command
def rotate(
    client: ServerClient,
    webhook_id: OrProject,
    overlap_hours: Annotated[
        float, typer.Option(metavar="HOURS", min=0, help="For which the old secret signs, too.")
    ] = WEBHOOK_OVERLAP_S / 3600,
) -> Answers:
    """Make another secret, and print it.

    Of `project`: the secret for addresses that batches name, which the first call makes.
    """
    answer = client.webhooks.rotate(check_id(webhook_id, "webhook"), overlap_hours * 3600)
    yield answer
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
    with connect(server, api_key) as client:
        answer = client.webhooks.test(check_id(webhook_id, "webhook"), event)
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
@server_command
def deliveries(
    client: ServerClient,
    webhook_id: OrProject,
    state: Annotated[
        Literal["pending", "delivered", "failed"] | None,
        typer.Option(help="Only those in this state."),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, max=PAGE_SIZE_MAX_BATCHES, help="How many, newest first.")
    ] = 20,
) -> Answers:
    """List what was sent in the last 30 days, and what came of it."""
    answer = client.webhooks.deliveries(check_id(webhook_id, "webhook"), limit, state)
    yield answer
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
@server_command
def replay(
    client: ServerClient,
    webhook_id: OrProject,
    event_id: Annotated[
        str | None, typer.Argument(metavar="EVENT_ID", help="Default: all that have failed.")
    ] = None,
) -> Answers:
    """Send events once more, with their ids."""
    asked = None if event_id is None else check_id(event_id, "event")
    answer = client.webhooks.replay(check_id(webhook_id, "webhook"), asked)
    yield answer
    console.write(f"Sending {units.plural(int(answer['replayed']), 'event')} once more.")


def _show(answer: JsonObject) -> None:
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
