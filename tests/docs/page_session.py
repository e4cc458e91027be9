"""A reader who follows a page: one folder, one shell and one Python for all of its blocks.

`Session.follow` runs the blocks of a page in their order and stops at the first that fails. Names
that a block sets are there in the next one of its language. Addresses on a page are those of a
reader with an empty machine; here each port is replaced by a free one, the same for the whole page.
Whatever a page leaves running is ended with the session: shell and children are one process group.
"""

import asyncio
import os
import re
import shutil
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from page_blocks import Block, PageError, blocks_of, matches

from testkit.patience import PATIENCE_S

ROOT: Final = Path(__file__).parents[2]
SERVER_PORT: Final = 8000
_STOP_S: Final = 10.0
_POLL_S: Final = 0.05
_DRIVER: Final = """
import sys, traceback
names = {"__name__": "__main__"}
for path in sys.stdin:
    path = path.strip()
    code = 0
    try:
        exec(compile(open(path).read(), path, "exec"), names)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        print(end.code if isinstance(end.code, str) else "", end="")
    except BaseException:
        traceback.print_exc(file=sys.stdout)
        code = 1
    print(f"\\n--ended {code}", flush=True)
"""
_WARNINGS: Final = ("-W", "error::DeprecationWarning:__main__")
"""A page that uses what a library has given up is out of date."""
_ENDED: Final = re.compile(rb"\n--ended (\d+)\n")


class Session:
    """One page's folder and processes. `demo` is the model that answers to `--model demo`."""

    def __init__(
        self,
        folder: Path,
        demo: str,
        servers: Mapping[str, int] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`servers` are running already: the whole command as a page has it, and its port.

        `environment` is what the reader of this page has set before.
        """
        self._folder = folder
        self._demo = demo
        self._servers = servers or {}
        self._given = environment or {}
        self._ports: dict[int, int] = {}
        self._shell: Process | None = None
        self._python: Process | None = None
        self._count = 0
        self._printed = ""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in (self._shell, self._python):
            if process is not None:
                await _end(process)

    async def follow(self, page: Path, given: str = "") -> None:
        """All blocks of a page. `given` are shell lines for what its reader has already.

        Raises PageError: the line of the page, and what was printed.
        """
        blocks = blocks_of(page.read_text())  # noqa: ASYNC240 - nothing else runs here
        self._ports |= self._ports_of(blocks)
        self._copy_examples()
        self._make_environment()
        for block in (Block(0, "sh", given), *blocks) if given else blocks:
            try:
                await self._take(block)
            except PageError as error:
                raise PageError(f"{page.name}, line {block.line}: {error}") from None

    async def _take(self, block: Block) -> None:
        if block.runs:
            code, self._printed = await self._run(self._lines_of(block), block.is_shell)
            if code:
                raise PageError(f"exit code {code}:\n{self._printed[-4000:]}")
        elif block.mark == "in the background":
            await self._start(block)
        elif (name := block.after("file ")) is not None:
            (self._folder / name).write_text(self._file(block))
        elif (name := block.after("excerpt of ")) is not None:
            _check_excerpt(block, name)
        elif self._holds(block) and not matches(self._printed, self._here(block.text)):
            raise PageError(f"this was printed instead:\n{self._printed}")

    def _holds(self, output: Block) -> bool:
        """Whether what the block shows must have been printed with this model."""
        with_demo = output.mark == "prints with the demo model"
        return output.mark == "prints" or (with_demo and self._demo == "demo")

    # ---- what a reader's machine has, and ours ----

    def _ports_of(self, blocks: list[Block]) -> dict[int, int]:
        """A free port for each port that the page names."""
        ports = {SERVER_PORT, *self._ports}
        for block in blocks:
            ports |= {int(port) for port in re.findall(_PORTS, block.text)}
        for block in blocks:
            if (port := self._servers.get(block.text.strip())) is not None:
                self._ports[SERVER_PORT] = port
        return {port: self._ports.get(port) or _free_port() for port in ports}

    def _copy_examples(self) -> None:
        """Those of the tree, with our ports where they name the page's."""
        copied = self._folder / "examples"
        shutil.copytree(ROOT / "examples", copied, dirs_exist_ok=True)
        for path in (copied / "cookbook").iterdir():
            if path.is_file():
                path.write_text(self._with_our_ports(path.read_text()))

    def _make_environment(self) -> None:
        """The `.venv` of a clone: the one that runs this test, where it runs in one."""
        if sys.prefix != sys.base_prefix:
            (self._folder / ".venv").symlink_to(sys.prefix)

    def _lines_of(self, block: Block) -> str:
        """What runs for a block. One that ends with an error has a shell of its own for that."""
        text = self._here(block.text)
        if not block.exit_code:
            return text
        return f"ended=0; (\n{text}\n) || ended=$?\ntest $ended -eq {block.exit_code}\n"

    def _with_our_ports(self, text: str) -> str:
        def ours(match: re.Match[str]) -> str:
            port = int(match[1])
            return match[0].replace(match[1], str(self._ports.get(port, port)))

        return re.sub(_PORTS, ours, text)

    def _here(self, text: str) -> str:
        text = re.sub(_BACKUPS, f"{self._folder}/backup/", self._with_our_ports(text))
        return text.replace("--model demo", f"--model {self._demo}")

    def _file(self, block: Block) -> str:
        """A file of the page; in settings, what stands in for the demo model has its name, too."""
        text = self._here(block.text)
        has_engines = "[[replica]]" in text
        if block.language != "toml" or self._demo == "demo" or has_engines:
            return text
        if "[[model]]" not in text:
            text += '\n[[model]]\nid = "demo"\n'
        return text.replace('id = "demo"', f'id = "{self._demo}"\naliases = ["demo"]')

    def _environment(self) -> dict[str, str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("LOWTIDE_")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{clean.get('PATH', '')}"
        own = {"PATH": path, "LOWTIDE_SERVER__PORT": str(self._ports[SERVER_PORT])}
        own["XDG_STATE_HOME"] = str(self._folder / ".state")
        own |= self._given
        return clean | own | {"PYTHONUNBUFFERED": "1", "NO_COLOR": "1", "COLUMNS": "100"}

    # ---- running ----

    async def _run(self, text: str, is_shell: bool = True) -> tuple[int, str]:
        """The exit code of these lines, and what they printed on both streams."""
        self._count += 1
        script = self._folder / f".block-{self._count}"
        script.write_text(text)
        if is_shell:
            shell = await self._opened("shell")
            return await _ask(shell, f". '{script}' </dev/null; printf '\\n--ended 0\\n'\n")
        return await _ask(await self._opened("python"), f"{script}\n")

    async def _opened(self, kind: str) -> Process:
        if kind == "shell":
            self._shell = self._shell or await self._child("bash", "-eu", "-o", "pipefail")
            return self._shell
        self._python = self._python or await self._child(sys.executable, *_WARNINGS, "-c", _DRIVER)
        return self._python

    async def _child(self, *command: str) -> Process:
        return await asyncio.create_subprocess_exec(
            *command,
            cwd=self._folder,
            env=self._environment(),
            stdin=PIPE,
            stdout=PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )

    async def _start(self, block: Block) -> None:
        """Start what does not return, and wait until it takes connections on its port."""
        command = block.text.strip()
        if command in self._servers:
            return
        named = re.search(r"--port (\d+)", command)
        port = self._ports[int(named[1]) if named else SERVER_PORT]
        log = self._folder / f".background-{block.line}.log"
        await self._run(f"{self._here(command)} >'{log}' 2>&1 &\n")
        async with asyncio.timeout(PATIENCE_S):
            while not _listens(port):  # noqa: ASYNC110 - another process tells of no event
                await asyncio.sleep(_POLL_S)


_BACKUPS: Final = re.compile(r"(?<![\w.])/backup/")
"""Where pages put backups: a disk that no test may write to."""
_PORTS: Final = re.compile(r"(?:(?:127\.0\.0\.1|localhost):|--port )(\d+)")


async def _ask(process: Process, line: str) -> tuple[int, str]:
    """Hand a block to a shell or Python; the code that it ended with, and what it printed."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(line.encode())
    printed = b""
    async with asyncio.timeout(PATIENCE_S):
        while not (ended := _ENDED.search(printed)):
            piece = await process.stdout.read(65536)
            if not piece:  # `set -e` has ended the shell
                return await process.wait(), printed.decode()
            printed += piece
    return int(ended[1]), printed[: ended.start()].decode()


async def _end(process: Process) -> None:
    """End the whole process group, and wait for its leader."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    end = asyncio.get_running_loop().time() + _STOP_S
    with suppress(ProcessLookupError):
        while asyncio.get_running_loop().time() < end:
            await asyncio.sleep(_POLL_S)  # no event tells of the end of a child's child
            os.killpg(process.pid, 0)
        os.killpg(process.pid, signal.SIGKILL)
    await process.communicate()


def _check_excerpt(block: Block, name: str) -> None:
    if block.text.strip() not in (ROOT / name).read_text():
        raise PageError(f"these lines do not stand in {name}: copy them from there")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0
