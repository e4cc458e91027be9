"""A file that appears under its name whole or not at all.

Used by whatever downloads results. Invariant: what lay under the name stays until the new content
is on the disk; a download that fails leaves nothing.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole_file(target: Path) -> Iterator[BinaryIO]:
    """Yields a stream to write the content of `target` to. A pipe or a device is
    written to as it is.
    """
    if target.exists() and not target.is_file():  # nothing to replace
        with target.open("wb") as stream:
            yield stream
        return
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        part.chmod(0o666 & ~_umask())
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _umask() -> int:
    """The process's umask: mkstemp makes private files, a result is as public as any other."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
