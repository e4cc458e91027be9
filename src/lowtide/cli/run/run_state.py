"""What a run remembers from one process to the next: the folder `OUTPUT.lowtide`.

It holds `run.json` (which input, which batch, where), the lock that keeps two runs from one output,
and, for a run without a server, the server's own data. Invariant: a run goes on only with the input
it was started with; the folder is gone once the results are in place.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from lowtide.cli.terminal.command_errors import CommandError
from lowtide.data_dir import DataDirError, locked_data_dir

_STATE_FILE: Final = "run.json"
_VERSION: Final = 1
_State = TypeVar("_State", bound="KeptState")


class KeptState(msgspec.Struct, frozen=True, kw_only=True):
    """What the states of all kinds of runs have. `server` is None when the run has its own."""

    version: int = _VERSION
    server: str | None = None

    @property
    def unfinished(self) -> tuple[str, ...]:
        """The batches that may still run."""
        return ()

    @property
    def place(self) -> str:
        """The place where the batches run, in words."""
        return f"on {self.server}" if self.server is not None else "on this machine"


class RunState(KeptState, frozen=True, kw_only=True):
    """A run as begun. Without a server, `model` names what answers."""

    input: str
    sha256: str
    endpoint: str
    model: str | None = None
    file_id: str | None = None
    batch_id: str | None = None

    @property
    def unfinished(self) -> tuple[str, ...]:
        return () if self.batch_id is None else (self.batch_id,)


class RunFolder:
    """The folder, locked. Made by `lock`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data_dir = path / "data"
        self.parts_dir = path / "parts"
        self.log_file = path / "logs" / "lowtide.log"
        self._state_file = path / _STATE_FILE

    @property
    def has_begun(self) -> bool:
        """Whether there is anything to go on with."""
        return self._state_file.exists()

    def load(self, kind: type[_State]) -> _State | None:
        """What an earlier process saved; None when there was none. Raises CommandError, also for
        the state of a run of another kind.
        """
        try:
            state = msgspec.json.decode(self._state_file.read_bytes(), type=kind)
        except FileNotFoundError:
            return None
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise CommandError(
                f"{self._state_file} cannot be understood.", "--restart begins anew."
            ) from None
        if state.version != _VERSION:
            raise CommandError(
                f"{self.path} was left by another version of Lowtide.",
                "Finish the run with that version, or begin anew with --restart.",
            )
        return state

    def save(self, state: KeptState) -> None:
        """Writes the state so that a crash leaves the old one or the new one."""
        part = self._state_file.with_suffix(".part")
        with part.open("wb") as stream:
            stream.write(msgspec.json.encode(state))
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(self._state_file)

    def clear(self) -> None:
        """Forgets everything but keeps the lock."""
        self._state_file.unlink(missing_ok=True)
        for folder in (self.data_dir, self.parts_dir):
            shutil.rmtree(folder, ignore_errors=True)

    def remove(self) -> None:
        """Removes the folder: the run is over and its results are in place."""
        shutil.rmtree(self.path, ignore_errors=True)


def folder_of(output: Path) -> Path:
    """The folder in which the run that writes `output` keeps its state."""
    return output.with_name(f"{output.name}.lowtide")


@contextmanager
def lock(output: Path) -> Iterator[RunFolder]:
    """The run's folder, created if necessary and locked while the context
    lasts. Raises CommandError.

    A folder that holds no state when the context ends is removed: nothing was begun.
    """
    path = folder_of(output)
    try:
        with locked_data_dir(path):
            folder = RunFolder(path)
            try:
                yield folder
            finally:
                if not folder.has_begun:
                    folder.remove()
    except DataDirError as error:
        if isinstance(error.__context__, BlockingIOError):
            raise CommandError(
                f"Another `lowtide run` is writing {output} at this moment.",
                "Wait for it, or give this one another -o.",
                code="run_in_progress",
            ) from None
        raise


def check_same(state: RunState, asked: RunState, output: Path) -> None:
    """Refuses to go on with another input, endpoint, server or model. Raises CommandError."""
    changed = None
    if state.sha256 != asked.sha256:
        changed = f"the input {asked.input} is not what it was"
    elif state.endpoint != asked.endpoint:
        changed = f"its endpoint was {state.endpoint}, not {asked.endpoint}"
    elif state.server != asked.server:
        changed = f"it was begun {state.place}, not {asked.place}"
    elif state.model != asked.model:
        changed = f"its model was {state.model or 'behind --url'}, not {asked.model or '--url'}"
    refuse_changed(output, changed)


def refuse_changed(output: Path | str, changed: str | None) -> None:
    """Raises CommandError where something that the run was begun with has `changed`, in words."""
    if changed is not None:
        raise CommandError(
            f"A run for {output} was begun earlier and is not finished, but {changed}.",
            "Run the earlier command to go on, or add --restart to throw that run away.",
            code="run_changed",
        )


def refuse_to_replace(output: Path | str, *, is_there: bool, force: bool) -> None:
    """Raises CommandError where `output` is there and may not be replaced."""
    if is_there and not force:
        raise CommandError(
            f"{output} is there already.",
            "Choose another, or replace it with --force.",
            code="output_exists",
        )
