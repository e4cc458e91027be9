"""Environments of the clients: made from hashed pins with pip, and kept until the pins change.

    python tests/clients/environments.py NAME

makes one and prints the path of its Python. Exit code 3: no package registry could be reached.
"""

import fcntl
import hashlib
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from clients import CLIENTS, HERE, Client

ROOT: Final = HERE.parent.parent
BUILD_S: Final = 600
"""The largest environment, 120 packages, takes 40 seconds on two cores with a near registry."""

NO_REGISTRY_EXIT: Final = 3

_UNREACHABLE: Final = re.compile(
    r"NewConnectionError|NameResolutionError|ConnectTimeout|ReadTimeout|ProxyError"
    r"|from versions: none"
)


class EnvironmentFailedError(Exception):
    """pip could not install the pins; the text says why, in its words."""


class NoRegistryError(EnvironmentFailedError):
    """No package registry answered, which says nothing about the client."""


def environment(client: Client) -> Path:
    """The Python of the client's environment, made if it is not there or its pins are others.

    Raises EnvironmentFailedError.
    """
    folder = ROOT / ".venvs" / client.name
    stamp = folder / ".pins"
    wanted = hashlib.sha256(sys.version.encode() + client.pins.read_bytes()).hexdigest()
    with _alone(folder.with_suffix(folder.suffix + ".lock")):
        if not (stamp.is_file() and stamp.read_text() == wanted):
            shutil.rmtree(folder, ignore_errors=True)
            venv.create(folder)
            _install(folder, client.pins)
            stamp.write_text(wanted)
    return folder / "bin" / "python"


def _install(folder: Path, pins: Path) -> None:
    # The pins are complete, so nothing is resolved: --no-deps, and nothing unpinned can come in.
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install",
         "--no-deps", "--require-hashes", "--no-compile", "--no-input", "--retries", "1",
         "--disable-pip-version-check", "--progress-bar", "off", "-r", str(pins)],
        capture_output=True, text=True, timeout=BUILD_S, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        said = done.stdout + done.stderr
        last = "\n".join(said.splitlines()[-12:])
        if _UNREACHABLE.search(said):
            raise NoRegistryError(last)
        raise EnvironmentFailedError(last)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """One builder at a time, also among processes."""
    lock.parent.mkdir(exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main(name: str) -> int:
    client = next(client for client in CLIENTS if client.name == name)
    try:
        print(environment(client))
    except NoRegistryError as error:
        print(error, file=sys.stderr)
        return NO_REGISTRY_EXIT
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
