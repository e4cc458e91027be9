"""Engines of this machine, started and stopped by commands of the operator's.

Each replica has a slot (process_slot.py), a number that its command finds in LOWTIDE_REPLICA, and
a log. Invariants: an engine goes on when Lowtide ends, in whatever way, and is found again by the
next process that uses the same folder; what is stopped is stopped as a group, so nothing of it
stays on the GPU.
"""

import asyncio
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic

import msgspec

from lowtide import limits
from lowtide.core.replicas.scaler_asks import ScalerStatus
from lowtide.engines.scalers.engine_log import EngineLog
from lowtide.engines.scalers.process_slot import ProcessSlot, SlotState
from lowtide.ports.scalers import ScalerError


class Commands(msgspec.Struct, frozen=True, kw_only=True):
    """What to run: `start` for each replica, and `stop`, where ending its processes is not enough.
    `stop_s`: the time that an engine has to end.
    """

    start: tuple[str, ...]
    stop: tuple[str, ...] = ()
    model: str = ""
    stop_s: float = limits.SCALER_STOP_S


class CommandScaler:
    """Adapter of `ports.scalers.Scaler` for one machine."""

    def __init__(
        self,
        commands: Commands,
        folder: Path,
        log_path: Callable[[int], Path],
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """`folder` holds the slots, and belongs to this scaler alone; `log_path` tells where the
        output of a replica goes. The commands get `environ` without Lowtide's own variables, which
        hold its secrets.
        """
        self._commands = commands
        self._folder = folder
        self._log_path = log_path
        own = {key: value for key, value in environ.items() if not key.startswith("LOWTIDE_")}
        self._environ = {**own, "LOWTIDE_MODEL": commands.model}
        self._slots: dict[int, ProcessSlot] = {}
        self._reported: dict[int, int | None] = {}
        """The processes by replica whose end was reported."""
        self._changing = asyncio.Lock()

    async def read(self) -> ScalerStatus:
        """See `ports.scalers.Scaler`. What has ended by itself is reported once as an error."""
        with _as_scaler_error():
            return await asyncio.to_thread(self._read_slots)

    async def ask(self, replicas: int) -> None:
        """See `ports.scalers.Scaler`. Returns once what is to be stopped has ended."""
        async with self._changing:
            with _as_scaler_error():
                slots = await asyncio.to_thread(self._all_slots)
                running = [each for each in slots if each.state().condition == "running"]
                ends = (self._stop(each) for each in running[replicas:])
                for result in await asyncio.gather(*ends, return_exceptions=True):
                    if isinstance(result, BaseException):
                        raise result
                await asyncio.to_thread(self._start_to, replicas)

    async def check(self) -> None:
        """See `ports.scalers.Scaler`: the programs exist and the folder can be written to."""
        for command in (self._commands.start, self._commands.stop):
            if command and shutil.which(command[0], path=self._environ.get("PATH")) is None:
                raise ScalerError(f"{command[0]}: no such program, or it may not be run")
        await self.read()
        place = next((p for p in (self._folder, *self._folder.parents) if p.exists()), None)
        if place is None or not os.access(place, os.W_OK):
            raise ScalerError(f"{self._folder}: cannot be written to")

    async def aclose(self) -> None:
        """See `ports.scalers.Scaler`."""

    def _read_slots(self) -> ScalerStatus:
        errors, running = [], 0
        for slot in self._all_slots():
            log = self._log(slot.replica)
            log.keep_short()
            state = slot.state()
            status = slot.reap()
            if state.condition == "running":
                running += 1
            elif state.condition == "ended" and self._reported.get(slot.replica) != state.pid:
                if slot.is_child_alive:
                    continue  # it is ending: the next reading has its status
                self._reported[slot.replica] = state.pid
                said = log.last_line()
                with_status = "" if status is None else f" with status {status}"
                words = f"replica {slot.replica} has ended by itself{with_status}"
                errors.append(f"{words}{f': {said}' if said else ''} (see {log.path})")
        return ScalerStatus(target=running, running=running, error="; ".join(errors))

    def _start_to(self, replicas: int) -> None:
        """Starts engines in the lowest free slots until so many run."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        running = sum(each.state().condition == "running" for each in self._all_slots())
        number = 0
        while running < replicas:
            slot = self._slot(number)
            if slot.state().condition != "running" and self._start(slot):
                running += 1
            number += 1

    def _start(self, slot: ProcessSlot) -> bool:
        log_fd = self._log(slot.replica).open()
        try:
            return slot.start(
                self._commands.start,
                self._variables(slot),
                log_fd,
                detaches=bool(self._commands.stop),
            )
        finally:
            os.close(log_fd)

    async def _stop(self, slot: ProcessSlot) -> None:
        """Ends one engine: by the stop command, then by a signal, then by force."""
        failed = await self._run_stop(slot) if self._commands.stop else ""
        state = await self._named(slot)
        if state.is_detached and failed:
            raise ScalerError(failed)
        for number, patience_s in (
            (signal.SIGTERM, self._commands.stop_s),
            (signal.SIGKILL, limits.SCALER_KILL_S),
        ):
            slot.signal(number)
            if await self._has_ended(slot, patience_s):
                slot.reap()
                slot.clear()
                return
        raise ScalerError(
            f"replica {slot.replica} does not end (process group {state.pid}); {failed}".strip("; ")
        )

    async def _named(self, slot: ProcessSlot) -> SlotState:
        """The state, once its process has written its number: one that was just started may not
        have, and could not be ended.
        """
        until_s = monotonic() + limits.SCALER_KILL_S
        while True:
            state = slot.state()
            if state.condition != "running" or state.pid is not None or monotonic() >= until_s:
                return state
            await asyncio.sleep(limits.SCALER_END_POLL_S)

    async def _has_ended(self, slot: ProcessSlot, patience_s: float) -> bool:
        until_s = monotonic() + patience_s
        while _is_held(slot.state()):
            if monotonic() >= until_s:
                return False
            slot.reap()
            await asyncio.sleep(limits.SCALER_END_POLL_S)
        return True

    async def _run_stop(self, slot: ProcessSlot) -> str:
        """Why the stop command failed; empty when it did not."""
        log_fd = self._log(slot.replica).open()
        try:
            process = await asyncio.create_subprocess_exec(
                *self._commands.stop,
                env=self._variables(slot),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log_fd,
                stderr=log_fd,
                start_new_session=True,
            )
        except OSError as error:
            return f"the stop command cannot be run: {error.strerror}"
        finally:
            os.close(log_fd)
        try:
            async with asyncio.timeout(self._commands.stop_s):
                status = await process.wait()
        except TimeoutError:
            return f"the stop command took longer than {self._commands.stop_s:g} s"
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        said = self._log(slot.replica).last_line()
        return f"the stop command ended with status {status}: {said}" if status else ""

    def _all_slots(self) -> list[ProcessSlot]:
        """The slots that were ever used, by number: those of an earlier process among them."""
        try:
            paths = list(self._folder.iterdir())
        except FileNotFoundError:
            paths = []  # nothing was ever started
        numbers = [path.stem for path in paths if path.suffix == ".slot"]
        return [self._slot(number) for number in sorted(int(n) for n in numbers if n.isdigit())]

    def _slot(self, number: int) -> ProcessSlot:
        path = self._folder / f"{number}.slot"
        return self._slots.setdefault(number, ProcessSlot(path, number))

    def _log(self, replica: int) -> EngineLog:
        return EngineLog(self._log_path(replica))

    def _variables(self, slot: ProcessSlot) -> dict[str, str]:
        return {**self._environ, "LOWTIDE_REPLICA": str(slot.replica)}


def _is_held(state: SlotState) -> bool:
    """Whether a process of the engine still lives. A detached one is its stop command's to end."""
    return state.condition == "running" and not state.is_detached


@contextmanager
def _as_scaler_error() -> Iterator[None]:
    """Raises ScalerError for what files and processes refuse."""
    try:
        yield
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise ScalerError(f"{where}{error.strerror or error}") from None
