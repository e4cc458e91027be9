"""`-` as a file name: standard input where a file is read, standard output where one is written.

Input is read twice (checked, then sent), so it is kept in a temporary file meanwhile. What is
written to standard output is results alone: while that is so, all words go to standard error.
"""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from lowtide.cli.terminal.command_errors import CommandError

STANDARD: Final = Path("-")


def is_standard(path: Path) -> bool:
    """Whether it means standard input or output."""
    return path == STANDARD


@contextmanager
def input_file(path: Path) -> Iterator[Path]:
    """The file to read: `path`, or a copy of standard input, which ends with the context."""
    if not is_standard(path):
        yield path
        return
    if sys.stdin.isatty():
        raise CommandError(
            "- reads standard input, and that is the terminal.",
            "Pipe requests into it: lowtide run - -o OUTPUT.jsonl < INPUT.jsonl",
        )
    with tempfile.TemporaryDirectory(prefix="lowtide-") as folder:
        copy = Path(folder) / "stdin.jsonl"
        with copy.open("wb") as stream:
            shutil.copyfileobj(sys.stdin.buffer, stream)
        yield copy


def refuse_json_beside_results(output: Path, *, as_json: bool) -> None:
    """Refuses `--json` where the results also go to standard output. Raises CommandError."""
    if is_standard(output) and as_json:
        raise CommandError(
            "-o - and --json both write to standard output.", "Give a file to -o, or leave --json."
        )
