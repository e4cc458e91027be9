"""The key of an engine that lies in a file, and is read again when the file has another.

`HttpEngine` reads it after the engine refused a key: a rotation writes the new key to the file, and
the next refusal finds it there. Invariant: the key is in no message.
"""

import asyncio
from pathlib import Path

from lowtide.limits import API_KEY_BYTES_MAX


class KeyFile:
    """A file that holds one key; blanks and line ends around it do not count."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> str:
        """The key as it is now. Raises ValueError, which names the file."""
        try:
            with self._path.open("rb") as stream:
                text = stream.read(API_KEY_BYTES_MAX + 1)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise ValueError(f"api_key_file {self._path} cannot be read: {reason}") from None
        if len(text) > API_KEY_BYTES_MAX:
            raise ValueError(f"api_key_file {self._path} is too long to be a key")
        try:
            key = text.decode().strip()
        except UnicodeDecodeError:
            raise ValueError(f"api_key_file {self._path} is no text") from None
        if not key:
            raise ValueError(f"api_key_file {self._path} is empty")
        return key

    async def read_now(self) -> str | None:
        """The key as it is now, read beside the event loop; None where it cannot be read."""
        try:
            return await asyncio.to_thread(self.read)
        except ValueError:
            return None
