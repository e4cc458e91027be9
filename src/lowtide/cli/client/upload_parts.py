"""A large file sent in parts, over OpenAI's Uploads API (protocol.md section 3.2).

Called by client.py where a file is worth it: a connection that breaks then costs one part instead
of all. Invariant: an upload that is given up is cancelled, unless the server is gone; then it
expires there.
"""

from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from lowtide import limits
from lowtide.cli.client.http_client import HttpClient, ServerRefused, ServerUnreachable
from lowtide.cli.client.multipart import FileForm
from lowtide.cli.client.objects import JsonObject
from lowtide.cli.terminal.command_errors import CommandError

_NOT_OFFERED: Final = (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED)


def upload_in_parts(
    http: HttpClient, path: Path, purpose: str, advance: Callable[[int, int | None], None]
) -> JsonObject | None:
    """The file's object; None where the server does not offer it. Raises CommandError, OSError."""
    size = path.stat().st_size
    new = {
        "bytes": size,
        "filename": path.name,
        "mime_type": "application/jsonl",
        "purpose": purpose,
    }
    try:
        upload_id = str(http.call("POST", "/uploads", json=new).get("id"))
    except ServerRefused as error:
        if error.status in _NOT_OFFERED:
            return None
        raise
    try:
        parts = [
            _send(http, f"/uploads/{upload_id}/parts", path, offset, size, advance)
            for offset in range(0, size, limits.UPLOAD_PART_BYTES_MAX)
        ]
        # Asked again after a time-out, the server goes on where it is.
        done = http.call("POST", f"/uploads/{upload_id}/complete", json={"part_ids": parts})
    except ServerUnreachable:
        raise
    except BaseException:
        with suppress(CommandError):
            http.call("POST", f"/uploads/{upload_id}/cancel")
        raise
    file: Any = done.get("file")
    if not isinstance(file, dict):
        raise CommandError(
            "The server's answer has no file.", "Check --server.", code="not_lowtide"
        )
    return file


def _send(
    http: HttpClient,
    to: str,
    path: Path,
    offset: int,
    size: int,
    advance: Callable[[int, int | None], None],
) -> str:
    """Sends one part. Returns its id."""
    length = min(limits.UPLOAD_PART_BYTES_MAX, size - offset)
    form = FileForm(path, {}, "data", offset=offset, length=length)
    answer = http.call(
        "POST",
        to,
        content=lambda: form.blocks(lambda done, _: advance(offset + done, size)),
        headers=form.headers,
    )
    return str(answer.get("id"))
