"""The command `lowtide` as a child process, and input files for it."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from testkit import forked_command
from testkit.patience import PATIENCE_S
from testkit.scripted_engine import ScriptedEngine


def request_line(custom_id: str, text: str = "hello", model: str = "m") -> dict[str, Any]:
    """A line in Together's format."""
    return {"custom_id": custom_id, "body": {"model": model, "messages": [_user(text)]}}


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def custom_ids(path: Path) -> list[str]:
    return [line["custom_id"] for line in read_lines(path)]


async def reached(engine: ScriptedEngine, requests: int) -> None:
    """Wait until a child process, which may take its time to start, has sent so many requests."""
    async with asyncio.timeout(PATIENCE_S):
        while len(engine.requests) < requests:
            with suppress(TimeoutError):
                await engine.saw_requests(requests)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def first_lines(path: Path, count: int) -> None:
    """Wait until another process has written that many lines; no event tells of it."""

    def wait() -> None:
        end = time.monotonic() + PATIENCE_S
        while not path.exists() or path.read_bytes().count(b"\n") < count:
            assert time.monotonic() < end, f"{path} never had {count} lines"
            time.sleep(0.05)

    await asyncio.to_thread(wait)


class Command:
    """A running `lowtide ARGUMENTS`. Killed when the context ends, if it still runs."""

    def __init__(self, process: forked_command.ForkedCommand | asyncio.subprocess.Process) -> None:
        self._process = process
        self.reported = ""
        """What it wrote to standard error so far, as far as it was waited for."""

    @classmethod
    async def start(cls, *arguments: str | Path, cwd: Path, **environ: str) -> Self:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("LOWTIDE_")}
        process = await forked_command.start(*map(str, arguments), cwd=cwd, env=clean | environ)
        return cls(process)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.communicate()  # also closes the pipes, which a warning would tell of

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def said(self, words: str) -> str:
        """Wait until standard error has a line with these words; that line."""
        assert self._process.stderr is not None
        async with asyncio.timeout(PATIENCE_S):
            while line := (await self._process.stderr.readline()).decode():
                self.reported += line
                if words in line:
                    return line
        raise AssertionError(f"it ended without saying {words!r}: {self.reported}")

    async def printed_json(self) -> dict[str, Any]:
        """Wait for a line on standard output, and read it as JSON."""
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            line = await self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def ended(self) -> tuple[int, str, str]:
        """Wait for the end: exit code, standard output, all of standard error."""
        async with asyncio.timeout(PATIENCE_S):
            out, err = await self._process.communicate()
        assert self._process.returncode is not None
        self.reported += err.decode()
        assert "Traceback" not in self.reported and "That is a bug" not in self.reported, (
            self.reported
        )
        return self._process.returncode, out.decode(), self.reported


async def lowtide(*arguments: str | Path, cwd: Path, **environ: str) -> tuple[int, str, str]:
    """Run a command to its end: exit code, standard output, standard error."""
    async with await Command.start(*arguments, cwd=cwd, **environ) as command:
        return await command.ended()
