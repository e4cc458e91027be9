"""A run whose output's disk is full says which disk that is."""

import errno
from pathlib import Path

import pytest

from lowtide.cli.run.run_client import full_disk_named
from lowtide.cli.run.run_state import RunFolder
from lowtide.cli.terminal.command_errors import explain


def said_of(error: OSError, place: Path) -> str:
    folder = RunFolder(place / "out.jsonl.lowtide")
    with pytest.raises(OSError) as caught, full_disk_named(folder):
        raise error
    return explain(caught.value).message


def test_a_full_disk_is_named_by_the_folder_of_the_output(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    assert said_of(full, tmp_path) == f"{tmp_path}: no space left on this disk."


def test_an_error_that_names_a_file_or_is_another_one_stays_as_it_is(tmp_path: Path) -> None:
    named = OSError(errno.ENOSPC, "No space left on device", "/elsewhere/x")
    assert said_of(named, tmp_path) == "/elsewhere/x: no space left on this disk."
    assert said_of(OSError(errno.EIO, "Input/output error"), tmp_path) == "Input/output error."
