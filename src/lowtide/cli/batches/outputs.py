"""Checks on where results are to be written, made before anything is started or asked."""

import os
from pathlib import Path

from lowtide.cli.terminal.command_errors import CommandError


def writable_target(path: Path) -> Path:
    """`path`, when a file can be put there. Raises CommandError."""
    if path.is_dir():
        raise CommandError(
            f"{path} is a folder, not a file.", f"For example: -o {path / 'results.jsonl'}"
        )
    if path.exists() and not path.is_file():
        return path  # a pipe or a device
    folder = path.parent
    if not folder.is_dir():
        raise CommandError(f"The folder {folder} does not exist.", f"Make it: mkdir -p {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise CommandError(f"The folder {folder} cannot be written to.")
    return path


def errors_beside(output: Path) -> Path:
    """The default path of failed lines: `results.errors.jsonl` beside `results.jsonl`."""
    if output.suffix == ".jsonl":
        return output.with_suffix(".errors.jsonl")
    return output.with_name(f"{output.name}.errors.jsonl")
