"""A file as a multipart form, sent piece by piece with its length known from the start."""

import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from lowtide import limits
from lowtide.cli.exits import CommandError

_ESCAPES: Final = str.maketrans({'"': "%22", "\r": "%0D", "\n": "%0A"})  # as browsers write names


class FileForm:
    """The fields `purpose` and `file` of an upload. May be sent more than once."""

    def __init__(self, path: Path, purpose: str) -> None:
        """Raises OSError when the file cannot be looked at."""
        self._path = path
        self._bytes = path.stat().st_size
        boundary = secrets.token_hex(16)
        name = path.name.translate(_ESCAPES)
        self._head = (
            f"--{boundary}\r\n"
            'Content-Disposition: form-data; name="purpose"\r\n\r\n'
            f"{purpose}\r\n"
            f"--{boundary}\r\n"
            f'Content-Disposition: form-data; name="file"; filename="{name}"\r\n'
            "Content-Type: application/jsonl\r\n\r\n"
        ).encode(errors="surrogateescape")
        self._tail = f"\r\n--{boundary}--\r\n".encode()
        length = len(self._head) + self._bytes + len(self._tail)
        self.headers: Mapping[str, str] = {
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "Content-Length": str(length),
        }

    def blocks(self, advance: Callable[[int, int | None], None]) -> Iterator[bytes]:
        """The body. Raises CommandError when the file shrinks meanwhile; growth is not sent."""
        yield self._head
        done = 0
        with self._path.open("rb") as stream:
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
