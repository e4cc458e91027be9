"""The forked command is a process of its own: what it is given, what it says, how it ends."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from testkit import forked_command
from testkit.forked_command import ForkedCommand
from testkit.patience import PATIENCE_S

WAIT_S = PATIENCE_S
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="executed, not forked, elsewhere")


async def test_it_writes_to_its_pipes_and_ends_with_the_code_of_the_command(tmp_path: Path) -> None:
    said = await forked_command.start("--version", cwd=tmp_path, env=os.environ)
    refused = await forked_command.start("serve", "--nonsense", cwd=tmp_path, env=os.environ)
    assert isinstance(said, ForkedCommand) and isinstance(refused, ForkedCommand)
    async with asyncio.timeout(WAIT_S):
        out, err = await said.communicate()
        assert (out.split()[0], err, said.returncode) == (b"lowtide", b"", 0)
        out, err = await refused.communicate()
        assert out == b"" and b"--nonsense" in err and refused.returncode == 2
    assert len({said.pid, refused.pid, os.getpid()}) == 3


async def test_it_has_the_folder_and_the_environment_that_it_was_given(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("{}\n")
    env = {"PATH": os.environ["PATH"], "LOWTIDE_LIMITS__REQUESTS_PER_BATCH": "no number"}
    command = await forked_command.start("validate", "in.jsonl", cwd=tmp_path, env=env)
    assert isinstance(command, ForkedCommand)
    async with asyncio.timeout(WAIT_S):
        _, err = await command.communicate()
    assert command.returncode == 2 and b"requests_per_batch" in err


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 0)]
)
async def test_a_signal_reaches_it_alone(tmp_path: Path, number: signal.Signals, code: int) -> None:
    with (tmp_path / "log").open("wb") as log:
        ended, other = [
            await forked_command.start(
                "serve", "--port", "0", "--data-dir", str(tmp_path / name), "--json",
                cwd=tmp_path, env=os.environ, stderr=log.fileno(),
            )
            for name in ("ended", "other")
        ]  # fmt: skip
    async with asyncio.timeout(WAIT_S):
        for command in (ended, other):
            assert command.stdout is not None
            assert b"address" in await command.stdout.readline()
        ended.send_signal(number)
        assert await ended.wait() == code
        os.kill(other.pid, 0)  # which it takes, for it is there
        other.kill()
        assert await other.wait() == -signal.SIGKILL
    with pytest.raises(ProcessLookupError):
        os.kill(other.pid, 0)


async def test_where_python_itself_starts_otherwise_it_is_executed(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('before all')\n")
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = await forked_command.start("--version", cwd=tmp_path, env=env)
    assert not isinstance(command, ForkedCommand)
    async with asyncio.timeout(WAIT_S):
        out, _ = await command.communicate()
    assert out.startswith(b"before all\nlowtide ")
