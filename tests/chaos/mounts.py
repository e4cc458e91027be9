"""File systems to be filled and to fail: a tmpfs, and an ext4 in a file. Both need root.

Invariant: what was mounted here is unmounted when its context is left, come what may.
"""

import asyncio
import errno
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final

COMMAND_S: Final = 30.0
REFILL_S: Final = 0.05
REMOUNT_TRIES: Final = 200


class NotPossible(Exception):
    """This machine cannot do what a scenario needs; the message says what is missing."""


def command(*words: str | Path) -> str:
    """Run a system command; what it prints. Raises NotPossible."""
    try:
        done = subprocess.run(
            [*map(str, words)], capture_output=True, text=True, timeout=COMMAND_S, check=False
        )
    except FileNotFoundError:
        raise NotPossible(f"there is no command {words[0]}") from None
    if done.returncode != 0:
        raise NotPossible(f"{' '.join(map(str, words))}: {done.stderr.strip()}")
    return done.stdout


@contextmanager
def tmpfs(folder: Path, mib: int) -> Iterator[Path]:
    """A small file system in memory."""
    folder.mkdir()
    command("mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=755", "tmpfs", folder)
    try:
        yield folder
    finally:
        command("umount", "--lazy", folder)


@contextmanager
def ext4(folder: Path, mib: int) -> Iterator["Ext4"]:
    """A small ext4 that becomes read-only at its first error, as Debian mounts them."""
    folder.mkdir()
    disk = Ext4(folder, folder.with_suffix(".img"))
    with disk.image.open("wb") as image:
        image.truncate(mib << 20)
    command("mkfs.ext4", "-q", "-F", disk.image)
    disk.mount()
    try:
        yield disk
    finally:
        with suppress(NotPossible):
            command("umount", folder)
        disk.image.unlink()


class Ext4:
    def __init__(self, folder: Path, image: Path) -> None:
        self.folder = folder
        self.image = image

    def mount(self) -> None:
        command("mount", "-o", "loop,errors=remount-ro", self.image, self.folder)

    def fail(self) -> None:
        """The kernel finds an error, and lets nobody write any more, open files included."""
        device = Path(command("findmnt", "-no", "SOURCE", self.folder).strip()).name
        trigger = Path("/sys/fs/ext4") / device / "trigger_fs_error"
        if not trigger.exists():
            raise NotPossible(f"this kernel has no {trigger}")
        with suppress(OSError):
            trigger.write_text("1")

    def mend(self) -> None:
        """What an operator does: unmount, check, mount again. Nobody may use it meanwhile."""
        command("umount", self.folder)
        subprocess.run(
            ["e2fsck", "-fy", self.image], capture_output=True, timeout=COMMAND_S, check=False
        )
        self.mount()


@asynccontextmanager
async def filled(folder: Path) -> AsyncIterator[None]:
    """Take all the room there is, and what is freed meanwhile; give it back at the end."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        fill(file.fileno())
        filling = asyncio.create_task(_keep_filling(file.fileno()))
        try:
            yield
        finally:
            filling.cancel()
            filler.unlink()


async def _keep_filling(handle: int) -> None:
    while True:
        await asyncio.sleep(REFILL_S)
        fill(handle)


def fill(handle: int) -> None:
    for size in (1 << 16, 1 << 12, 1):
        try:
            while True:
                os.write(handle, bytes(size))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


async def remount(folder: Path, how: str) -> None:
    """ "ro" or "rw"; "ro" waits for a moment in which nobody has a file open to write."""
    for _ in range(REMOUNT_TRIES):
        try:
            command("mount", "-o", f"remount,{how}", folder)
        except NotPossible as busy:
            if "busy" not in str(busy):
                raise
            await asyncio.sleep(0.01)
        else:
            return
    raise NotPossible(f"{folder} was never without a file open to write")
