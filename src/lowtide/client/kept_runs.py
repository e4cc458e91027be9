"""Where runs of a Python program are kept until their results have been handed over.

A run is found again by its content: the folder's name is a digest of what is asked of which rows,
and of whom. Invariant: a folder that another process works in is never touched.
"""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lowtide import limits
from lowtide.cli.run.run_state import RunFolder, lock
from lowtide.cli.terminal.command_errors import CommandError
from lowtide.data_dir import DataDirError, locked_data_dir


def runs_dir(given: str | os.PathLike[str] | None) -> Path:
    """`given`, else the folder for state of the person who runs the program."""
    if given is not None:
        return Path(given)
    home = os.environ.get("XDG_STATE_HOME")
    try:
        state = Path(home) if home else Path.home() / ".local" / "state"
    except RuntimeError:  # a user without a home
        raise CommandError(
            "There is no home directory to keep an unfinished run in.",
            "Name a folder with state_dir=.",
            code="no_state_dir",
        ) from None
    return state / "lowtide" / "runs"


@contextmanager
def kept_run(runs: Path, key: str) -> Iterator[RunFolder]:
    """The folder of the run `key`, locked. Raises CommandError."""
    try:
        runs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(
            f"{runs} cannot be made: {error.strerror}.",
            "Name another folder with state_dir=.",
            code="no_state_dir",
        ) from None
    with lock(runs / key) as folder:
        yield folder


def forget_old_runs(runs: Path, now: float | None = None) -> None:
    """Removes runs that were not continued for `limits.MAP_RUN_KEPT_S`. `now`: Unix seconds."""
    oldest = (time.time() if now is None else now) - limits.MAP_RUN_KEPT_S
    for path in runs.glob("*.lowtide"):
        try:
            if path.stat().st_mtime >= oldest:
                continue
            with locked_data_dir(path):
                shutil.rmtree(path, ignore_errors=True)
        except (OSError, DataDirError):  # in use, or gone meanwhile
            continue
