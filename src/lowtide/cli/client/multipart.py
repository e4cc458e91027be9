"""A file as a multipart form, sent piece by piece with its length known from the start."""

import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from lowtide import limits
from lowtide.cli.terminal.command_errors import CommandError

_ESCAPES: Final = str.maketrans({'"': "%22", "\r": "%0D", "\n": "%0A"})  # as browsers write names


class FileForm:
    """A form with some fields and a file, or `length` bytes of it from `offset` on. May be sent
    more than once.
    """

    def __init__(
        self,
        path: Path,
        fields: Mapping[str, str],
        file_field: str = "file",
        *,
        offset: int = 0,
        length: int | None = None,
    ) -> None:
        """Raises OSError when the file cannot be looked at."""
        self._path = path
        self._offset = offset
        self._bytes = path.stat().st_size - offset if length is None else length
        boundary = secrets.token_hex(16)
        name = path.name.translate(_ESCAPES)
        texts = "".join(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n'
            for field, value in fields.items()
        )
        self._head = (
            f"{texts}--{boundary}\r\n"
            f'Content-Disposition: form-data; name="{file_field}"; filename="{name}"\r\n'
            "Content-Type: application/jsonl\r\n\r\n"
        ).encode(errors="surrogateescape")
        self._tail = f"\r\n--{boundary}--\r\n".encode()
        total = len(self._head) + self._bytes + len(self._tail)
        self.headers: Mapping[str, str] = {
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "Content-Length": str(total),
        }

    def blocks(self, advance: Callable[[int, int | None], None]) -> Iterator[bytes]:
        """The body. Raises CommandError when the file shrinks meanwhile; growth is not sent."""
        yield self._head
        done = 0
        with self._path.open("rb") as stream:
            stream.seek(self._offset)
            while done < self._bytes:
                block = stream.read(min(limits.STREAM_BLOCK_BYTES, self._bytes - done))
                if not block:
                    raise CommandError(
                        f"{self._path} became shorter while it was read.",
                        "Run the command again once nothing writes to it.",
                    )
                done += len(block)
                yield block
                advance(done, self._bytes)
        yield self._tail
