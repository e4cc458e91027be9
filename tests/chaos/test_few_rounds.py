"""The driver of `make test-chaos`, for a few rounds: it plants faults and finds every line."""

import asyncio
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parent / "run.py"


@pytest.mark.timeout(180)
async def test_a_few_rounds_of_kills_lose_and_double_no_line() -> None:
    command = (sys.executable, RUN, "--only", "sqlite", "--rounds", "2", "--seed", "4")
    driver = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    table, progress = await driver.communicate()
    assert driver.returncode == 0, progress.decode()
    rows = [row.split("|") for row in table.decode().splitlines() if row.startswith("| sqlite")]
    rounds, lines, lost, doubled = (int(cell) for cell in rows[0][2:6])
    assert rounds == 2 and lines > 300
    assert (lost, doubled) == (0, 0)
    assert {row[2].strip() for row in rows[1:]} & {"serve", "engine", "stop"}, "faults were planted"
