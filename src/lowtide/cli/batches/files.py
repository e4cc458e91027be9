"""`lowtide files`: upload, list, get, content, delete."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape

from lowtide.api.objects.files import FileObject
from lowtide.cli.batches.input_file import guess_purpose, readable_input
from lowtide.cli.batches.outputs import writable_target
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
from lowtide.cli.terminal.progress import transfer_bar
from lowtide.cli.terminal.standard_streams import input_file, is_standard

app = command_group(help="Files on a Lowtide server.")

FileId = Annotated[str, typer.Argument(metavar="FILE_ID")]


@app.command(epilog=examples("lowtide files upload batch.jsonl"))
@server_command
def upload(
    client: ServerClient,
    path: Annotated[Path, typer.Argument(metavar="FILE", help="A JSONL file of requests.")],
    purpose: Annotated[
        Literal["batch", "batch-api"] | None,
        typer.Option(
            help="batch: lines as OpenAI has them, with method and url; batch-api: as Together has"
            " them. Default: what the first line looks like."
        ),
    ] = None,
) -> Answers:
    """Upload a file of requests. Prints its id."""
    answer = _upload(client, path, purpose)
    yield answer
    file = read_view(answer, FileObject)
    console.write(file.id)
    command = f"lowtide batches create {escape(file.id)}"
    console.info(f"Uploaded {units.human_bytes(file.bytes)}. Next: [bold]{command}[/]")


def upload_file(client: ServerClient, path: Path) -> str:
    """Uploads a file of requests and returns its id; `-` is standard input. Raises CommandError for
    a file that cannot be read."""
    return read_view(_upload(client, path, None), FileObject).id


def _upload(client: ServerClient, path: Path, purpose: str | None) -> JsonObject:
    with input_file(path) as source:
        readable_input(source)
        with transfer_bar(f"Uploading {source.name}") as advance:
            return client.upload(source, purpose or guess_purpose(source), advance)


@app.command("list", epilog=examples("lowtide files list --limit 10"))
@server_command
def list_files(
    client: ServerClient,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many, newest first.")] = 20,
    purpose: Annotated[str | None, typer.Option(help="Only files of this purpose.")] = None,
) -> Answers:
    """List files, newest first."""
    answer = client.files(limit, purpose)
    yield answer
    files = [read_view(entry, FileObject) for entry in answer.get("data", [])]
    created, shown_time = table.created()
    table.show_table(
        (
            table.whole("id"),
            table.name("name"),
            table.number("size"),
            table.whole("purpose"),
            created,
        ),
        [
            (
                file.id,
                file.filename,
                units.human_bytes(file.bytes),
                file.purpose,
                shown_time(file.created_at),
            )
            for file in files
        ],
    )
    if answer.get("has_more"):
        console.info(f"[dim]There are more; --limit {limit * 5} shows them.[/]")


@app.command(epilog=examples("lowtide files get file-abc123"))
@server_command
def get(client: ServerClient, file_id: FileId) -> Answers:
    """Show one file's record."""
    answer = client.file(check_id(file_id, "file"))
    yield answer
    _show(answer)


def _show(answer: JsonObject) -> None:
    file = read_view(answer, FileObject)
    table.show_fields(
        (
            ("id", escape(file.id)),
            ("name", escape(file.filename)),
            ("size", f"{units.human_bytes(file.bytes)} ({file.bytes:,} bytes)"),
            ("purpose", escape(file.purpose)),
            ("created", units.human_instant(file.created_at)),
            ("kept until", units.human_instant(file.expires_at)),
        )
    )


@app.command(
    epilog=examples(
        "lowtide files content file-abc123 -o results.jsonl",
        "lowtide files content file-abc123 | head -3",
    )
)
def content(
    file_id: FileId,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Default: standard output."),
    ] = None,
    server: ServerOption = DEFAULT_SERVER,
    api_key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Download a file's content."""
    check_id(file_id, "file")
    if output is not None and is_standard(output):
        output = None
    if output is not None:
        writable_target(output)
    elif as_json:
        raise typer.BadParameter("--json needs -o: the content itself would go to standard output.")
    with connect(server, api_key) as client:
        if output is None:
            client.copy(file_id, sys.stdout.buffer)
            sys.stdout.buffer.flush()
            return
        with transfer_bar(f"Downloading {output.name}") as advance:
            copied = client.download(file_id, output, advance)
    if as_json:
        console.emit_json({"id": file_id, "output": str(output), "bytes": copied.bytes})
        return
    console.info(f"Wrote {units.human_bytes(copied.bytes)} to {escape(str(output))}.")


@app.command(epilog=examples("lowtide files delete file-abc123"))
@server_command
def delete(client: ServerClient, file_id: FileId) -> Answers:
    """Delete a file. A batch that still reads it goes on undisturbed."""
    yield client.delete_file(check_id(file_id, "file"))
    console.write(f"Deleted {escape(file_id)}.")
